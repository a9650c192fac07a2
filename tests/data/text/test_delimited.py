"""Cells that spreadsheets would take for formulas are written with an apostrophe, and read without it."""

from __future__ import annotations

from pathlib import Path

import pytest

from seedpo.data.text import csv_lines, csv_text

CELLS = ["=1+1", "+x", "-y", "@z", "'=quoted", "''=twice", "'plain", "plain", "", "'", "a=b", "-1", "+1.5e-3", "'-1"]


def test_cells_and_names_of_columns_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_text(csv_text([["=cell", "number"], *([cell, 1] for cell in CELLS)]), encoding="utf-8", newline="")
    assert [line.values["=cell"] for line in csv_lines(path)] == CELLS


@pytest.mark.parametrize("cell", CELLS[:6])
def test_no_text_begins_like_a_formula(cell: str) -> None:
    assert csv_text([[cell]]) == f"'{cell}\n"
    assert csv_text([["a", cell]], line_end="\r\n") == f"a,'{cell}\r\n"


def test_numbers_stay_numbers_and_nothing_stays_empty() -> None:
    assert csv_text([["-0.5", -0.5, None, "-1e-07"]]) == "-0.5,-0.5,,-1e-07\n"
