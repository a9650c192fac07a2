from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seedpo.errors import ConfigError, DataError
from seedpo.evaluation.evaluate import Measures, evaluate_over_training
from seedpo.evaluation.score import Scoring
from tests.evaluation.small_evaluations import rows, summary
from tests.small_runs import metrics

QUIET = Scoring(progress=False)
MEASURES = Measures(rewards=("scenes-scorer",), metrics=("truth", "free_spread"), scoring=QUIET)
REWARD_ALONE = Measures(rewards=("jpeg-compressibility",), scoring=QUIET)


@pytest.fixture(scope="module")
def curves(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("curves") / "out"
    evaluate_over_training([str(run)], out, measures=MEASURES)
    return out


def test_figures_are_those_that_the_run_logged(run: Path, curves: Path) -> None:
    found = {(row["figure"], row["step"]): row for row in summary(curves)["figures"]}
    logged = {line["step"]: line for line in metrics(run) if "truth" in line}
    assert sorted(logged) == [0, 1, 2]
    for step, line in logged.items():
        for name, key in (
            ("scenes-scorer", "reward/scenes-scorer"),
            ("truth", "truth"),
            ("free_spread", "free_spread"),
        ):
            # Sheets hold bytes, the run saw numbers: truth is read from edges, and moves by more than a score does.
            tolerance = 1e-4 if name == "scenes-scorer" else 0.05
            for end, column in (("", "mean"), ("/low", "low"), ("/high", "high")):
                if key + end in line:
                    assert found[name, step][column] == pytest.approx(line[key + end], abs=tolerance, rel=1e-3)


def test_each_step_is_compared_with_the_first(curves: Path) -> None:
    pairs = [row for row in summary(curves)["pairs"] if row["figure"] == "scenes-scorer"]
    assert [(row["step"], row["other_step"], row["target"], row["other"]) for row in pairs] == [
        (1, 0, "run", "run"),
        (2, 0, "run", "run"),
    ]
    scores = {step: {} for step in (0, 2)}
    for row in rows(curves / "scores.parquet"):
        if row["step"] in scores:
            scores[row["step"]][row["prompt_index"], row["image_index"]] = row["scenes-scorer"]
    wins = np.mean([scores[2][key] > scores[0][key] + pairs[1]["tie_width"] for key in scores[0]])
    assert pairs[1]["win"] == pytest.approx(wins)


def test_images_are_cut_without_loss(run: Path, curves: Path) -> None:
    with Image.open(run / "samples" / "step-000002.png") as sheet:
        tile = sheet.size[0] // 2
        wanted = np.asarray(sheet.crop((tile, 0, 2 * tile, tile)))
    with Image.open(curves / "images" / "run" / "step-000002" / "00000-01.png") as image:
        assert np.array_equal(np.asarray(image), wanted)


def test_a_later_call_scores_new_steps_only(run: Path, tmp_path: Path) -> None:
    early, out = tmp_path / "run", tmp_path / "out"
    shutil.copytree(run, early)
    sheet = early / "samples" / "step-000002.png"
    content = sheet.read_bytes()
    sheet.unlink()
    evaluate_over_training([str(early)], out, measures=REWARD_ALONE)
    before = {path: path.stat().st_mtime_ns for path in (out / "images").rglob("*.png")}
    first = rows(out / "scores.parquet")
    sheet.write_bytes(content)
    evaluate_over_training([str(early)], out, measures=REWARD_ALONE)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    again = rows(out / "scores.parquet")
    assert again[: len(first)] == first
    assert {row["step"] for row in again} == {0, 1, 2}


def test_two_runs(run: Path, tmp_path: Path) -> None:
    found = evaluate_over_training([f"a={run}", f"b={run}"], tmp_path / "out", measures=REWARD_ALONE)
    assert found.targets == ["a", "b"]
    assert {(pair.target, pair.other) for pair in found.pairs} == {("a", "a"), ("b", "b")}


def test_a_run_that_was_not_evaluated(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "samples")
    with pytest.raises(DataError, match="samples"):
        evaluate_over_training([str(tmp_path / "run")], tmp_path / "out", measures=REWARD_ALONE)


def test_runs_on_other_prompts(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "other")
    index = tmp_path / "other" / "samples" / "index.json"
    content = json.loads(index.read_text()) | {"prompts": ["a", "b"]}
    index.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="other and run"):
        evaluate_over_training([str(run), str(tmp_path / "other")], tmp_path / "out", measures=REWARD_ALONE)


def test_a_sheet_of_another_size(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    Image.new("RGB", (3, 3)).save(tmp_path / "run" / "samples" / "step-000001.png")
    with pytest.raises(DataError, match=r"step-000001\.png.*\(3, 3\)"):
        evaluate_over_training([str(tmp_path / "run")], tmp_path / "out", measures=REWARD_ALONE)


def test_two_runs_of_one_name(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="label run"):
        evaluate_over_training([str(run), str(run)], tmp_path / "out", measures=REWARD_ALONE)
