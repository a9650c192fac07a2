from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from seedpo.core.stats.bootstrap import mean_interval
from seedpo.errors import RunFolderError
from seedpo.reports import versus
from seedpo.reports.evaluations import read_evaluation
from seedpo.reports.viewer import evaluation_viewer, rows_within
from tests.reports.evaluated import PROMPTS, write_evaluation

BASE, SEE = ("base", None), ("see", None)


def test_scores_metrics_and_figures_of_all_images_are_read(tmp_path: Path) -> None:
    one = read_evaluation(write_evaluation(tmp_path / "e", tile=2))
    assert (tuple(one.scores.prompts), one.scores.images, one.labels) == (PROMPTS, 3, ["base", "see", "control"])
    assert one.figures == ["pickscore", "aesthetic", "truth", "pairwise_diversity", "fd-pixels"]
    point = one.point(BASE, "pickscore")
    assert point is not None
    expected = mean_interval(one.scores.values["pickscore"][BASE].mean(1))
    assert (point.value, point.low, point.high) == (expected.mean, expected.low, expected.high)
    of_set = one.point(SEE, "fd-pixels")
    assert of_set is not None
    assert of_set.value == 12.5
    assert one.notes == ()
    assert one.finals == [BASE, SEE, ("control", None)]


def test_bars_count_images_and_the_tone_needs_an_interval_that_leaves_out_one_half(tmp_path: Path) -> None:
    one = read_evaluation(write_evaluation(tmp_path / "e", labels=("base", "see"), tile=2))
    (pickscore, aesthetic), note = versus.bars(one)
    assert note == ""
    assert (aesthetic.win, aesthetic.tie, aesthetic.loss, aesthetic.tone) == (100, 0, 0, "good")
    assert aesthetic.words == "see against base by aesthetic: wins 100%, ties 0%, losses 0%"
    difference = one.scores.values["pickscore"][SEE] - one.scores.values["pickscore"][BASE]
    assert pickscore.win == pytest.approx(100 * (difference > 0).mean())
    assert pickscore.win + pickscore.tie + pickscore.loss == pytest.approx(100)
    rows = versus.table(one).rows
    assert [cell.best for cell in rows[1]][1:5] == [True, True, True, False]
    assert not any(row[-1].best for row in rows), "equal values have no best"


def test_many_models_are_compared_with_the_first_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = read_evaluation(write_evaluation(tmp_path / "e", tile=2))
    monkeypatch.setattr(versus, "MOST_PAIRS", 2)
    bars, note = versus.bars(one)
    assert {bar.right for bar in bars} == {"base"}
    assert note == "There are many models: each is compared with base only."


def test_over_the_training_figures_and_win_rates_are_drawn(tmp_path: Path) -> None:
    one = read_evaluation(write_evaluation(tmp_path / "e", labels=("base", "see"), steps=(0, 50, 100), tile=2))
    panels = {panel.title: panel for panel in versus.step_panels(one)}
    assert "Pairwise diversity" in panels
    assert [list(line.x) for line in panels["Pickscore"].lines] == [[0, 50, 100]] * 2
    base, see = panels["Win rate against the untrained model, aesthetic"].lines
    assert (list(base.y), list(see.y)) == ([0.5, 0.5], [1.0, 1.0]), "the first never moves, the second always wins"
    assert one.finals == [("base", 100), ("see", 100)]
    truth = versus.frontier_panels(one)[0]
    assert truth.title == "Truth against pickscore"
    assert truth.lines[1].points == ["see, step 0", "see, step 50", "see, step 100"]


def test_without_summary_and_metrics_the_scores_are_shown_and_the_lack_is_told(tmp_path: Path) -> None:
    one = read_evaluation(write_evaluation(tmp_path / "e", summary=False, metrics=False, tile=2))
    assert one.figures == ["pickscore", "aesthetic"]
    assert [note.split(":")[0] for note in one.notes] == [
        "It holds no metrics.parquet",
        "summary.json is missing or damaged",
    ]


@pytest.mark.parametrize("name", ["scores.parquet", "prompts.jsonl"])
@pytest.mark.parametrize("content", [None, b"PAR1 but no more"])
def test_missing_or_damaged_files_are_named_in_one_line(tmp_path: Path, name: str, content: bytes | None) -> None:
    folder = write_evaluation(tmp_path / "e", tile=2)
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(RunFolderError, match=rf"{name}.*seedpo evaluate") as error:
        read_evaluation(folder)
    assert "\n" not in str(error.value)


def test_the_viewer_packs_a_sheet_per_model_and_says_what_is_left_out(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path / "e", tile=8)
    next((folder / "images" / "see").glob("00000-00.png")).write_bytes(b"")
    one = read_evaluation(folder)
    view = evaluation_viewer(one, prefix="e0")
    assert view is not None
    assert [side.classes for side in view.sides] == [("e0-0",), ("e0-1",), ("e0-2",)]
    assert (view.prompts, view.columns, view.steps) == (PROMPTS, 3, ("trained",))
    assert view.notes == ("see: 1 image could not be read; grey stands for it.",)
    small = evaluation_viewer(one, prefix="e0", budget=1500)
    assert small is not None
    assert small.prompts == PROMPTS[:2]
    assert "The first 2 prompts of 6 are on this page" in small.notes[0]
    assert rows_within(10**12, tile=128, images=1) * 128 <= 16383, "the highest that WebP allows"


def test_the_viewer_reads_no_file_outside_the_folder(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path / "e", labels=("base",), tile=8)
    table = parquet.read_table(folder / "scores.parquet").to_pylist()
    for row in table:
        row["target"] = "../../outside"
    (folder / "images" / "base").rename(tmp_path / "outside")
    parquet.write_table(pa.Table.from_pylist(table), folder / "scores.parquet")
    assert evaluation_viewer(read_evaluation(folder), prefix="e0") is None
