"""One pass over tar archives in an order of its own, which can be left and taken up at any row."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import numpy as np

from seedpo.data.tables.stream_rows import StreamRow
from seedpo.documents import parse_json
from seedpo.errors import StreamError
from seedpo.protocols import State

RowsOf = Callable[[int, int], Iterator[StreamRow]]
"""The rows of a file, by its number and the byte at which the first of them begins; each knows its source."""


class ArchivePass:
    """The rows of archives: files in random order, and each row drawn among the next ones that were not drawn before.

    Args:
        rows_of: reads a file.
        files: number of the archives.
        generator: draws their order and that of the rows.
        buffer: rows among which the next one is drawn; 1 keeps the order of the files and of their rows.
    """

    def __init__(self, rows_of: RowsOf, files: int, generator: np.random.Generator, *, buffer: int) -> None:
        self._rows_of = rows_of
        self._generator = generator
        self._buffer = buffer
        self._order: list[int] = list(range(files)) if buffer == 1 else generator.permutation(files).tolist()
        self._waiting: list[StreamRow] = []
        self._last: tuple[int, int] | None = None
        """Place in the order of the files of the last row that was read, and the byte at which it begins."""
        self._is_read = False
        """Whether all rows were read; those that wait come from the last one on."""
        self._rows = self._read(0, 0)

    def _read(self, place: int, start: int) -> Iterator[tuple[int, StreamRow]]:
        for later, number in enumerate(self._order[place:], place):
            for row in self._rows_of(number, start):
                yield later, row
            start = 0

    def __iter__(self) -> Iterator[StreamRow]:
        return self

    def __next__(self) -> StreamRow:
        if not self._is_read:
            for place, row in self._rows:
                self._last = place, _source(row)[1]
                if len(self._waiting) < self._buffer:
                    self._waiting.append(row)
                    continue
                number = int(self._generator.integers(self._buffer))
                drawn, self._waiting[number] = self._waiting[number], row
                return drawn
            order = self._generator.permutation(len(self._waiting)).tolist()
            self._waiting = [self._waiting[number] for number in reversed(order)]
            self._is_read = True
        if not self._waiting:
            raise StopIteration
        return self._waiting.pop()

    def mark(self) -> State:
        """The place in the pass: the rows that wait, what was read last, and the state of the generator."""
        return {
            "generator": json.dumps(self._generator.bit_generator.state),
            "waiting": [list(_source(row)) for row in self._waiting],
            "last": None if self._last is None else list(self._last),
            "is_read": self._is_read,
        }

    def go_to(self, mark: State) -> None:
        """Goes to a place, of which only the rows that wait are read.

        Raises:
            StreamError: if a file is damaged, or shorter than it was.
        """
        self._generator.bit_generator.state = parse_json(mark["generator"])
        self._waiting = [self._row(*source) for source in mark["waiting"]]
        self._is_read = bool(mark["is_read"])
        if mark["last"] is not None:
            self._last = place, start = int(mark["last"][0]), int(mark["last"][1])
            self._rows = self._read(place, start)
            next(self._rows, None)

    def _row(self, number: int, start: int) -> StreamRow:
        row = next(self._rows_of(number, start), None)
        if row is None:
            raise StreamError(f"file {number} of the stream ends before byte {start}; it was longer when the run began")
        return row


def _source(row: StreamRow) -> tuple[int, int]:
    assert row.source is not None
    return row.source
