from __future__ import annotations

import math
from pathlib import Path

import pytest

from seedpo.data.tables.kept_scores import KeptBatch, KeptScores
from seedpo.errors import ConfigError

FIRST = KeptBatch(version="v1", scores=[0.1, math.nan], skipped={"b.png": "is no image"})
SECOND = KeptBatch(version="v1", scores=[-2.5e-7])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "new" / "scores.jsonl"
    kept = KeptScores(path, {"images": "x", "rewards": {"r": {}}})
    assert not path.exists(), "nothing is written before there is a score"
    kept.add("r", 0, FIRST)
    kept.add("r", 2, SECOND)
    return path


def again(path: Path, **options: bool) -> KeptScores:
    return KeptScores(path, {"images": "x", "rewards": {"r": {}}}, **options)


def test_batches_are_read_again(path: Path) -> None:
    batches = again(path).batches
    assert list(batches) == [("r", 0), ("r", 2)]
    assert batches["r", 0].scores[0] == 0.1
    assert math.isnan(batches["r", 0].scores[1])
    assert batches["r", 0].skipped == FIRST.skipped
    assert batches["r", 2] == SECOND


@pytest.mark.parametrize(
    "end", [b'{"reward": "r", "start": 3, "sco', b"{}\n", b"\xff\n", b'{"reward": 1, "scores": 3}\n']
)
def test_what_was_written_in_part_is_cut_off(path: Path, end: bytes) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole + end)
    kept = again(path)
    assert list(kept.batches) == [("r", 0), ("r", 2)]
    assert path.read_bytes() == whole
    kept.add("r", 3, SECOND)
    assert list(again(path).batches) == [("r", 0), ("r", 2), ("r", 3)]


def test_scores_that_depend_on_something_else(path: Path) -> None:
    whole = path.read_bytes()
    with pytest.raises(ConfigError, match=r"scores\.jsonl holds .* other images; repeat that command, or give --ov"):
        KeptScores(path, {"images": "y", "rewards": {"r": {}}})
    assert path.read_bytes() == whole
    kept = KeptScores(path, {"images": "y", "rewards": {"r": {}}}, overwrite=True)
    assert not kept.batches
    kept.add("r", 0, SECOND)
    assert list(KeptScores(path, {"images": "y", "rewards": {"r": {}}}).batches) == [("r", 0)]


def test_a_file_of_something_else_is_not_overwritten(path: Path) -> None:
    for content in (b"my notes\n", b"[1]\n", b"{"):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="other images, rewards"):
            again(path)
        assert path.read_bytes() == content


def test_the_file_goes_when_all_is_done(path: Path) -> None:
    again(path).remove()
    assert not path.exists()
    again(path).remove()
