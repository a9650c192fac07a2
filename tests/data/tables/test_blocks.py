from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from seedpo.data.pairs.selection import SkippingPairs, SomePairs
from seedpo.data.reading import load_data
from seedpo.data.settings import DataSet, PairsConfig
from seedpo.data.tables import parquet
from seedpo.data.tables.blocks import Blocks, block_order
from seedpo.methods.sources.stream import BucketStream, IndexStream
from tests.data.pictures import table


def numbers(*sizes: int) -> np.ndarray:
    return np.repeat(np.arange(len(sizes)), sizes)


class TestOrder:
    @pytest.mark.parametrize("window", [1, 2, 3, 7])
    def test_is_a_permutation_in_windows_of_blocks(self, window: int) -> None:
        blocks = Blocks(number=numbers(3, 1, 4, 2, 5), window=window)
        drawn = np.random.default_rng(0).permutation(15)
        order = block_order(drawn, blocks, np.random.default_rng(1))
        assert sorted(order.tolist()) == list(range(15))
        seen = [blocks.number[row] for row in order]
        while seen:  # the blocks of a window are used up before another one is needed
            first = list(dict.fromkeys(seen))[:window]
            assert all(block in first for block in seen[: sum(block in first for block in seen)])
            seen = [block for block in seen if block not in first]

    def test_of_one_window_is_the_order_itself(self) -> None:
        drawn = np.random.default_rng(0).permutation(15)
        blocks = Blocks(number=numbers(3, 1, 4, 2, 5), window=5)
        np.testing.assert_array_equal(block_order(drawn, blocks, np.random.default_rng(1)), drawn)


class TestStreams:
    blocks = Blocks(number=numbers(4, 4, 4, 4), window=2)

    def test_every_epoch_is_a_permutation_of_its_own(self) -> None:
        stream = IndexStream(16, seed=1, blocks=self.blocks)
        epochs = [stream.take(16) for _ in range(3)]
        assert all(sorted(epoch) == list(range(16)) for epoch in epochs)
        assert len({tuple(epoch) for epoch in epochs}) == 3
        assert all(len({row // 4 for row in epoch[:8]}) == 2 for epoch in epochs)

    def test_weights_of_sets(self) -> None:
        """Every visit comes once in an epoch, numbered in succession."""
        repeats = [1, 3] * 8
        stream = IndexStream(16, seed=1, blocks=self.blocks, repeats=repeats)
        visits = stream.take_with_visits(64)
        assert sorted(visits[:32]) == [(row, turn) for row in range(16) for turn in range(repeats[row])]
        assert sorted(visits) == [(row, turn) for row in range(16) for turn in range(2 * repeats[row])]

    def test_restored_one_goes_on(self) -> None:
        for build in (
            lambda: IndexStream(16, seed=1, blocks=self.blocks),
            lambda: BucketStream([(8, 8), (8, 16)] * 8, batch_size=2, seed=1, blocks=self.blocks),
        ):
            stream, other = build(), build()
            for _ in range(11):
                stream.take_with_visits(2)
            other.restore(stream.state())
            assert other.take_with_visits(2) == stream.take_with_visits(2)

    @pytest.mark.parametrize("world", [1, 3])
    def test_what_comes_is_what_is_taken(self, world: int) -> None:
        for stream in (
            IndexStream(16, seed=1, rank=world - 1, world=world),
            BucketStream([(8, 8), (8, 16)] * 8, batch_size=3, seed=1, rank=world - 1, world=world),
        ):
            for ahead in (7, 0, 3):
                coming = stream.coming(3 + ahead)
                taken = stream.take_with_visits(3)
                assert coming[:3] == taken
                assert len(coming) >= 3 + ahead


class TestParquet:
    @pytest.fixture
    def files(self, tmp_path: Path) -> Path:
        for name in ("a", "b"):
            pq.write_table(table(*[(1, 0)] * 20), tmp_path / f"{name}.parquet", row_group_size=5)
        return tmp_path

    def groups_read(self, monkeypatch: pytest.MonkeyPatch, files: Path, window: int | None) -> int:
        """Row groups that a shuffled epoch of 8 groups reads, if memory holds one that is not asked for by a window."""
        monkeypatch.setattr(parquet, "CACHE_BYTES", 1 if window else 2000)
        pairs = load_data(str(files), PairsConfig(resolution=8, shuffle_window=window))
        count = [0]
        whole = pq.ParquetFile.read_row_group

        def counted(*arguments: object, **named: object) -> object:
            count[0] += 1
            return whole(*arguments, **named)

        monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
        for row in IndexStream(len(pairs), seed=0, blocks=pairs.blocks()).take(len(pairs)):  # type: ignore[union-attr]
            pairs[row]
        return count[0]

    def test_an_epoch_reads_each_row_group_once(self, monkeypatch: pytest.MonkeyPatch, files: Path) -> None:
        assert self.groups_read(monkeypatch, files, 10) == 8

    def test_without_a_window_it_reads_many_times(self, monkeypatch: pytest.MonkeyPatch, files: Path) -> None:
        assert self.groups_read(monkeypatch, files, None) > 16

    def test_what_wraps_a_set_passes_its_blocks_on(self, files: Path) -> None:
        config = PairsConfig(resolution=8, shuffle_window=10)
        pairs = load_data(str(files), config)
        sets = tuple(DataSet(name=str(files / name)) for name in ("a.parquet", "b.parquet"))
        for whole in (pairs, SkippingPairs(pairs, limit=0.1), load_data(sets, config)):
            blocks = whole.blocks()  # type: ignore[union-attr]
            assert blocks is not None
            assert blocks.window == 2
            np.testing.assert_array_equal(blocks.number, numbers(*[5] * 8))
        some = SomePairs(pairs, [1, 7, 39]).blocks()
        assert some is not None
        assert some.number.tolist() == [0, 1, 7]
        assert load_data(str(files), PairsConfig(resolution=8)).blocks() is None  # type: ignore[union-attr]
