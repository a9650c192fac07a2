from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import reproduce
from benchmarks.reproduce import RESULTS, Figure, read_row, table
from seedpo.reports import write_report
from seedpo.training.sweeps.demonstration import METHODS
from tests.reports.synthetic import write_run

ROWS = [f"{method}-{variant}" for method in METHODS for variant in reproduce.VARIANTS]


@pytest.mark.parametrize("row", ROWS)
def test_every_row_of_the_published_tables_can_be_read_and_reproduces_itself(row: str) -> None:
    published = read_row(RESULTS.read_text(encoding="utf-8"), row)
    assert {"proxy last", "truth best", "truth last", "pairwise diversity last"} <= set(published)
    assert all(figure.low <= figure.mean <= figure.high for figure in published.values())
    assert published["truth last"].low < published["truth last"].high
    text, good = table(published, published)
    assert good
    assert "OUTSIDE" not in text


def test_a_report_has_the_published_columns(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / f"{seed}", method="spo", beta=10.0, seed=seed, samples=False) for seed in (0, 1)]
    now = read_row(write_report(folders, tmp_path / "row.md").read_text(encoding="utf-8"), "spo-base")
    assert set(read_row(RESULTS.read_text(encoding="utf-8"), "spo-base")) <= set(now)
    assert now["truth last"].low <= now["truth last"].mean <= now["truth last"].high


def test_rows_differ() -> None:
    text = RESULTS.read_text(encoding="utf-8")
    rows = [tuple(figure.text for figure in read_row(text, row).values()) for row in ROWS]
    assert len(set(rows)) == len(rows)


def test_a_figure_outside_the_interval_is_named() -> None:
    published = {"truth last": Figure(text="1.22 [0.17, 1.93]", mean=1.22, low=0.17, high=1.93, unit=0.01)}
    for mean, good in ((0.16, True), (0.10, False), (1.94, True), (1.96, False)):
        now = {"truth last": replace(published["truth last"], text=str(mean), mean=mean)}
        text, found = table(published, now)
        assert found is good
        assert ("OUTSIDE" in text) is not good
    assert not table(published, {})[1]


def test_an_unknown_row() -> None:
    with pytest.raises(SystemExit, match=r"no row 'spo-bose'; there are diffusion-dpo-base, "):
        read_row("", "spo-bose")
    with pytest.raises(SystemExit, match="no table of SPO has a row"):
        read_row("# Results\n", "spo-base")


def test_the_runs_of_the_row_are_trained_and_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    called = []

    def run_demo(out: Path, **more: object) -> None:
        called.append(more)
        out.mkdir()

    results = RESULTS.read_text(encoding="utf-8")
    shifted = results.replace(read_row(results, "spo-see")["truth last"].text, "-3.00 [-3.10, -2.90]")
    monkeypatch.setattr(reproduce, "run_demo", run_demo)
    monkeypatch.setattr(reproduce, "write_report", lambda runs, out: tmp_path / "now.md")
    for measured, status in ((results, 0), (shifted, 1)):
        (tmp_path / "now.md").write_text(measured, encoding="utf-8")
        assert reproduce.main(["--row", "spo-see", "--out", str(tmp_path / f"out{status}")]) == status
    assert called == [{"seeds": 3, "only": ["spo-see"]}] * 2
    assert "NOT reproduced" in capsys.readouterr().out
