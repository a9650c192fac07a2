"""Rows that come one after another: what a stream of them is, and how a pass over it can be left and taken up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from seedpo.data.layouts.columns import Shape
from seedpo.protocols import Fingerprint, State


@dataclass(frozen=True, kw_only=True)
class StreamRow:
    """A row of a stream.

    Attributes:
        values: by column.
        place: where it lies, for messages; `None`: the stream's name and the number of the pair.
        fault: why it cannot be read; `None` if it can.
        source: number of its file, and the byte at which it begins there; `None`: nothing is known of it.
    """

    values: Mapping[str, Any]
    place: str | None = None
    fault: str | None = None
    source: tuple[int, int] | None = None


class Stream(Protocol):
    """Rows in an order of their own."""

    origin: str
    """What is read, for messages."""
    columns: Sequence[str]
    """Names of the columns."""
    shape: Shape
    """What kinds of values the columns hold."""
    folder: Path | None
    """Where paths in a row begin and within which they must lie; `None`: there can be no paths."""

    def fingerprint(self) -> Fingerprint:
        """What tells the stream from others."""

    def epoch(self, number: int) -> Iterator[StreamRow]:
        """All rows in the order of one pass, which is always the same for the same number."""


@runtime_checkable
class MarkedRows(Protocol):
    """Rows of a pass that can say where they are."""

    def mark(self) -> State:
        """What the pass needs to go on from here, as JSON values."""


@runtime_checkable
class MarkedStream(Protocol):
    """A stream whose passes are :class:`MarkedRows`."""

    def pass_from(self, number: int, mark: State) -> Iterator[StreamRow]:
        """The rest of a pass."""
