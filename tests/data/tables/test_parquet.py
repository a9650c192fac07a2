from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seedpo.data.tables import parquet
from seedpo.data.tables.parquet import ParquetRows
from seedpo.errors import DataError

COLUMNS = ("caption", "jpg_0")


def rows(start: int, stop: int) -> pa.Table:
    numbers = range(start, stop)
    return pa.table(
        {
            "caption": [f"prompt {number}" for number in numbers],
            "jpg_0": [bytes([number]) * 100 for number in numbers],
            "label_0": [float(number) for number in numbers],
            "heavy": [b"x" * 1000 for _ in numbers],
        }
    )


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    """Three files of 5, 1 and 7 rows in groups of 3."""
    files = []
    for name, start, stop in (("a", 0, 5), ("b", 5, 6), ("c", 6, 13)):
        pq.write_table(rows(start, stop), tmp_path / f"{name}.parquet", row_group_size=3)
        files.append(tmp_path / f"{name}.parquet")
    return files


def content(table: ParquetRows, order: Any) -> list[tuple[str, bytes]]:
    return [tuple(table.row(row, COLUMNS).values()) for row in order]  # type: ignore[misc]


def expected(order: Any) -> list[tuple[str, bytes]]:
    return [(f"prompt {row}", bytes([row]) * 100) for row in order]


SHUFFLED = (7, 0, 12, 5, 6, 1, 4, 3, 11, 2, 10, 8, 9, 0, 12)


class TestRows:
    def test_lie_where_the_files_have_them(self, shards: list[Path]) -> None:
        for order in [range(13), SHUFFLED]:
            table = ParquetRows(shards, origin="set")
            assert len(table) == 13
            assert content(table, order) == expected(order)

    @pytest.mark.parametrize("order", [range(13), SHUFFLED])
    @pytest.mark.parametrize("block", [1, 2, 3, 5])
    def test_of_large_groups_are_walked_to(
        self, shards: list[Path], order: Any, block: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(parquet, "CACHE_BYTES", 0)
        monkeypatch.setattr(parquet, "BLOCK_ROWS", block)
        assert content(ParquetRows(shards, origin="set"), order) == expected(order)

    def test_large_groups_are_warned_of(
        self, shards: list[Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        ParquetRows(shards, origin="set")
        assert not caplog.records
        monkeypatch.setattr(parquet, "CACHE_BYTES", 10)
        with caplog.at_level(logging.WARNING):
            ParquetRows(shards, origin="set")
        assert "set has row groups of up to" in caplog.text

    def test_light_columns_come_whole(self, shards: list[Path]) -> None:
        assert list(ParquetRows(shards, origin="set").values("label_0")) == [float(row) for row in range(13)]

    def test_places(self, shards: list[Path]) -> None:
        table = ParquetRows(shards, origin="set")
        assert [table.place(row) for row in (0, 4, 5, 12)] == [
            f"{shards[0]} row 0",
            f"{shards[0]} row 4",
            f"{shards[1]} row 0",
            f"{shards[2]} row 6",
        ]
        assert table.folder(12) == shards[2].parent


class TestMemory:
    def test_columns_that_are_not_asked_for_are_not_read(self, shards: list[Path]) -> None:
        table = ParquetRows(shards, origin="set")
        table.row(0, COLUMNS)
        assert [held.column_names for held in table._cache.values()] == [list(COLUMNS)]

    def test_groups_are_kept_up_to_a_limit(self, shards: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
        table = ParquetRows(shards, origin="set")
        size = table._whole((0, COLUMNS)).nbytes
        monkeypatch.setattr(parquet, "CACHE_BYTES", 2 * size + size // 2)
        content(table, range(13))
        assert len(table._cache) == 2 or sum(held.nbytes for held in table._cache.values()) <= 2.5 * size
        assert len(table.groups) == 6

    def test_a_kept_group_is_not_read_again(self, shards: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
        table = ParquetRows(shards, origin="set")
        opened: list[int] = []
        plain = table._open
        monkeypatch.setattr(table, "_open", lambda number: (opened.append(number), plain(number))[1])
        content(table, [0, 1, 2, 0, 3, 4, 1])
        assert opened == [0, 1]


class TestRefusals:
    def test_a_shard_that_lacks_a_column(self, shards: list[Path]) -> None:
        pq.write_table(rows(0, 3).drop_columns(["jpg_0"]), shards[1])
        with pytest.raises(DataError, match=r"b\.parquet lacks the columns \['jpg_0'\] that .*a\.parquet has; it has"):
            ParquetRows(shards, origin="set")

    def test_a_shard_that_is_cut_off(self, shards: list[Path]) -> None:
        shards[2].write_bytes(shards[2].read_bytes()[:-20])
        with pytest.raises(DataError, match=r"c\.parquet cannot be read as parquet"):
            ParquetRows(shards, origin="set")

    def test_damage_within_a_group_names_the_row(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        pq.write_table(rows(0, 9), path, row_group_size=3, compression="zstd", write_page_checksum=True)
        table = ParquetRows([path], origin="set")
        column = pq.read_metadata(path).row_group(1).column(1)
        damaged = bytearray(path.read_bytes())
        start = column.dictionary_page_offset or column.data_page_offset
        for place in range(start, start + column.total_compressed_size):
            damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        assert content(table, [0, 8]) == expected([0, 8])
        with pytest.raises(DataError, match=r"a\.parquet row 4 cannot be read"):
            table.row(4, COLUMNS)


class TestOddFiles:
    def test_a_value_that_python_cannot_hold_costs_its_row(self, tmp_path: Path) -> None:
        dates = pa.array([0, 2**52], pa.date64())
        pq.write_table(pa.table({"caption": dates}), tmp_path / "a.parquet")
        table = ParquetRows([tmp_path / "a.parquet"], origin="set")
        assert set(table.row(0, ["caption"])) == {"caption"}
        with pytest.raises(DataError, match=r"a\.parquet row 1"):
            table.row(1, ["caption"])

    def test_a_column_that_is_there_twice_is_named(self, tmp_path: Path) -> None:
        column = pa.array(["a"])
        pq.write_table(pa.Table.from_arrays([column, column], names=["caption", "caption"]), tmp_path / "a.parquet")
        with pytest.raises(DataError, match=r"a\.parquet row 0.*caption"):
            ParquetRows([tmp_path / "a.parquet"], origin="set").row(0, ["caption"])

    def test_a_map_is_a_value_like_others(self, tmp_path: Path) -> None:
        maps = pa.array([[("path", "a.png")]], pa.map_(pa.string(), pa.string()))
        pq.write_table(pa.table({"chosen": maps}), tmp_path / "a.parquet")
        assert ParquetRows([tmp_path / "a.parquet"], origin="set").row(0, ["chosen"]) == {"chosen": [("path", "a.png")]}


def test_a_column_that_is_there_twice_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    columns = [pa.array(["a fox"]), pa.array([["0.png", "1.png"]]), pa.array([["2.png", "3.png"]])]
    pq.write_table(pa.table(columns, names=["prompt", "images", "images"]), path)
    rows = ParquetRows([path], origin="pairs")
    with pytest.raises(DataError, match=r"pairs\.parquet.*images"):
        rows.lengths("images")
