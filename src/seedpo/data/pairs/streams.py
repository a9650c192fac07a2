"""Labelled pairs that come one after another, in another order at every pass."""

from __future__ import annotations

import logging
import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

from seedpo.data.files.inventory import Inventory
from seedpo.data.layouts import find_layout
from seedpo.data.layouts.columns import value_at
from seedpo.data.layouts.layout import ALONE, UNLABELLED
from seedpo.data.layouts.marks import number as as_number
from seedpo.data.pairs.pair_index import check_likes, fault_text, pair_rule
from seedpo.data.pairs.prompt_counts import COUNT_COLUMN
from seedpo.data.pairs.sets import StoredPair, content_hash, image_folder, labelled, open_pair, stored_image
from seedpo.data.settings import PairsConfig
from seedpo.data.tables.rows import list_length
from seedpo.data.tables.stream_rows import MarkedRows, MarkedStream, Stream, StreamRow
from seedpo.errors import DataError, StreamError
from seedpo.protocols import Fingerprint, LabelledPair, State

logger = logging.getLogger(__name__)

ENDLESS = 2**40
"""Length of a stream: more pairs than any run takes."""

TIE = "a tie"
"""Why a row makes no pair whose images are equally good."""

_COUNTED = {TIE: "ties", UNLABELLED.text: "without a label", ALONE.text: "without a partner"}
"""Rows of a reason, as an inventory calls them."""

RECENT = 64
"""Last pairs that can be read again without starting anew."""

MARK_EVERY = 2000
"""Pairs between two places from which a stream can go on."""

MARKS = 4
"""Last such places that are known: readers may be ahead of the pairs that are trained on."""


@runtime_checkable
class ResumablePairs(Protocol):
    """Labelled pairs that know a shorter way to a position than to read all pairs before it."""

    def state(self) -> State:
        """What the way begins at, as JSON values."""

    def restore(self, state: State) -> None:
        """Takes back what :meth:`state` gave."""


def state_of(pairs: object) -> State:
    """The state of a set of pairs; nothing of one that has none."""
    return pairs.state() if isinstance(pairs, ResumablePairs) else {}


def restore_to(pairs: object, state: State) -> None:
    """Takes back what :func:`state_of` gave."""
    if isinstance(pairs, ResumablePairs):
        pairs.restore(state)


@dataclass(frozen=True, kw_only=True)
class StreamPair:
    """A pair of a row of a stream.

    Attributes:
        row: the row.
        items: places of its images in a list of images; -1 where a cell holds one image.
        sides: which of the layout's two columns of images each lies in.
        probability: that the first image is preferred.
        fault: why it cannot be read; `None` if it can.
    """

    row: StreamRow
    items: Sequence[int] = (-1, -1)
    sides: Sequence[int] = (0, 1)
    probability: float = 1.0
    fault: str | None = None


@dataclass(frozen=True, kw_only=True)
class StreamFate:
    """What became of a row of a stream.

    Attributes:
        place: where it lies.
        pairs: each reads a pair of the row as it is stored, and raises a ``DataError`` if it cannot be read.
        reason: why it makes none; ``None`` if it does.
    """

    place: str
    pairs: Sequence[Callable[[], StoredPair]]
    reason: str | None


