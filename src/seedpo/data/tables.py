"""Rows of whatever a data set is stored in: the protocol that the readers share, rows in memory and in text files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from seedpo.data.text import Line
from seedpo.errors import DataError


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

    def file_sizes(self) -> Sequence[int]:
        """None: there are no files."""
        return ()

    def row(self, row: int, columns: Sequence[str]) -> dict[str, Any]:
        """Some columns of a row."""
        return {name: self._table[name][row].as_py() for name in columns}

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
        numeric: columns whose text is read as numbers, as CSV needs it.
    """

    def __init__(
        self,
        files: Sequence[Path],
        *,
        read: Callable[[Path], list[Line]],
        origin: str,
        numeric: Sequence[str] = (),
    ) -> None:
        self.origin = origin
        self._numeric = frozenset(numeric)
        self._lines = [line for path in files for line in read(path)]
        self.columns: Sequence[str] = list(dict.fromkeys(key for line in self._lines for key in line.values))

    def __len__(self) -> int:
        return len(self._lines)

    def values(self, column: str) -> Sequence[Any]:
        """A column, whole; `None` where a line lacks it."""
        values = [line.values.get(column) for line in self._lines]
        return [_as_number(value) for value in values] if column in self._numeric else values

    def is_light(self, column: str) -> bool:
        """Always: text holds paths."""
        return True

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
    """Whether a column of this type holds text or numbers."""
    return not (pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _as_number(value: Any) -> Any:
    """CSV knows text only: a number, a truth value, or nothing if the field is empty."""
    if not isinstance(value, str):
        return value
    text = value.strip().lower()
    if text in ("", "true", "false"):
        return {"": None, "true": True, "false": False}[text]
    try:
        return float(text)
    except ValueError:
        return value
