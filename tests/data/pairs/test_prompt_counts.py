"""How many pairs have the prompt of a pair: counted in a set, stated by the rows of a stream."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from seedpo.data.pairs.prompt_counts import pairs_of_prompts
from seedpo.data.pairs.readers import pairs_ahead
from seedpo.data.pairs.selection import SkippingPairs, divided_by_prompt
from seedpo.data.reading import read_pairs
from seedpo.data.settings import PairsConfig
from seedpo.errors import DataError
from tests.data.pictures import table
from tests.rewards.toy_pairs import BrightPairs

PROMPTS = ["a", "b", "a", "c", "a", "b"]


def write(folder: Path, **columns: list[object]) -> Path:
    folder.mkdir()
    pq.write_table(table(*[(1, 0)] * 6, caption=PROMPTS, **columns), folder / "train-00000-of-00001.parquet")
    return folder


def stream(folder: Path) -> SkippingPairs:
    pytest.importorskip("datasets")
    pairs = read_pairs(f"hub:{folder}", PairsConfig(resolution=8, shuffle_buffer=1))
    return SkippingPairs(pairs_ahead(pairs, readers=0), limit=0.5)


def test_pairs_of_a_set_are_counted(tmp_path: Path) -> None:
    pairs = read_pairs(write(tmp_path / "set", num_example_per_prompt=[9] * 6), PairsConfig())
    counted = pairs_of_prompts(SkippingPairs(pairs, limit=0.0))
    assert [counted(row) for row in range(6)] == [3, 2, 3, 1, 3, 2]


def test_of_a_divided_set_all_pairs_of_a_prompt_are_on_one_side() -> None:
    some, _ = divided_by_prompt(BrightPairs(40), 0.45)
    counted = pairs_of_prompts(some)
    assert {counted(row) for row in range(len(some))} == {10}


def test_rows_of_a_stream_say_it(tmp_path: Path) -> None:
    counted = pairs_of_prompts(stream(write(tmp_path / "set", num_example_per_prompt=[5, 2, 5, 1, 5, 2])))
    assert [counted(row) for row in range(6)] == [5, 2, 5, 1, 5, 2]


@pytest.mark.parametrize("columns", [{}, {"num_example_per_prompt": [0] * 6}])
def test_a_stream_that_does_not_say_it_is_refused(tmp_path: Path, columns: dict[str, list[object]]) -> None:
    counted = pairs_of_prompts(stream(write(tmp_path / "set", **columns)))
    with pytest.raises(DataError, match=r"pair 0 of the stream .*num_example_per_prompt.*pair_weights"):
        counted(0)
