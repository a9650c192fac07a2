"""Cells that spreadsheets would take for formulas are written with an apostrophe, and read without it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from seedpo.data.text import csv_lines, spreadsheet_text

CELLS = ["=1+1", "+x", "-y", "@z", "'=quoted", "''=twice", "'plain", "plain", "", "'", "a=b"]


def test_cells_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["cell", "number"], *([spreadsheet_text(cell), "1"] for cell in CELLS)])
    assert [line.values["cell"] for line in csv_lines(path)] == CELLS


@pytest.mark.parametrize("cell", CELLS[:6])
def test_no_cell_begins_like_a_formula(cell: str) -> None:
    assert spreadsheet_text(cell) == f"'{cell}"