class StreamedPairs:
    """The labelled pairs of a stream, which starts again in another order when it ends.

    A row number is a position in the stream, and rows are to be asked for in ascending order. Rows in between are
    passed over without decoding them, so that a resumed run gets the very pairs that it would have got.

    Args:
        stream: the rows.
        config: which are left out and how they become one size.
        inventory: of the files that are streamed; `None`: there are none.

    Raises:
        DataError: if a column is missing or no resolution is configured.
    """

    sequential = True
    tied = None
    """Number of ties, which is unknown."""
    unlabelled = None
    """Number of pairs that nobody judged, which is unknown."""

    def __init__(self, stream: Stream, config: PairsConfig, inventory: Inventory | None = None) -> None:
        if config.resolution is None:
            raise DataError(
                f"{stream.origin} is a stream, whose sizes are not known beforehand; set pairs.resolution, for example "
                "--set pairs.resolution=512"
            )
        if config.buckets:
            raise DataError(
                f"{stream.origin} is a stream, whose shapes are not known beforehand; leave out pairs.buckets, or "
                "store the set as parquet files"
            )
        self.origin = stream.origin
        self.config = config
        self._files = inventory or Inventory(origin=stream.origin)
        self.layout = find_layout(stream.columns, origin=stream.origin, shape=stream.shape, own=config.columns)
        check_likes(self.layout, config, origin=stream.origin)
        if self.layout.layout.several_rows and config.from_scores != "likes":
            raise DataError(
                f"{stream.origin} holds {self.layout.layout.title}, which are compared with each other, and a stream "
                "shows one row at a time; fetch the set and make pairs of it with `seedpo data convert`"
            )
        self._stream = stream
        self._marks: list[State] = []
        self._start()

    def _start(self, mark: State | None = None) -> None:
        """Begins anew, or goes on at a mark."""
        self._recent: OrderedDict[int, StreamPair] = OrderedDict()
        self._rows = self._labelled_rows(mark)
        self._counts: Counter[str] = Counter()
        self._next = 0 if mark is None else int(mark["pair"])
        self._first_pass_end: int | None = None

    def state(self) -> State:
        """The last places from which the stream can go on; nothing if it cannot."""
        return {"marks": list(self._marks)} if self._marks else {}

    def restore(self, state: State) -> None:
        """Takes back what :meth:`state` gave."""
        self._marks = list(state.get("marks", ()))

    @property
    def summary(self) -> str:
        """What is read, for the log."""
        unit = "likes" if self.config.reads_likes else "pairs"
        return f"{self.origin}: a stream of {unit}, shuffled among {self.config.shuffle_buffer}"

    @property
    def inventory(self) -> Inventory:
        """The files, and the rows of the first pass as far as it was read."""
        counts = dict(self._counts)
        rows, used = sum(counts.values()), counts.pop("", 0)
        return self._files.with_rows(rows, used=used, left_out=counts) if rows else self._files

    def __len__(self) -> int:
        return ENDLESS

    def fingerprint(self) -> Fingerprint:
        """What tells the stream from others; the rows in it are not known beforehand."""
        return self._stream.fingerprint()

    def one_pass(self) -> Iterator[int]:
        """Numbers of the pairs of the first pass; each is read on the way.

        Raises:
            StreamError: if the stream breaks off or holds no pair.
        """
        row = 0
        while True:
            self._read_up_to(row, within_first_pass=True)
            if self._first_pass_end is not None and row >= self._first_pass_end:
                return
            yield row
            row += 1

    def fates(self) -> Iterator[StreamFate]:
        """What becomes of each row of one pass, in the order of the stream's files where ``shuffle_buffer`` is 1.

        Raises:
            StreamError: if the stream breaks off.
        """
        for number, row in enumerate(self._stream.epoch(0)):
            place = row.place or f"{self.origin} row {number}"
            pairs, reason = self._pairs(row)
            yield StreamFate(
                place=place,
                pairs=[partial(self._stored, pair, place, number) for pair in pairs],
                reason=None if pairs else reason,
            )

    def size(self) -> None:
        """The size that all images must have: none, since they are brought to ``pairs.resolution``."""
        return

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

    def pairs_of_prompt(self, row: int) -> int | None:
        """Pairs with the prompt of one of the last pairs, as Pick-a-Pic's column says; ``None`` if it does not."""
        count = as_number(self._recent_pair(row).row.values.get(COUNT_COLUMN))
        return int(count) if math.isfinite(count) and count >= 1 else None

    def stored(self, row: int) -> StoredPair:
        """The pair at a position as it is stored.

        Raises:
            DataError: if it cannot be read.
            StreamError: if the stream breaks off or holds no pair.
        """
        pair = self._recent_pair(row)
        return self._stored(pair, pair.row.place or f"{self.origin} pair {row} of the stream", row)

    def _recent_pair(self, row: int) -> StreamPair:
        if row not in self._recent:
            before = [mark for mark in self._marks if mark["pair"] <= row]
            nearest = max(before, key=lambda mark: int(mark["pair"]), default=None)
            if row < self._next:
                logger.warning("%s starts again to get back to pair %d", self.origin, row)
            if row < self._next or (nearest is not None and nearest["pair"] > self._next):
                self._start(nearest)
            self._read_up_to(row)
        return self._recent[row]

    def _stored(self, pair: StreamPair, place: str, key: int) -> StoredPair:
        if pair.fault:
            raise DataError(f"{place}: {pair.fault}")
        prompt, names = self.layout.prompt, [self.layout.images[side] for side in pair.sides]
        folder = image_folder(self.config, self._stream.folder)
        return StoredPair(
            text=(value_at(pair.row.values, prompt), prompt),
            images=tuple(
                stored_image(value_at(pair.row.values, name), name, item, folder)
                for name, item in zip(names, pair.items, strict=True)
            ),
            probability=pair.probability,
            place=place,
            key=key,
        )

    def _read_up_to(self, row: int, *, within_first_pass: bool = False) -> None:
        while self._next <= row:
            entry = next(self._rows)
            if entry is None:
                self._first_pass_end = self._next if self._first_pass_end is None else self._first_pass_end
                if within_first_pass:
                    return
                continue
            self._recent[self._next] = entry
            self._next += 1
            while len(self._recent) > RECENT:
                self._recent.popitem(last=False)

    def _labelled_rows(self, mark: State | None) -> Iterator[StreamPair | None]:
        """The pairs of all passes, less those that are left out; `None` ends a pass."""
        epoch, count = (0, 0) if mark is None else (int(mark["epoch"]), int(mark["pair"]))
        while True:
            empty = mark is None
            rows = self._pass(epoch, mark)
            for row in rows:
                pairs, reason = self._pairs(row)
                if epoch == 0:
                    self._counts[("faulty" if pairs[0].fault else "") if pairs else _COUNTED[reason]] += 1
                empty = empty and not pairs
                yield from pairs
                count += len(pairs)
                self._note(rows, epoch=epoch, pair=count)
            if empty:
                raise StreamError(f"{self.origin} holds no pair with a preference")
            yield None
            epoch, mark = epoch + 1, None

    def _pass(self, epoch: int, mark: State | None) -> Iterator[StreamRow]:
        if mark is not None and isinstance(self._stream, MarkedStream):
            return self._stream.pass_from(epoch, mark["rows"])
        return iter(self._stream.epoch(epoch))

    def _note(self, rows: Iterator[StreamRow], *, epoch: int, pair: int) -> None:
        """Notes the place between two rows, now and then."""
        last = max((int(mark["pair"]) for mark in self._marks), default=0)
        if pair >= last + MARK_EVERY and isinstance(rows, MarkedRows):
            self._marks = [*self._marks[1 - MARKS :], {"epoch": epoch, "pair": pair, "rows": rows.mark()}]

    def _pairs(self, row: StreamRow) -> tuple[Sequence[StreamPair], str]:
        """The pairs of a row that are used or cannot be read, and why it makes none, if so."""
        if row.fault is not None:
            return [StreamPair(row=row, fault=row.fault)], row.fault
        marks = {name: value_at(row.values, name) for name in self.layout.marks.values()}
        counted = self.layout.counted
        values = [[list_length(value) if name in counted else value] for name, value in marks.items()]
        verdicts = self.layout.judge(values, 1, pair_rule(self.config))
        place = int(verdicts.reason[0])
        reason = verdicts.reasons[place].text if place >= 0 else TIE
        if len(verdicts.faults()):
            fault = fault_text(reason, marks)
            return [StreamPair(row=row, fault=fault)], fault
        columns = (verdicts.items, verdicts.columns(), verdicts.probability)
        entries = zip(*(values.tolist() for values in columns), strict=True)
        pairs = [
            StreamPair(row=row, items=items, sides=own, probability=probability)
            for items, own, probability in entries
            if probability != 0.5 or self.config.ties != "drop"
        ]
        return pairs, reason
