"""Rows of parquet files, read one row group at a time."""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from seedpo.data.layouts.columns import Shape
from seedpo.data.tables.blocks import Blocks
from seedpo.data.tables.rows import cell, is_light, lengths_of, shape_of
from seedpo.errors import DataError
from seedpo.files import read_head

logger = logging.getLogger(__name__)

CACHE_BYTES = 256 * 2**20
"""Row groups up to this size are read whole, and kept as long as they fit into it together."""

OPEN_FILES = 64
"""Files that are kept open: to open one takes longer than to read a row group of it."""

BLOCK_ROWS = 32
"""Rows of a larger group that are in memory at a time."""

UNREADABLE = (pa.ArrowException, OSError, EOFError, ValueError, LookupError, OverflowError)
"""What damaged files, and values that Python cannot hold (a date of the year 20000), end in."""

ROWS = 2 * 10**7
"""Rows of a table at most: a file of some bytes can claim any number."""


def require_rows(path: Path) -> None:
    """Looks at the head of a parquet file before its columns are read whole.

    Raises:
        ValueError: if it says that there are more than :data:`ROWS` rows.
        OSError: if it cannot be read, or is no regular file.
        pyarrow.ArrowException: if it is no parquet file.
    """
    read_head(path, 4)
    rows = pq.read_metadata(path).num_rows
    if rows > ROWS:
        raise ValueError(f"its {rows:,} rows are more than {ROWS:,}")


@dataclass(frozen=True, kw_only=True)
class RowGroup:
    """Where some successive rows lie.

    Attributes:
        file: index of the file.
        group: index of the row group in it.
        start: number of its first row in the whole set.
        start_in_file: number of its first row in the file.
        size: bytes of its columns, uncompressed.
    """

    file: int
    group: int
    start: int
    start_in_file: int
    size: int


@dataclass(kw_only=True)
class _Scan:
    """A walk through a row group that is too large to be held."""

    key: tuple[int, tuple[str, ...]]
    blocks: Iterator[pa.RecordBatch]
    block: pa.RecordBatch | None = None
    start: int = 0


