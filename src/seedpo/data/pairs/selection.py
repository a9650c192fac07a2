"""Which pairs of a set are trained on: those that can be read, and those on one side of a division by prompts."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from tqdm import tqdm

from seedpo.data.images.buckets import Size, buckets_of
from seedpo.data.pairs.fingerprints import fingerprint_of
from seedpo.data.pairs.joined import repeats_of
from seedpo.data.pairs.prompt_columns import prompts_of
from seedpo.data.pairs.prompt_counts import stated_count
from seedpo.data.pairs.readers import expect
from seedpo.data.pairs.streams import restore_to, state_of
from seedpo.data.tables.blocks import Blocks, blocks_of
from seedpo.errors import DataError
from seedpo.protocols import Fingerprint, LabelledPair, PreferencePairs, State

logger = logging.getLogger(__name__)

LEAST_SEEN = 1000
"""Pairs of a stream, whose length is not known, by which the share is reckoned at least."""

MOST_COMPARED = 10_000
"""Pairs whose image files are compared with one another at most."""

Part = TypeVar("Part")


@runtime_checkable
class ImageFiles(Protocol):
    """Pairs that can tell which image files they hold."""

    def images(self, row: int) -> Sequence[tuple[str, str]]:
        """Place and SHA-256 of both image files of a pair.

        Raises:
            DataError: if one cannot be read.
        """


class SkippingPairs:
    """Labelled pairs without those that cannot be read.

    Such a pair is replaced by the next one (of its bucket) that can be read, so that which pair is given depends on the
    set alone. The state says which pairs are unreadable: a resumed run neither reads nor names them again, and its
    count goes on.

    Args:
        pairs: the labelled pairs.
        limit: share of them that may be unreadable, 0 to 1.
    """

    def __init__(self, pairs: PreferencePairs, *, limit: float) -> None:
        self.pairs = pairs
        self.limit = limit
        self.sequential = pairs.sequential
        self._buckets = buckets_of(pairs)
        self._unreadable: set[int] = set()
        self._seen = 0

    def __len__(self) -> int:
        return len(self.pairs)

    def repeats(self) -> Sequence[int] | None:
        """Visits of each pair in an epoch; ``None``: one of each."""
        return repeats_of(self.pairs)

    def buckets(self) -> Sequence[Size] | None:
        """Height and width of the images of each pair; ``None``: one size for all."""
        return self._buckets

    def blocks(self) -> Blocks | None:
        """Pairs that are read together; ``None``: all are shuffled together."""
        return blocks_of(self.pairs)

    def expect(self, rows: Sequence[int]) -> None:
        """Says which pairs are asked for next; those that turned out unreadable are not."""
        expect(self.pairs, [row for row in rows if row not in self._unreadable])

    def fingerprint(self) -> Fingerprint:
        """That of the whole set, those that cannot be read included."""
        return fingerprint_of(self.pairs)

    def one_pass(self) -> Iterable[int]:
        """Numbers of the pairs of one pass, those that cannot be read included."""
        return self.pairs.one_pass()

    def __getitem__(self, row: int) -> LabelledPair:
        """A pair, or the next one after it that can be read.

        Raises:
            DataError: if more pairs than the limit allows turned out unreadable so far.
        """
        return self._first_readable(row, self.pairs.__getitem__)

    def content(self, row: int) -> str:
        """SHA-256 of all that a pair depends on; of the pair in its place, once it turned out unreadable."""
        return self._first_readable(row, self.pairs.content)

    def prompt(self, row: int) -> str:
        """What a pair's images were made for; that of the pair in its place, once it turned out unreadable."""
        return self._first_readable(row, self.pairs.prompt)

    def all_prompts(self) -> Iterable[str | None]:
        """The prompt of each pair; ``None`` where it cannot be read."""
        return prompts_of(self.pairs)

    def pairs_of_prompt(self, row: int) -> int | None:
        """Pairs with the prompt of a pair, as its row says; of the pair in its place, once it turned out unreadable."""
        return self._first_readable(row, lambda place: stated_count(self.pairs, place))

    def images(self, row: int) -> Sequence[tuple[str, str]]:
        """Place and SHA-256 of both image files of a pair."""
        return _images(self.pairs, row)

    def _first_readable(self, row: int, read: Callable[[int], Part]) -> Part:
        count, buckets = len(self), self._buckets
        if not 0 <= row < count:
            raise IndexError(row)
        self._seen = max(self._seen, row + 1)
        for place in range(row, row + count):
            index = place % count
            if index in self._unreadable or (buckets and buckets[index] != buckets[row]):
                continue
            try:
                return read(index)
            except DataError as error:
                self._note(index, error)
        # Without buckets only where the limit is 1.
        whose = f"the bucket {buckets[row][1]} x {buckets[row][0]}" if buckets else "the set"
        raise DataError(f"no pair of {whose} can be read")

    def _note(self, row: int, error: DataError) -> None:
        self._unreadable.add(row)
        unreadable, count = len(self._unreadable), max(self._seen, LEAST_SEEN) if self.sequential else len(self)
        if unreadable > self.limit * count:
            raise DataError(
                f"{unreadable} of {count} pairs cannot be read; pairs.bad_rows_limit = {self.limit:g} allows fewer; "
                f"`seedpo data check` lists them all; the last: {error}"
            ) from error
        logger.warning("pair %d is left out, and the next one taken in its place: %s", row, error)

    def metrics(self) -> Mapping[str, float]:
        """How many pairs turned out unreadable so far."""
        return {"unreadable": float(len(self._unreadable))} if self._unreadable else {}

    def state(self) -> State:
        """The pairs that turned out unreadable so far, and where a stream can go on."""
        stream = state_of(self.pairs)
        return {"unreadable": sorted(self._unreadable), "seen": self._seen} | ({"stream": stream} if stream else {})

    def restore(self, state: State) -> None:
        """Takes back what :meth:`state` gave."""
        self._unreadable = {int(row) for row in state["unreadable"]}
        self._seen = int(state["seen"])
        restore_to(self.pairs, state.get("stream", {}))

    def take_over(self, states: Sequence[State]) -> None:
        """Takes what several processes observed together: all that any of them found unreadable."""
        unreadable = {row for state in states for row in state["unreadable"]}
        seen = max(int(state["seen"]) for state in states)
        self.restore({**states[0], "unreadable": unreadable, "seen": seen})


