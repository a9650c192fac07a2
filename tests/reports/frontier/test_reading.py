"""Which run and step a target of an evaluation is, and what its folder says of free baselines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import yaml

from seedpo.reports.frontier.courses import Spot
from seedpo.reports.frontier.reading import read_courses, spot_of
from seedpo.reports.frontier.results import results_of
from tests.reports.evaluated import PROMPTS
from tests.reports.synthetic import write_run

NAMES = {
    ("lora", "checkpoint-100/lora"): ("lora", 0, 100),
    ("base", "out/theirs/checkpoint-500/pytorch_lora_weights.safetensors"): ("theirs", 0, 500),
    ("theirs-000250", "theirs-000250.safetensors"): ("theirs", 0, 250),
    ("theirs_step=20_seed=3", "x.safetensors"): ("theirs", 3, 20),
    ("epoch7", "epoch7"): ("run", 0, 7),
    ("sd35-tuned", "models/sd35-tuned"): ("sd35-tuned", 0, None),
    ("theirs-100-strength-0.5", "theirs-100"): ("theirs", 0, 100),
    ("theirs-100-mixing-2-best-of-4", "theirs-100"): ("theirs", 0, 100),
}


@pytest.mark.parametrize(("label", "place"), NAMES)
def test_the_step_of_a_checkpoint_is_read_from_its_name(label: str, place: str) -> None:
    name, seed, step = NAMES[label, place]
    found = spot_of(label, {"kind": "lora", "target": place})
    assert found == Spot(label=name if label != "base" else found.label, seed=seed, step=step)


def test_runs_say_their_seed_and_end(tmp_path: Path) -> None:
    run = write_run(tmp_path / "mine", seed=4)
    assert spot_of("x", {"kind": "run", "target": str(run)}) == Spot(label="mine", seed=4, step=100)
    assert spot_of("x", {"kind": "run", "target": f"{run}@20"}) == Spot(label="mine", seed=4, step=20)
    (run / "finished.json").unlink()
    assert spot_of("x", {"kind": "run", "target": str(run)}) == Spot(label="mine", seed=4, step=None)
    assert spot_of("x", {"kind": "run", "target": "gone_seed=2@7"}) == Spot(label="gone", seed=2, step=7)


def write_evaluation(folder: Path, targets: dict[str, dict[str, Any]], values: dict[str, tuple[float, float]]) -> Path:
    """An evaluation folder whose targets have some proxy and judge, which differ from prompt to prompt."""
    folder.mkdir(parents=True)
    rows = [
        {"target": label, "step": None, "prompt_index": number, "image_index": 0, "prompt": prompt, "file": "",
         "proxy": proxy + 0.1 * number, "judge": judge - 0.1 * number + 0.01 * (number * len(label) % 3)}
        for label, (proxy, judge) in values.items()
        for number, prompt in enumerate(PROMPTS)
    ]  # fmt: skip
    table = pa.table({name: [row[name] for row in rows] for name in rows[0]})
    table = table.set_column(1, "step", table.column("step").cast(pa.int64()))
    parquet.write_table(table, folder / "scores.parquet")
    lines = [json.dumps({"prompt_index": index, "prompt": prompt}) for index, prompt in enumerate(PROMPTS)]
    (folder / "prompts.jsonl").write_text("\n".join(lines))
    (folder / "evaluation.yaml").write_text(yaml.safe_dump({"format": 1, "settings": {}, "targets": targets}))
    return folder


def test_checkpoints_of_another_trainer_with_free_baselines(tmp_path: Path) -> None:
    targets = {
        "base": {"kind": "pipeline", "target": "models/sd", "model": "models/sd"},
        "base-best-of-4": {"kind": "pipeline", "target": "models/sd", "model": "models/sd", "best_of": 4},
    }
    targets |= {
        f"theirs-{step}": {"kind": "lora", "target": f"theirs/checkpoint-{step}", "model": "models/sd"}
        for step in (200, 100)
    }
    targets["theirs-200-strength-0.5"] = {**targets["theirs-200"], "strength": 0.5}
    values = {"base": (0.0, 1.0), "base-best-of-4": (0.5, 1.2), "theirs-200": (2.0, -1.0), "theirs-100": (1.0, 2.0)}
    values["theirs-200-strength-0.5"] = (1.0, 0.5)
    folder = write_evaluation(tmp_path / "theirs", targets, values)
    found = results_of(*read_courses([folder]))
    (one,) = found.trained
    assert (one.series.label, one.curves["reward/judge"].steps) == ("theirs", (0, 100, 200))
    assert [(free.series.label, free.names) for free in found.free] == [
        ("theirs at step 0: best of n", ("as it is", "best-of-4")),
        ("theirs at step 200: strength", ("strength-0", "strength-0.5", "as it is")),
    ]
    assert one.outcome == "reward hacking"
    assert found.stops[0].step == 100
    assert {row.right for row in found.comparisons} == {"free baselines"}
    assert found.comparisons[0].verdict == "higher"


def test_an_evaluation_of_a_run_adds_free_baselines_to_it(tmp_path: Path) -> None:
    run = write_run(tmp_path / "mine_seed=4", seed=4)
    plain = {"kind": "run", "target": str(run), "model": "scenes"}
    targets = {
        "base": {"kind": "base", "target": f"{run}@base", "model": "scenes"},
        "mine": plain,
        "mine-mixing-2": {**plain, "mixing": 2.0},
    }
    values = {"base": (0.2, -0.1), "mine": (0.8, -0.6), "mine-mixing-2": (0.5, 0.0)}
    folder = write_evaluation(tmp_path / "free", targets, values)
    table = parquet.read_table(folder / "scores.parquet")
    names = {"proxy": "scenes-scorer", "judge": "truth"}
    table = table.rename_columns([names.get(column, column) for column in table.column_names])
    parquet.write_table(table, folder / "scores.parquet")
    courses, _ = read_courses([run, folder])
    assert [(course.label, course.seed, bool(course.controls)) for course in courses] == [
        ("mine", 4, False),
        ("mine at step 100: mixing", 4, True),
    ]
    assert courses[1].curves["reward/scenes-scorer"].values == pytest.approx((0.45, 0.75, 1.05))


def test_fully_tuned_pipelines_are_steps_and_their_base_is_the_start(tmp_path: Path) -> None:
    """The number in the base's name is a version; only a word before it makes a number a step."""
    names = {"base": "stabilityai/stable-diffusion-2-1", "a": "tuned/checkpoint-100", "b": "tuned/checkpoint-200"}
    targets = {label: {"kind": "pipeline", "target": name, "model": name} for label, name in names.items()}
    values = {"base": (0.0, 1.0), "a": (1.0, 2.0), "b": (2.0, 3.0)}
    (course,), _ = read_courses([write_evaluation(tmp_path / "full", targets, values)])
    assert (course.label, course.curves["reward/proxy"].steps) == ("tuned", (0, 100, 200))
    assert course.curves["reward/judge"].values == pytest.approx((0.76, 1.76, 2.76), abs=0.02)
