"""Rows of whatever a data set is stored in: the protocol that the readers share, and rows in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa


class Table(Protocol):
    """Rows with named columns; what is heavy is read when it is asked for."""

    origin: str
    """What was read, for messages."""
    columns: Sequence[str]
    """Names of the columns."""

    def __len__(self) -> int:
        """Number of rows."""

    def values(self, column: str) -> Sequence[Any]:
        """A column of light values, whole."""

    def row(self, row: int, columns: Sequence[str]) -> dict[str, Any]:
        """Some columns of a row.

        Raises:
            DataError: if the row cannot be read; the message names its place.
        """

    def place(self, row: int) -> str:
        """File and number of a row, for messages."""

    def folder(self, row: int) -> Path | None:
        """Where paths in a row begin and within which they must lie; none: there can be no paths."""


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

    def row(self, row: int, columns: Sequence[str]) -> dict[str, Any]:
        """Some columns of a row."""
        return {name: self._table[name][row].as_py() for name in columns}

    def place(self, row: int) -> str:
        """Number of a row."""
        return f"{self.origin} row {row}"

    def folder(self, row: int) -> Path | None:
        """The current folder."""
        return Path()
