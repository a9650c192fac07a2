"""Figures as files: the numbers beside them are those of the runs, the bytes are the same every time."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from seedpo.cli.main import app
from seedpo.errors import ConfigError, RunFolderError
from seedpo.reports.families import group
from seedpo.reports.figures import KINDS, FigureOptions, write_figure
from seedpo.reports.figures.writing import width_of
from seedpo.reports.runs import read_runs
from tests.reports.synthetic import PROMPTS, Fate, write_run

STEPS = (0, 50, 100)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep with two seeds: gamma 0, 1 and 3 at beta 10, and the controls."""
    root = tmp_path_factory.mktemp("sweep")
    for beta, gamma in ((10.0, 0.0), (10.0, 1.0), (10.0, 3.0), (20.0, 0.0), (40.0, 0.0)):
        for seed in (0, 1):
            fate = Fate(hack=0.9 / (1 + gamma))
            write_run(
                root / f"b{beta:g}-g{gamma:g}-seed{seed}",
                method="spo",
                beta=beta,
                gamma=gamma,
                seed=seed,
                fate=fate,
                evaluations=STEPS,
                tile=8,
                columns=2,
            )
    return root


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_runs_give_the_same_bytes(runs: Path, tmp_path: Path, kind: str) -> None:
    for ending in ("pdf", "svg", "png"):
        first, second = tmp_path / f"a.{ending}", tmp_path / f"b.{ending}"
        for path in (first, second):
            assert write_figure(kind, [runs], path) == path.with_suffix(".csv")
        assert first.read_bytes() == second.read_bytes()
        assert table(first.with_suffix(".csv")) == table(second.with_suffix(".csv"))


def test_curves_are_those_of_the_settings(runs: Path, tmp_path: Path) -> None:
    rows = table(write_figure("curves", [runs], tmp_path / "a.svg", FigureOptions(metrics=("truth",))))
    (family,) = group(read_runs([folder for folder in runs.iterdir() if folder.is_dir()]))
    expected = {
        (setting.name, step): (point.value, point.low, point.high)
        for setting in family.settings
        for step, point in zip(setting.curves["truth"].steps, setting.curves["truth"].points, strict=True)
    }
    drawn = {(row["line"], int(row["x"])): (float(row["y"]), float(row["low"]), float(row["high"])) for row in rows}
    assert drawn == expected
    assert len(drawn) == 15


def test_curves_over_pairs(runs: Path, tmp_path: Path) -> None:
    options = FigureOptions(metrics=("scenes-scorer",), x="pairs")
    rows = table(write_figure("curves", [runs], tmp_path / "a.pdf", options))
    assert {float(row["x"]) for row in rows} == {0.0, 16 * 50.0, 16 * 100.0}


def test_an_ablation_has_its_controls(runs: Path, tmp_path: Path) -> None:
    rows = table(write_figure("ablation", [runs], tmp_path / "a.pdf", FigureOptions(metrics=("truth",))))
    gamma = [(row["line"], row["x"]) for row in rows if row["x_label"] == "γ"]
    assert gamma == [
        *(("β = 10", value) for value in ("0", "1", "3")),
        *(("control β′ = a, β = 10", value) for value in ("1", "3")),
    ]


def test_accuracy_on_held_out_pairs_comes_first(runs: Path, tmp_path: Path) -> None:
    rows = table(write_figure("accuracy", [runs], tmp_path / "a.pdf"))
    assert {row["panel"] for row in rows} == {"Accuracy in training"}
    assert all(float(row["low"]) <= float(row["y"]) <= float(row["high"]) for row in rows), "the range over seeds"
    run = write_run(tmp_path / "held-out", samples=False, evaluations=(0, 10))
    with (run / "metrics.jsonl").open("a") as lines:
        lines.write('{"kind": "evaluation", "step": 20, "validation/accuracy": 0.625, "truth": 0.0}\n')
    (row,) = table(write_figure("accuracy", [run], tmp_path / "b.pdf"))
    assert (row["panel"], row["line"], float(row["y"])) == ("Accuracy on held-out pairs", "held-out", 0.625)


