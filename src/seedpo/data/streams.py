"""Labelled pairs that come one after another and have no length."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from seedpo.data.layouts import find_layout, preferences, wrong_marks
from seedpo.data.pairs import StoredPair, content_hash, image_folder, labelled, open_pair
from seedpo.data.settings import PairsConfig
from seedpo.errors import DataError, StreamError
from seedpo.protocols import LabelledPair

logger = logging.getLogger(__name__)

ENDLESS = 2**40
"""Length of a stream: more pairs than any run takes."""

KEPT = 64
"""Last pairs that can be asked for again without starting anew."""


class Stream(Protocol):
    """Rows in orders of their own."""

    origin: str
    """What is read, for messages."""
    columns: Sequence[str]
    """Names of the columns."""
    folder: Path | None
    """Where paths in a row begin and within which they must lie; none: there can be no paths."""

    def epoch(self, number: int) -> Iterator[dict[str, Any]]:
        """All rows in the order of one pass; the same order whenever it is asked for."""


class StreamedPairs:
    """The labelled pairs of a stream, which starts again in another order when it ends.

    A row is a position in the stream: rows are to be asked for in ascending order. One further on is reached by
    skipping the rows before it undecoded, so that a resumed run gets the very pairs that it would have got.

    Args:
        stream: the rows.
        config: which are left out and how they become one size.

    Raises:
        DataError: if a column is missing or no resolution is configured.
    """

    sequential = True

    def __init__(self, stream: Stream, config: PairsConfig) -> None:
        if config.resolution is None:
            raise DataError(
                f"{stream.origin} is a stream, whose sizes are not known beforehand; set pairs.resolution, for example "
                "--set pairs.resolution=512"
            )
        self.origin = stream.origin
        self.config = config
        self.layout = find_layout(stream.columns, origin=stream.origin)
        self._stream = stream
        self._recent: OrderedDict[int, tuple[float, Mapping[str, Any]]] = OrderedDict()
        self._rows = self._kept_rows()
        self._next = 0

    @property
    def summary(self) -> str:
        """What is read, for the log."""
        return f"{self.origin}: a stream of pairs, shuffled among {self.config.shuffle_buffer}"

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, row: int) -> LabelledPair:
        """The pair at a position.

        Raises:
            DataError: if it cannot be read.
            StreamError: if the stream breaks off or holds no pair.
        """
        return labelled(open_pair(self.stored(row)), self.config)

    def content(self, row: int) -> str:
        """SHA-256 of all that a pair depends on, in hexadecimal digits, without decoding its images."""
        return content_hash(self.stored(row), self.config)

    def prompt(self, row: int) -> str:
        """What both images of one of the last pairs were made for."""
        return self.stored(row).prompt

    def stored(self, row: int) -> StoredPair:
        """The pair at a position as it is stored."""
        if row not in self._recent:
            if row < self._next:
                logger.warning("%s starts again to get back to pair %d", self.origin, row)
                self._rows, self._next = self._kept_rows(), 0
            self._skip_to(row)
        probability, values = self._recent[row]
        place = f"{self.origin} pair {row} of the stream"
        if probability == float("inf"):
            marks = [values.get(name) for name in self.layout.marks]
            raise DataError(f"{place}: {wrong_marks(self.layout, marks)}")
        return StoredPair(
            values=values,
            names=self.layout.content,
            probability=probability,
            place=place,
            folder=image_folder(self.config, self._stream.folder),
            key=row,
        )

    def _skip_to(self, row: int) -> None:
        while self._next <= row:
            self._recent[self._next] = next(self._rows)
            self._next += 1
            while len(self._recent) > KEPT:
                self._recent.popitem(last=False)

    def _kept_rows(self) -> Iterator[tuple[float, Mapping[str, Any]]]:
        """The rows of all passes, less those that are left out, each with its preference."""
        epoch = 0
        while True:
            kept = 0
            for values in self._stream.epoch(epoch):
                marks = [[values.get(name)] for name in self.layout.marks]
                probability = float(preferences(self.layout, marks, count=1)[0])
                if probability != probability or (probability == 0.5 and self.config.ties == "drop"):
                    continue
                kept += 1
                yield probability, values
            if not kept:
                raise StreamError(f"{self.origin} holds no pair with a preference")
            epoch += 1
