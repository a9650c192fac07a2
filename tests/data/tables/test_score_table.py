from __future__ import annotations

import csv
from pathlib import Path

import torch

from seedpo.data.image_list import ListedImage
from seedpo.data.tables.score_table import ScoreTable, write_table


def test_no_cell_of_a_csv_file_is_a_formula(tmp_path: Path) -> None:
    images = [ListedImage(path=Path("=a.png"), prompt="=1+1"), ListedImage(path=Path("b.png"), prompt="a star")]
    write_table(ScoreTable(images=images, scores={"pickscore": torch.tensor([-1.5, 2.0])}), tmp_path / "scores.csv")
    with (tmp_path / "scores.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [["file", "prompt", "pickscore"], ["'=a.png", "'=1+1", "-1.5"], ["b.png", "a star", "2.0"]]
