from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from seedpo.data.images.image_roots import image_root, likely_roots
from seedpo.data.pairs.sets import PairSet
from seedpo.data.reading import read_pairs
from seedpo.data.settings import PairsConfig
from seedpo.errors import DataError
from tests.data.pictures import BLUE, RED, image_file, write_images


def images(folder: Path) -> None:
    write_images(folder, red__png=image_file(RED), blue__png=image_file(BLUE))


def pairs_of(place: Path, file: Path, **row: Any) -> PairSet:
    record = {"prompt": "a star", "chosen": "red.png", "rejected": "blue.png"} | row
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps([record] * 3))
    pairs = read_pairs(place)
    assert isinstance(pairs, PairSet)
    return pairs


def roots(pairs: PairSet) -> set[Path | None]:
    return {image.folder for image in pairs.stored(0).images}


def test_the_folder_of_the_file_comes_first(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "train"):
        images(place)
    pairs = pairs_of(tmp_path / "train.json", tmp_path / "train.json")
    assert roots(pairs) == {tmp_path}
    assert not pairs.inventory.notes


def test_a_folder_with_the_name_of_the_file(tmp_path: Path) -> None:
    images(tmp_path / "train")
    for place in (tmp_path / "train.json", tmp_path):
        pairs = pairs_of(place, tmp_path / "train.json")
        assert roots(pairs) == {tmp_path / "train"}
        assert str(tmp_path / "train") in pairs.inventory.notes[-1]
        assert pairs[0].prompt == "a star"


def test_the_folder_that_the_user_named(tmp_path: Path) -> None:
    images(tmp_path)
    assert roots(pairs_of(tmp_path, tmp_path / "train" / "part" / "a.json")) == {tmp_path}


def test_one_that_is_configured_is_the_only_one(tmp_path: Path) -> None:
    images(tmp_path / "train")
    pairs_of(tmp_path, tmp_path / "train.json")
    pairs = read_pairs(tmp_path, PairsConfig(image_folder=str(tmp_path)))
    assert isinstance(pairs, PairSet)
    assert roots(pairs) == {tmp_path}


def test_images_that_are_nowhere_keep_the_usual_folder(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    pairs = pairs_of(tmp_path, tmp_path / "train.json", chosen="../none.png")
    assert roots(pairs) == {tmp_path}
    with pytest.raises(DataError):
        pairs[0]


def test_most_images_must_lie_there(tmp_path: Path) -> None:
    images(tmp_path / "a")
    names = ["red.png", "blue.png", "none.png", "x\0", "x" * 5000]
    cells = [(name, tmp_path) for name in names]
    assert image_root(cells[:3], [tmp_path / "b", tmp_path / "a"]) == tmp_path / "a"
    assert image_root(cells, [tmp_path / "a"]) is None
    assert image_root([], [tmp_path / "a"]) is None
    assert likely_roots("x", []) == []