class SomePairs:
    """Some of the pairs of a set, renumbered from 0.

    Args:
        pairs: the set.
        rows: the numbers in it of those that are kept.
    """

    def __init__(self, pairs: PreferencePairs, rows: Sequence[int]) -> None:
        self.pairs = pairs
        self.rows = np.asarray(rows, dtype=np.int64)

    sequential = False

    def __len__(self) -> int:
        return len(self.rows)

    def repeats(self) -> Sequence[int] | None:
        """Visits of each pair in an epoch; ``None``: one of each."""
        whole = repeats_of(self.pairs)
        return None if whole is None else [whole[row] for row in self.rows.tolist()]

    def buckets(self) -> Sequence[Size] | None:
        """Height and width of the images of each pair; ``None``: one size for all."""
        whole = buckets_of(self.pairs)
        return None if whole is None else [whole[row] for row in self.rows.tolist()]

    def blocks(self) -> Blocks | None:
        """Pairs that are read together; ``None``: all are shuffled together."""
        whole = blocks_of(self.pairs)
        return None if whole is None else replace(whole, number=whole.number[self.rows])

    def expect(self, rows: Sequence[int]) -> None:
        """Says which pairs are asked for next."""
        expect(self.pairs, [int(self.rows[row]) for row in rows])

    def fingerprint(self) -> Fingerprint:
        """That of the whole set, of which the settings say the part."""
        return fingerprint_of(self.pairs)

    def one_pass(self) -> Iterable[int]:
        """Numbers of all pairs."""
        return range(len(self))

    def __getitem__(self, row: int) -> LabelledPair:
        """One pair.

        Raises:
            DataError: if it cannot be read.
        """
        return self.pairs[int(self.rows[row])]

    def prompt(self, row: int) -> str:
        """What both images of a pair were made for, without decoding them."""
        return self.pairs.prompt(int(self.rows[row]))

    def content(self, row: int) -> str:
        """SHA-256 of all that a pair depends on: the same as in the whole set."""
        return self.pairs.content(int(self.rows[row]))

    def images(self, row: int) -> Sequence[tuple[str, str]]:
        """Place and SHA-256 of both image files of a pair."""
        return _images(self.pairs, int(self.rows[row]))


def divided_by_prompt(
    pairs: PreferencePairs,
    share: float,
    *,
    key: str = "held_out_share",
    other: str = "held_out",
    progress: bool = False,
) -> tuple[SomePairs, SomePairs]:
    """The pairs of most prompts, and those of a share of the prompts, which the prompts themselves decide.

    Whatever else is in the set, and in whatever order, a prompt stays on its side. Pairs whose prompt cannot be read
    stay with the first.

    Args:
        pairs: the set.
        share: of the prompts whose pairs are kept apart, above 0 and below 1.
        key: setting of the share, for messages.
        other: setting that names a set of its own, for messages.
        progress: whether to show a progress bar.

    Raises:
        DataError: if either side is empty.
    """
    sides: tuple[list[int], list[int]] = ([], [])
    prompts = tqdm(prompts_of(pairs), total=len(pairs), desc="reading prompts", disable=not progress, leave=False)
    for row, prompt in enumerate(prompts):
        sides[prompt is not None and is_apart(prompt, share)].append(row)
    if not all(sides):
        raise DataError(
            f"{key} = {share:g} leaves {len(sides[0])} pairs to train on and {len(sides[1])} to measure on; "
            f"change it, or name a set of pairs with {other}"
        )
    return SomePairs(pairs, sides[0]), SomePairs(pairs, sides[1])


def is_apart(prompt: str, share: float) -> bool:
    """Whether a prompt is one of the share of all prompts that is kept apart; see :func:`divided_by_prompt`."""
    return int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8], "big") / 2**64 < share


def shared_images(training: PreferencePairs, validation: PreferencePairs) -> list[tuple[str, str]]:
    """Images of ``validation`` that are images of ``training`` too, byte for byte: their places in both.

    Every file is read. Above :data:`MOST_COMPARED` pairs nothing is compared, and the log says so. Pairs that cannot be
    read are passed over.
    """
    if training.sequential or len(training) + len(validation) > MOST_COMPARED:
        logger.info("training and validation pairs were not searched for images that both hold: there are too many")
        return []
    places = {digest: place for row in range(len(training)) for place, digest in _images(training, row)}
    return [
        (places[digest], place)
        for row in range(len(validation))
        for place, digest in _images(validation, row)
        if digest in places
    ]


def _images(pairs: PreferencePairs, row: int) -> list[tuple[str, str]]:
    try:
        return list(pairs.images(row)) if isinstance(pairs, ImageFiles) else []
    except DataError:
        return []
