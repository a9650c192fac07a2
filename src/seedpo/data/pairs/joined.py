"""Several sets of labelled pairs that are read as one, each of whose pairs comes more or less often."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Protocol, runtime_checkable

import numpy as np

from seedpo.data.images.buckets import Size
from seedpo.data.pairs.fingerprints import joined_fingerprint
from seedpo.data.pairs.sets import PairSet, StoredPair
from seedpo.data.settings import DataSet
from seedpo.data.tables.blocks import Blocks
from seedpo.errors import DataError
from seedpo.protocols import Fingerprint, LabelledPair


@runtime_checkable
class RepeatedPairs(Protocol):
    """A set of pairs that may say how often each comes in an epoch."""

    def repeats(self) -> Sequence[int] | None:
        """Visits of each pair in an epoch, 1 or more; ``None``: one of each."""


def repeats_of(pairs: object) -> Sequence[int] | None:
    """Visits of each pair of a set in an epoch; ``None``: one of each."""
    return pairs.repeats() if isinstance(pairs, RepeatedPairs) else None


class JoinedPairs:
    """Sets of labelled pairs in a row: first all pairs of the first set, then those of the second, and so on.

    Args:
        parts: the sets, at least one.
        sets: the name and the weight of each.

    Raises:
        DataError: if no resolution is configured and their images have different sizes.
    """

    sequential = False

    def __init__(self, parts: Sequence[PairSet], sets: Sequence[DataSet]) -> None:
        self.parts = list(parts)
        self.sets = list(sets)
        self.config = parts[0].config
        self._ends = list(accumulate(len(part) for part in parts))
        if any(part.config.resolution is None for part in parts):
            sizes = {part.size(): entry.name for part, entry in zip(parts, sets, strict=True)}
            if len(sizes) > 1:
                shown = ", ".join(f"{name}: {size[0]} x {size[1]}" for size, name in sizes.items() if size)
                raise DataError(
                    f"data: the images of the sets have different sizes ({shown}); bring all to one size, for example "
                    "with --set pairs.resolution=512"
                )

    @property
    def summary(self) -> str:
        """What each set holds and how often its pairs come, for the log."""
        visits = self.repeats()
        lines = [
            f"{entry.name}: {part.summary}, {_times(entry.weight)} an epoch "
            f"({len(part) * entry.weight / sum(visits):.0%} of the visits)"
            for part, entry in zip(self.parts, self.sets, strict=True)
        ]
        unit = "likes" if self.config.reads_likes else "pairs"
        return f"{len(self)} {unit} of {len(self.parts)} sets; " + "; ".join(lines)

    def liked(self) -> tuple[int, int]:
        """How many images are liked, and how many are not, of all sets."""
        liked, others = zip(*(part.liked() for part in self.parts), strict=True)
        return sum(liked), sum(others)

    def __len__(self) -> int:
        return self._ends[-1]

    def one_pass(self) -> Iterable[int]:
        """Numbers of all pairs, each once."""
        return range(len(self))

    def repeats(self) -> Sequence[int]:
        """Visits of each pair in an epoch: the weight of its set."""
        return [entry.weight for part, entry in zip(self.parts, self.sets, strict=True) for _ in range(len(part))]

    def blocks(self) -> Blocks | None:
        """Pairs that are read together; ``None``: all are shuffled together. A set without blocks is one block."""
        parts = [part.blocks() for part in self.parts]
        windows = [part.window for part in parts if part is not None]
        if not windows:
            return None
        numbers, first = [], 0
        for part, blocks in zip(self.parts, parts, strict=True):
            own = np.zeros(len(part), dtype=np.int64) if blocks is None else blocks.number
            numbers.append(own + first)
            first += int(own.max()) + 1
        return Blocks(number=np.concatenate(numbers), window=min(windows))

    def all_prompts(self) -> Iterator[str | None]:
        """The prompt of each pair; ``None`` where it cannot be read."""
        for part in self.parts:
            yield from part.all_prompts()

    def size(self) -> tuple[int, int] | None:
        """Width and height that all images must have where no resolution is configured."""
        return self.parts[0].size()

    def stored(self, row: int) -> StoredPair:
        """One pair as it is stored."""
        part, inside = self._place(row)
        return part.stored(inside)

    def fingerprint(self) -> Fingerprint:
        """That of all sets in their order, with their weights."""
        return joined_fingerprint([part.fingerprint() for part in self.parts], [entry.weight for entry in self.sets])

    def __getitem__(self, row: int) -> LabelledPair:
        """One pair.

        Raises:
            DataError: if it cannot be read.
        """
        part, inside = self._place(row)
        return part[inside]

    def prompt(self, row: int) -> str:
        """What both images of a pair were made for, without reading them."""
        part, inside = self._place(row)
        return part.prompt(inside)

    def content(self, row: int) -> str:
        """SHA-256 of all that a pair depends on: the same as in its set alone."""
        part, inside = self._place(row)
        return part.content(inside)

    def buckets(self) -> Sequence[Size] | None:
        """Height and width of the images of each pair; ``None``: one size for all."""
        parts = [part.buckets() for part in self.parts]
        return None if None in parts else [size for part in parts for size in part or ()]

    def images(self, row: int) -> Sequence[tuple[str, str]]:
        """Place and SHA-256 of both image files of a pair."""
        part, inside = self._place(row)
        return part.images(inside)

    def _place(self, row: int) -> tuple[PairSet, int]:
        number = bisect_right(self._ends, row)
        if row < 0 or number == len(self.parts):
            raise IndexError(row)
        return self.parts[number], row - (self._ends[number - 1] if number else 0)


def _times(weight: int) -> str:
    return {1: "once", 2: "twice"}.get(weight, f"{weight} times")
