from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

from seedpo.reports.hacking_benchmark.analysis import compare, read_measured
from seedpo.reports.hacking_benchmark.page import answer, frontier_figure, summary
from seedpo.reports.hacking_benchmark.results import write_results
from seedpo.training.sweeps.hacking_grid import settings_of
from tests.reports.hacking_benchmark.worlds import GRID, see_gains, write_runs

COMMAND = "seedpo bench hacking --out OUT"


def test_everything_is_written(tmp_path: Path) -> None:
    write_runs(tmp_path / "spo", {"truth": see_gains(0.5), "free_spread": see_gains(0.0)})
    shutil.rmtree(tmp_path / "spo" / "base-beta=10_seed=2")
    lines = write_results(tmp_path, {"spo": GRID}, seeds=3, command=COMMAND)
    page = (tmp_path / "hacking.md").read_text()
    for text in (COMMAND, "spo/base-beta=10_seed=2", *lines[:2]):
        assert text in page
    assert "nan" not in page
    assert "draws prompts" not in page, "no figures of prompts are kept"
    assert "| truth | 0 | 2.10 [2.00, 2.20] | 2.60 [2.49, 2.71] | 2.10 [2.00, 2.20] |" in page
    assert "| 0, 0, 0 | not shown |" in page
    assert "[0, 0]" not in page, "an interval without width would look certain"
    data = json.loads((tmp_path / "hacking.json").read_text())["methods"]["spo"]
    head = next(row for row in data["comparisons"] if row["headline"])
    assert (head["verdict"], round(head["gap"]["mean"], 6)) == ("higher", 0.5)
    assert set(head["gap"]["by_seed"]) == {"0", "1", "2"}
    assert data["settings"][1]["outcomes"] == {"0": "reward hacking", "1": "reward hacking", "2": "reward hacking"}
    end = next(row for row in data["ends"] if (row["rival"], row["name"]) == ("its control", "truth"))
    assert (end["settings"], round(end["mean"], 6)) == (5, 0.5)
    pictures = sorted(path.name for path in tmp_path.glob("*.svg"))
    assert pictures == ["spo-free-spread.svg", "spo-truth.svg"]
    assert all(f"![{name}]({name})" in page for name in pictures)
    drawing = ET.fromstring((tmp_path / "spo-truth.svg").read_text())
    assert "base at any beta" in "".join(drawing.itertext())


def test_the_answers_name_method_quantity_and_numbers(tmp_path: Path) -> None:
    folder = write_runs(tmp_path, {"truth": see_gains(0.5), "free_spread": see_gains(-0.5)})
    rows = compare(read_measured(folder, settings_of(GRID), seeds=3)[0], resamples=100)
    text = answer("spo", next(row for row in rows if row.headline and row.key == "truth"))
    for part in ("SPO", "more truth", "+0.500", "18.5 %", "100 %", "[0.490, 0.510]", "3 of 3 seeds"):
        assert part in text, part
    assert "more truth in SPO" in summary({"spo": rows})
    assert "less free spread in SPO" in summary({"spo": rows})


def test_nothing_to_draw(tmp_path: Path) -> None:
    measured, missing = read_measured(tmp_path, settings_of(GRID), seeds=1)
    assert len(missing) == 10
    assert frontier_figure("SPO", measured, "truth") is None
    assert {row.verdict for row in compare(measured)} <= {"not comparable"}
    assert summary({"spo": compare(measured)}) == "Nothing was measured."
