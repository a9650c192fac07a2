from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from seedpo.data.pairs.sets import PairSet
from seedpo.data.reading import read_pairs
from seedpo.data.tables.d3po import d3po_inventory, d3po_lines, is_d3po
from seedpo.errors import DataError
from tests.data.pictures import BLUE, GREEN, RED, image_file


def samples(folder: Path, prompts: Any, **scores: Any) -> Path:
    (folder / "images").mkdir(exist_ok=True)
    for name, content in {"prompt": prompts, **scores}.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def lines(folder: Path) -> list[tuple[Any, Any]]:
    files = [entry.path for entry in d3po_inventory(folder, "t").files]
    return [(line.values.get("human_prefer"), line.fault) for line in d3po_lines(files)]


def test_a_folder_of_samples(tmp_path: Path) -> None:
    assert not is_d3po(tmp_path)
    samples(tmp_path, ["star", "ring"], a=[[0, 1], [1, 0]])
    assert is_d3po(tmp_path)
    for number, colour in enumerate([RED, BLUE, GREEN, RED]):
        (tmp_path / "images" / f"{number:05}.png").write_bytes(image_file(colour))
    pairs = read_pairs(tmp_path)
    assert isinstance(pairs, PairSet)
    assert [pairs.prompt(row) for row in range(len(pairs))] == ["star", "ring"]
    assert [[Path(str(image.content)).name for image in pairs.stored(row).images] for row in range(2)] == [
        ["00000.png", "00001.png"],
        ["00002.png", "00003.png"],
    ]
    assert [pairs.stored(row).probability for row in range(2)] == [0.0, 1.0]


def test_scores_of_several_annotators_are_averaged(tmp_path: Path) -> None:
    """As far as each went."""
    samples(tmp_path, ["a", "b", "c"], one=[[0, 1], [1, 1], None], two=[[1, 1]], three=[[1, 0.5]])
    assert lines(tmp_path) == [([2 / 3, 2.5 / 3], None), ([1.0, 1.0], None), (None, None)]


def test_wrong_scores_cost_their_row(tmp_path: Path) -> None:
    samples(tmp_path, ["a", "b", "c", "d"], one=[[0, 1], [1], [0, "x"], [1, 0]])
    found = lines(tmp_path)
    assert [fault is None for _, fault in found] == [True, False, False, True]
    assert found[3][0] == [1.0, 0.0]


def test_files_that_are_no_scores(tmp_path: Path) -> None:
    samples(tmp_path, ["a"])
    with pytest.raises(DataError, match="no scores"):
        d3po_inventory(tmp_path, "t")
    samples(tmp_path, ["a"], one={"a": 1})
    with pytest.raises(DataError, match=r"one\.json must hold a JSON list"):
        lines(tmp_path)
    for content in ["[[0,", "[" * 100_000]:
        (tmp_path / "one.json").write_text(content)
        with pytest.raises(DataError, match=r"one\.json is not JSON"):
            lines(tmp_path)


def test_what_is_passed_over_is_counted(tmp_path: Path) -> None:
    samples(tmp_path, ["a"], one=[[0, 1]])
    (tmp_path / "sample.pkl").write_bytes(b"x")
    (tmp_path / ".prompt.json").write_text("[]")
    assert sum(entry.count for entry in d3po_inventory(tmp_path, "t").passed) == 2