class ParquetRows:
    """Rows of one or several parquet files, in the order of the files.

    Args:
        files: at least one.
        origin: what they are called together.
        window: rows that are shuffled together, whose row groups are kept in memory together; ``None``: all rows are,
            and as many groups are kept as :data:`CACHE_BYTES` allow.

    Raises:
        DataError: if a file cannot be read as parquet, or lacks a column that the first one has.
    """

    def __init__(self, files: Sequence[Path], *, origin: str, window: int | None = None) -> None:
        self.origin = origin
        self.files = list(files)
        self._opened: OrderedDict[int, pq.ParquetFile] = OrderedDict()
        self.groups: list[RowGroup] = []
        self._cache: OrderedDict[tuple[int, tuple[str, ...]], pa.Table] = OrderedDict()
        self._cached_bytes = 0
        self._scan: _Scan | None = None
        self._count = 0
        self.columns: Sequence[str] = ()
        self._heavy: set[str] = set()
        self._shape = Shape()
        for number, path in enumerate(self.files):
            try:
                require_rows(path)
                metadata = pq.read_metadata(path)
                schema = metadata.schema.to_arrow_schema()
            except UNREADABLE as error:
                raise DataError(
                    f"preference pairs {path} cannot be read as parquet: {error}; fetch or write it again"
                ) from error
            columns = schema.names
            self.columns = self.columns or columns
            self._heavy |= {field.name for field in schema if not is_light(field.type)}
            self._shape = self._shape if number else shape_of(schema)
            if missing := set(self.columns) - set(columns):
                raise DataError(
                    f"{path} lacks the columns {sorted(missing)} that {self.files[0]} has; it has {columns}"
                )
            self._add(number, metadata)
        self._starts = [group.start for group in self.groups]
        self._kept = None if window is None else max(1, -(-window * len(self.groups) // max(1, self._count)))
        """Row groups that are kept whole, whatever their size; ``None``: by their bytes."""
        largest = max((group.size for group in self.groups), default=0)
        if window is None and largest > CACHE_BYTES:
            logger.warning(
                "%s has row groups of up to %.1f GB: rows in shuffled order are read slowly; set pairs.shuffle_window, "
                "for example to 1000, or write the file again with row_group_size=100",
                origin,
                largest / 1e9,
            )

    def _add(self, file: int, metadata: pq.FileMetaData) -> None:
        start_in_file = 0
        for index in range(metadata.num_row_groups):
            group = metadata.row_group(index)
            self.groups.append(
                RowGroup(
                    file=file,
                    group=index,
                    start=self._count,
                    start_in_file=start_in_file,
                    size=group.total_byte_size,
                )
            )
            self._count += group.num_rows
            start_in_file += group.num_rows

    def __len__(self) -> int:
        return self._count

    def values(self, column: str) -> Sequence[Any]:
        """A column of all files, whole."""
        values: list[Any] = []
        for path in self.files:
            try:
                file = pq.ParquetFile(path)
                cells = file.read(columns=[column])[column].to_pylist()
                if len(cells) != file.metadata.num_rows:
                    raise EOFError(f"{len(cells)} values for {file.metadata.num_rows} rows")
                values += cells
            except UNREADABLE as error:
                raise DataError(
                    f"preference pairs {path} cannot be read as parquet: {column}: {error}; fetch or write it again"
                ) from error
        return values

    def is_light(self, column: str) -> bool:
        """Whether a column holds text or numbers in all files."""
        return column not in self._heavy

    def shape(self) -> Shape:
        """What kinds of values the columns of the first file hold."""
        return self._shape

    def lengths(self, column: str) -> Sequence[int | None]:
        """Length of the list in each row; of a column's values the smallest part is read."""
        lengths: list[int | None] = []
        for path in self.files:
            try:
                file = pq.ParquetFile(path)
                for group in range(file.num_row_groups):
                    part = _smallest_part(file.metadata.row_group(group), column)
                    lengths += lengths_of(file.read_row_group(group, columns=[part])[column])
            except UNREADABLE as error:
                raise DataError(
                    f"preference pairs {path} cannot be read as parquet: {column}: {error}; fetch or write it again"
                ) from error
        return lengths

    def faults(self) -> Mapping[int, str]:
        """None are known before the rows are read."""
        return {}

    def rows_by_file(self) -> dict[Path, int]:
        """How many rows each file holds."""
        counts = dict.fromkeys(self.files, 0)
        ends = [*(group.start for group in self.groups[1:]), len(self)]
        for group, end in zip(self.groups, ends, strict=True):
            counts[self.files[group.file]] += end - group.start
        return counts

    def file_sizes(self) -> Sequence[int]:
        """Bytes of each file."""
        return [path.stat().st_size for path in self.files]

    def blocks(self, rows: NDArray[np.int64]) -> Blocks | None:
        """Row groups of some rows, if few groups are to be shuffled together."""
        if self._kept is None:
            return None
        return Blocks(number=np.searchsorted(self._starts, rows, side="right") - 1, window=self._kept)

    def row(self, row: int, columns: Sequence[str]) -> dict[str, Any]:
        """Some columns of a row."""
        number = self._number(row)
        offset = row - self.groups[number].start
        key = (number, tuple(columns))
        try:
            if self._kept is not None or self.groups[number].size <= CACHE_BYTES:
                table = self._whole(key)
            else:
                table, offset = self._part(key, offset)
            return {name: cell(table[name][offset]) for name in columns}
        except UNREADABLE as error:
            raise DataError(f"{self.place(row)} cannot be read: {error}; write the file again") from error

    def _number(self, row: int) -> int:
        return bisect_right(self._starts, row) - 1

    def _open(self, number: int) -> pq.ParquetFile:
        file = self.groups[number].file
        if file not in self._opened:
            self._opened[file] = pq.ParquetFile(self.files[file])
            if len(self._opened) > OPEN_FILES:
                self._opened.popitem(last=False)
        self._opened.move_to_end(file)
        return self._opened[file]

    def _whole(self, key: tuple[int, tuple[str, ...]]) -> pa.Table:
        if key not in self._cache:
            number, columns = key
            table = self._open(number).read_row_group(self.groups[number].group, columns=list(columns))
            self._cache[key] = table
            self._cached_bytes += table.nbytes
            while len(self._cache) > 1 and self._is_full():
                self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        self._cache.move_to_end(key)
        return self._cache[key]

    def _is_full(self) -> bool:
        if self._kept is not None:
            return len(self._cache) > self._kept
        return self._cached_bytes > CACHE_BYTES

    def _part(self, key: tuple[int, tuple[str, ...]], offset: int) -> tuple[pa.RecordBatch, int]:
        scan = self._scan
        if scan is None or scan.key != key or offset < scan.start:
            number, columns = key
            blocks = self._open(number).iter_batches(
                BLOCK_ROWS, row_groups=[self.groups[number].group], columns=list(columns)
            )
            scan = self._scan = _Scan(key=key, blocks=blocks)
        while scan.block is None or offset >= scan.start + len(scan.block):
            scan.start += len(scan.block) if scan.block is not None else 0
            scan.block = next(scan.blocks, None)
            if scan.block is None:
                raise EOFError("its row group ends before this row")
        return scan.block, offset - scan.start

    def place(self, row: int) -> str:
        """File and number of a row in it."""
        group = self.groups[self._number(row)]
        return f"{self.files[group.file]} row {group.start_in_file + row - group.start}"

    def folder(self, row: int) -> Path | None:
        """The folder of the row's file."""
        return self.files[self.groups[self._number(row)].file].parent


def _smallest_part(group: pq.RowGroupMetaData, column: str) -> str:
    """The path of that value within a column of lists that takes the fewest bytes."""
    chunks = [group.column(place) for place in range(group.num_columns)]
    inside = [chunk for chunk in chunks if chunk.path_in_schema.split(".")[0] == column]
    return str(min(inside, key=lambda chunk: chunk.total_compressed_size).path_in_schema) if inside else column
