"""Rows of whatever a data set is stored in: the protocol that the readers share, rows in memory and in text files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

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

    def lists(self) -> Sequence[str]:
        """Columns that hold lists; a list of bytes as numbers is a file, and no list."""

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

    def lists(self) -> Sequence[str]:
        """Columns that hold lists."""
        return list_columns(self._table.schema)

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

    def lists(self) -> Sequence[str]:
        """Columns of which a line holds a list."""
        cells = (item for line in self._lines for item in line.values.items())
        return sorted({name for name, value in cells if isinstance(value, list) and not is_file(value)})

    def faults(self) -> Mapping[int, str]:
        """Lines that cannot be read."""
        return {row: line.fault for row, line in enumerate(self._lines) if line.fault}

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
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return lists and not pa.types.is_uint8(kind.value_type)


def list_columns(schema: pa.Schema) -> list[str]:
    """Columns that hold lists."""
    return [field.name for field in schema if is_list(field.type)]


def cell(value: pa.Scalar) -> Any:
    """A value of a table in memory; a list of bytes as numbers as those bytes."""
    is_bytes = isinstance(value, pa.ListScalar | pa.LargeListScalar | pa.FixedSizeListScalar)
    if is_bytes and value.is_valid and pa.types.is_uint8(value.type.value_type):
        return value.values.to_numpy(zero_copy_only=False).tobytes()
    return value.as_py()


def is_file(value: Sequence[Any]) -> bool:
    """Whether a list of JSON holds the bytes of a file as numbers."""
    return len(value) > LEAST_BYTES and all(isinstance(item, int) and 0 <= item <= 255 for item in value)
