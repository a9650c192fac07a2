"""Rows of whatever a data set is stored in: the protocol that the readers share, rows in memory and in text files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from seedpo.data.layouts.columns import Shape
from seedpo.data.text import Line
from seedpo.errors import DataError

LEAST_BYTES = 32
"""A list of more numbers, each a byte, is taken for a file: no image is smaller."""


class Table(Protocol):
    """Rows with named columns; heavy values are read on demand."""

    origin: str
    """What was read, for messages."""
    columns: Sequence[str]
    """Names of the columns."""

    def __len__(self) -> int:
        """Number of rows."""

    def values(self, column: str) -> Sequence[Any]:
        """A column of light values, whole."""

    def is_light(self, column: str) -> bool:
        """Whether a column holds text or numbers, such as paths, and no files of images."""

    def shape(self) -> Shape:
        """What kinds of values the columns hold."""

    def lengths(self, column: str) -> Sequence[int | None]:
        """Length of the list in each row of a column, whole; -1 where a cell holds no list."""

    def faults(self) -> Mapping[int, str]:
        """Rows of which it is known that they cannot be read, and why."""

    def file_sizes(self) -> Sequence[int]:
        """Bytes of each file that holds images beside other columns; none if images have files of their own."""

    def row(self, row: int, columns: Sequence[str]) -> dict[str, Any]:
        """Some columns of a row.

        Raises:
            DataError: if the row cannot be read; the message names its place.
        """

    def place(self, row: int) -> str:
        """File and number of a row, for messages."""

    def folder(self, row: int) -> Path | None:
        """Where paths in a row begin and within which they must lie; `None`: there can be no paths."""


class ArrowRows:
    """Rows of a table in memory.

    Args:
        table: the rows.
        origin: what it was read from.
    """

    def __init__(self, table: pa.Table, *, origin: str) -> None:
        self.origin = origin
        self.columns: Sequence[str] = table.column_names
        self._table = table

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def values(self, column: str) -> Sequence[Any]:
        """A column, whole."""
        values: list[Any] = self._table[column].to_pylist()
        return values

    def is_light(self, column: str) -> bool:
        """Whether a column is text or numbers."""
        return is_light(self._table.schema.field(column).type)

    def shape(self) -> Shape:
        """What kinds of values the columns hold."""
        return shape_of(self._table.schema)

    def lengths(self, column: str) -> Sequence[int | None]:
        """Length of the list in each row of a column."""
        return lengths_of(self._table[column])

    def faults(self) -> Mapping[int, str]:
        """None: all rows are in memory."""
        return {}

    def file_sizes(self) -> Sequence[int]:
        """None: there are no files."""
        return ()

    def row(self, row: int, columns: Sequence[str]) -> dict[str, Any]:
        """Some columns of a row."""
        return {name: cell(self._table[name][row]) for name in columns}

    def place(self, row: int) -> str:
        """Number of a row."""
        return f"{self.origin} row {row}"

    def folder(self, row: int) -> Path | None:
        """The current folder."""
        return Path()


class TextRows:
    """Rows of text files.

    Args:
        files: at least one.
        read: gives the records of a file.
        origin: what they are called together.
    """

    def __init__(
        self,
        files: Sequence[Path],
        *,
        read: Callable[[Path], list[Line]],
        origin: str,
    ) -> None:
        self.origin = origin
        self._lines = [line for path in files for line in read(path)]
        self.columns: Sequence[str] = list(dict.fromkeys(key for line in self._lines for key in line.values))

    def __len__(self) -> int:
        return len(self._lines)

    def values(self, column: str) -> Sequence[Any]:
        """A column, whole; `None` where a line lacks it."""
        return [line.values.get(column) for line in self._lines]

    def is_light(self, column: str) -> bool:
        """Always: text holds paths."""
        return True

    def shape(self) -> Shape:
        """Columns of which a line holds a list or an object, and the keys of the objects."""
        cells = [item for line in self._lines for item in line.values.items() if isinstance(item[1], list | dict)]
        lists = dict.fromkeys(name for name, value in cells if isinstance(value, list) and not is_file(value))
        keys: dict[str, dict[str, None]] = {}
        for name, value in cells:
            if isinstance(value, dict):
                keys.setdefault(name, {}).update(dict.fromkeys(value))
        return Shape(lists=list(lists), keys={name: list(inner) for name, inner in keys.items()})

    def lengths(self, column: str) -> Sequence[int | None]:
        """Length of the list in each line."""
        return [list_length(line.values.get(column)) for line in self._lines]

    def faults(self) -> Mapping[int, str]:
        """Lines that cannot be read."""
        return {row: line.fault for row, line in enumerate(self._lines) if line.fault}

    def rows_by_file(self) -> dict[Path, int]:
        """How many records each file holds, those that cannot be read included."""
        return Counter(line.path for line in self._lines)

    def file_sizes(self) -> Sequence[int]:
        """None: images have files of their own."""
        return ()

    def row(self, row: int, columns: Sequence[str]) -> dict[str, Any]:
        """Some columns of a line."""
        line = self._lines[row]
        if line.fault:
            raise DataError(f"{self.place(row)} {line.fault}; fix or remove it")
        return {name: line.values.get(name) for name in columns}

    def place(self, row: int) -> str:
        """File and number of a line."""
        return self._lines[row].place

    def folder(self, row: int) -> Path | None:
        """The folder of the line's file."""
        return self._lines[row].path.parent


def is_light(kind: pa.DataType) -> bool:
    """Whether a column of this type holds text or numbers, or lists of them."""
    if is_list(kind):
        return is_light(kind.value_type)
    return not (pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def is_list(kind: pa.DataType) -> bool:
    """Whether a column of this type holds lists, other than the bytes of files as numbers."""
    return _has_items(kind) and not pa.types.is_uint8(kind.value_type)


def _has_items(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def shape_of(schema: pa.Schema) -> Shape:
    """What kinds of values the columns of a schema hold."""
    lists = [field.name for field in schema if is_list(field.type)]
    structures = [field for field in schema if pa.types.is_struct(field.type)]
    return Shape(lists=lists, keys={field.name: [inner.name for inner in field.type] for field in structures})


def lengths_of(column: pa.ChunkedArray | pa.Array) -> list[int | None]:
    """Length of the list in each row of a column; -1 where there is none."""
    if not is_list(column.type):
        return [None if value is None else -1 for value in column.is_valid().to_pylist()]
    lengths: list[int | None] = pc.list_value_length(column).to_pylist()
    return lengths


def list_length(value: object) -> int | None:
    """Length of a list; -1 of a value that is none, ``None`` of nothing."""
    if value is None:
        return None
    return len(value) if isinstance(value, list | tuple) and not is_file(value) else -1


def cell(value: pa.Scalar) -> Any:
    """A value of a table in memory; a list of bytes as numbers as those bytes."""
    if value.is_valid and _has_items(value.type) and pa.types.is_uint8(value.type.value_type):
        return value.values.to_numpy(zero_copy_only=False).tobytes()
    return value.as_py()


def is_file(value: Sequence[Any]) -> bool:
    """Whether a list of JSON holds the bytes of a file as numbers."""
    return len(value) > LEAST_BYTES and all(isinstance(item, int) and 0 <= item <= 255 for item in value)