def test_accuracy_over_parts_of_the_training(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", samples=False, evaluations=(0,))
    lines = [{"kind": "train", "step": step, "rewards/accuracies": float(step > 4)} for step in range(1, 9)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = table(write_figure("accuracy", [run], tmp_path / "a.pdf", FigureOptions(parts=2)))
    assert [(float(row["x"]), float(row["y"])) for row in rows] == [(2.5, 0.0), (6.5, 1.0)]
    assert len(table(write_figure("accuracy", [run], tmp_path / "b.pdf"))) == 8


def test_a_grid_shows_the_images_of_the_runs(runs: Path, tmp_path: Path) -> None:
    folders = [runs / "b10-g0-seed0", runs / "b10-g3-seed0"]
    options = FigureOptions(prompts=(0, 2), latents=(0, 1), steps=(0, 100), width="column")
    rows = table(write_figure("grid", folders, tmp_path / "a.png", options))
    places = [(row["row"], row["column"], row["run"].rpartition("/")[2], row["step"]) for row in rows]
    start = [("0", "0", "b10-g0-seed0", "0"), ("0", "1", "b10-g0-seed0", "0")]
    assert places[:2] == start
    assert len(places) == 3 * 2 * 2, "the model before training stands there once"
    assert {row["prompt"] for row in rows} == {PROMPTS[0], PROMPTS[2]}
    stacked = FigureOptions(prompts=(0,), latents=(0, 1), stacked=True)
    rows = table(write_figure("grid", folders, tmp_path / "b.png", stacked))
    assert [(row["row"], row["column"]) for row in rows] == [("0", "0"), ("0", "1"), ("1", "0"), ("1", "1")]
    with Image.open(tmp_path / "a.png") as image:
        assert image.width >= round(3.3 * 300), "every image has its full size"


def test_one_own_run_is_called_after_its_folder(runs: Path, tmp_path: Path) -> None:
    rows = table(write_figure("curves", [runs / "b10-g0-seed0"], tmp_path / "a.pdf"))
    assert {row["line"] for row in rows} == {"b10-g0-seed0"}
    rows = table(write_figure("curves", [runs], tmp_path / "b.pdf", FigureOptions(folder_names=True)))
    assert {row["line"] for row in rows} >= {"b10-g0", "b40-g0"}


WRONG = {
    "ending": ("curves", "a.jpg", FigureOptions(), "pdf"),
    "metric": ("curves", "a.pdf", FigureOptions(metrics=("beauty",)), "beauty was not measured"),
    "axis": ("curves", "a.pdf", FigureOptions(x="epochs"), "--x epochs"),
    "width": ("curves", "a.pdf", FigureOptions(width="wide"), "--width wide"),
    "prompt": ("grid", "a.pdf", FigureOptions(prompts=(6,)), "--prompts 6"),
    "latent": ("grid", "a.pdf", FigureOptions(latents=(2,)), "--latents 2"),
    "step": ("grid", "a.pdf", FigureOptions(steps=(7,)), "--steps 7"),
    "accuracy": ("accuracy", "a.pdf", FigureOptions(metrics=("truth",)), "--metric truth"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_options_are_named(runs: Path, tmp_path: Path, case: str) -> None:
    kind, name, options, message = WRONG[case]
    with pytest.raises(ConfigError, match=message):
        write_figure(kind, [runs], tmp_path / name, options)
    assert not list(tmp_path.iterdir())


def test_runs_without_what_a_figure_needs(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="three values"):
        write_figure("ablation", [runs / "b10-g0-seed0"], tmp_path / "a.pdf")
    bare = write_run(tmp_path / "bare", samples=False)
    with pytest.raises(RunFolderError, match="no sample images"):
        write_figure("grid", [bare], tmp_path / "a.pdf")
    other = write_run(tmp_path / "other", method="d3po", evaluations=STEPS, tile=16, columns=2)
    with pytest.raises(RunFolderError, match="other prompts, latents or sizes"):
        write_figure("grid", [runs / "b10-g0-seed0", other], tmp_path / "a.pdf")


def test_widths() -> None:
    assert (width_of("column"), width_of("page"), width_of("4.5")) == (3.3, 6.9, 4.5)
    for text in ("0", "nan", "400"):
        with pytest.raises(ConfigError):
            width_of(text)


def test_without_matplotlib_one_line_says_what_to_install(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r"pip install 'seedpo\[figures\]'"):
        write_figure("curves", [runs], tmp_path / "a.pdf")


def test_the_command(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.pdf"
    arguments = ["figure", "grid", str(runs), "--out", str(out), "--prompts", "0,1", "--width", "column"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert out.is_file()
    assert isinstance(CliRunner().invoke(app, [*arguments, "--steps", "last"]).exception, ConfigError)
