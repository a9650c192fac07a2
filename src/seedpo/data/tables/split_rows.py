"""The rows of one split of a table whose column ``split`` tells of each row to which it belongs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seedpo.data.files.splits import WORDS, SplitWish, chosen_split
from seedpo.data.layouts.columns import Shape
from seedpo.data.tables.rows import Table

COLUMN = "split"


class SplitRows:
    """Some rows of a table, in their order.

    Args:
        table: all rows.
        rows: numbers of those that are kept.
    """

    def __init__(self, table: Table, rows: Sequence[int]) -> None:
        self.origin = table.origin
        self.columns = table.columns
        self._table = table
        self._rows = list(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def values(self, column: str) -> Sequence[Any]:
        """A column, whole."""
        return self._kept(self._table.values(column))

    def is_light(self, column: str) -> bool:
        """Whether a column holds text or numbers."""
        return self._table.is_light(column)

    def shape(self) -> Shape:
        """What kinds of values the columns of all rows hold."""
        return self._table.shape()

    def lengths(self, column: str) -> Sequence[int | None]:
        """Length of the list in each row of a column, whole."""
        return self._kept(self._table.lengths(column))

    def faults(self) -> Mapping[int, str]:
        """Rows that cannot be read."""
        faults = self._table.faults()
        return {place: faults[row] for place, row in enumerate(self._rows) if row in faults}

    def file_sizes(self) -> Sequence[int]:
        """Bytes of each file, with the rows that are not kept."""
        return self._table.file_sizes()

    def row(self, row: int, columns: Sequence[str]) -> dict[str, Any]:
        """Some columns of a row."""
        return self._table.row(self._rows[row], columns)

    def place(self, row: int) -> str:
        """File and number of a row in it."""
        return self._table.place(self._rows[row])

    def folder(self, row: int) -> Path | None:
        """Where paths in a row begin."""
        return self._table.folder(self._rows[row])

    def _kept(self, values: Sequence[Any]) -> list[Any]:
        return [values[row] for row in self._rows]


def split_counts(table: Table) -> dict[str, int]:
    """How many rows are of each split; none if no column tells it.

    A column tells splits if every row that can be read holds a word for one, as ``train`` or ``test``.
    """
    if COLUMN not in table.columns or not table.is_light(COLUMN):
        return {}
    faults = table.faults()
    values = [value for row, value in enumerate(table.values(COLUMN)) if row not in faults]
    is_told = all(isinstance(value, str) and value.lower() in WORDS for value in values)
    return dict(sorted(Counter(values).items())) if is_told else {}


def rows_of_split(table: Table, counts: Mapping[str, int], wish: SplitWish) -> tuple[Table, dict[str, int]]:
    """The rows of the split that is read, and how many others there are, by what they are.

    Rows that cannot be read stay: they are counted as such.

    Args:
        table: all rows.
        counts: see :func:`split_counts`.
        wish: which split is read.

    Raises:
        DataError: if there is no such split.
    """
    if not counts:
        return table, {}
    split = chosen_split(counts, wish, origin=table.origin)
    if len(counts) == 1:
        return table, {}
    faults = table.faults()
    rows = [row for row, value in enumerate(table.values(COLUMN)) if value == split or row in faults]
    return SplitRows(table, rows), {f"of the split {name}": count for name, count in counts.items() if name != split}
