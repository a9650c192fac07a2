"""An endless shuffled stream of row numbers that can be put back where it was."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice, repeat

import numpy as np
import torch
from numpy.typing import NDArray

from seedpo.data.tables.blocks import Blocks, block_order
from seedpo.protocols import State


class IndexStream:
    """Row numbers 0 to count - 1, in every epoch in another order, dealt out among processes.

    Args:
        count: number of rows.
        seed: seed of the shuffles; the same on all processes.
        rank: number of this process.
        world: number of processes.
        shuffle: whether the order is drawn; else it is ascending, as pairs from a stream need it.
        repeats: how often each row comes in an epoch, 1 or more; ``None``: once.
        blocks: of each row, which are shuffled one after another; ``None``: all rows are shuffled together.
    """

    def __init__(
        self,
        count: int,
        *,
        seed: int,
        rank: int = 0,
        world: int = 1,
        shuffle: bool = True,
        repeats: Sequence[int] | None = None,
        blocks: Blocks | None = None,
    ) -> None:
        self._repeats = None if repeats is None else np.asarray(repeats, dtype=np.int64)
        # One entry for each visit in an epoch: its row. Those of a row succeed one another from the first one on.
        self._rows: NDArray[np.int64] | None = None
        if self._repeats is not None:
            self._rows = np.repeat(np.arange(count), self._repeats)
            self._first = np.cumsum(self._repeats) - self._repeats
        self._blocks = blocks
        if blocks is not None and self._rows is not None:
            self._blocks = replace(blocks, number=blocks.number[self._rows])
        self._epoch: int | None = None
        self.count = count if self._rows is None else len(self._rows)
        self.seed = seed
        self.rank = rank
        self.world = world
        self.shuffle = shuffle
        self._position = 0
        """Rows that all processes together have taken."""
        self._left: list[int] = []
        """Places of the shuffled rows that come right before position ``_end``: nobody took them in their turn."""
        self._end = 0

    def take(self, number: int) -> list[int]:
        """The next row numbers of this process."""
        return [row for row, _ in self.take_with_visits(number)]

    def take_with_visits(self, number: int) -> list[tuple[int, int]]:
        """The next row numbers of this process, each with the number of its visit.

        The visits of a row in an epoch are numbered in a row, whatever order they come in, so that none comes twice.
        """
        visits = self.coming(number)
        self._position += self.world * number
        return visits

    def coming(self, number: int) -> list[tuple[int, int]]:
        """What :meth:`take_with_visits` gives next; nothing is taken."""
        return [self._visit(self._position + self.rank + self.world * index) for index in range(number)]

    @property
    def visits(self) -> float:
        """Epochs handed out so far, by all processes together: how often each row was, but for its repeats."""
        return self._position / self.count

    def _visit(self, position: int) -> tuple[int, int]:
        place = self._place(position)
        epoch, offset = divmod(place, self.count)
        entry = int(self._order(epoch)[offset]) if self.shuffle else offset
        if self._rows is None or self._repeats is None:
            # An epoch hands out every row once, so that its number is the count of earlier visits.
            return entry, epoch
        row = int(self._rows[entry])
        return row, epoch * int(self._repeats[row]) + entry - int(self._first[row])

    def _place(self, position: int) -> int:
        first = self._end - len(self._left)
        return self._left[position - first] if first <= position < self._end else position

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if self._epoch != epoch:
            seed = self.seed * 1_000_003 + epoch
            order = torch.randperm(self.count, generator=torch.Generator().manual_seed(seed)).numpy()
            if self._blocks is not None:
                order = block_order(order, self._blocks, np.random.default_rng(seed))
            self._epoch, self._shuffled = epoch, order
        return self._shuffled

    def state(self) -> State:
        """The position in the stream, and the places before it that still come."""
        left = {"left": self._left, "end": self._end} if self._position < self._end else {}
        return {"position": self._position, **left}

    def restore(self, state: State) -> None:
        """Goes back to a position."""
        self._position = int(state["position"])
        self._left = [int(place) for place in state.get("left", ())]
        self._end = int(state.get("end", 0))

    def take_over(self, states: Sequence[State]) -> None:
        """Goes on where several processes stopped, of which each has taken its own number of rows.

        Rows that some have passed and others not come first. Two processes, of which the first took three rows and the
        second one, and what comes next::

            place       0  1  2  3  4  5  6  7
            taken by    0  1  0     0
            next                 3     5  6  7

        Args:
            states: of all of them, by rank.
        """
        positions = [int(state["position"]) for state in states]
        self.restore(max(states, key=lambda state: int(state.get("end", 0))))
        begin, end = min(positions), max(*positions, self._end)
        ranks = [number % len(states) for number in range(end - begin)]
        self._left = [
            self._place(begin + number) for number, rank in enumerate(ranks) if begin + number - rank >= positions[rank]
        ]
        self._end, self._position = end, end - len(self._left)


class BucketStream:
    """Batches of row numbers, each of one bucket, dealt out among processes.

    The visits of all epochs come in one order, that of :class:`IndexStream`. Each waits with others of its bucket until
    a batch is full. What is left of a bucket at the end of an epoch waits for the next one, so that every batch is full
    and no visit is lost. The processes take the batches in turn: all have equally many, of different shapes.

    Args:
        buckets: of each row.
        batch_size: rows of a batch.
        seed: seed of the shuffles; the same on all processes.
        rank: number of this process.
        world: number of processes.
        repeats: how often each row comes in an epoch, 1 or more; ``None``: once.
        blocks: of each row, which are shuffled one after another; ``None``: all rows are shuffled together.
    """

    def __init__(
        self,
        buckets: Sequence[Hashable],
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        repeats: Sequence[int] | None = None,
        blocks: Blocks | None = None,
    ) -> None:
        self.batch_size = batch_size
        self.rank = rank
        self.world = world
        self._buckets = buckets
        self._seed = seed
        self._repeats = repeats
        self._blocks = blocks
        self._start(0)

    def _start(self, position: int, before: Sequence[tuple[int, int]] = ()) -> None:
        """Goes to where all processes together have taken so many batches: from the beginning, as they wait.

        Args:
            position: batches of this size that were taken.
            before: sizes of the batches that were taken first, and how many of each, in this order.
        """
        self._position = position
        self._before = tuple(before)
        self._batches = self._all_batches()
        self._drawn: deque[list[tuple[int, int]]] = deque()
        """Batches of all processes that are known and not taken."""
        taken = position + sum(batches for _, batches in self._before)
        next(islice(self._batches, taken, taken), None)

    def _all_batches(self) -> Iterator[list[tuple[int, int]]]:
        visits = IndexStream(len(self._buckets), seed=self._seed, repeats=self._repeats, blocks=self._blocks)
        waiting: dict[Hashable, list[tuple[int, int]]] = {}
        before = [repeat(size, batches) for size, batches in self._before]
        for size in chain(*before, repeat(self.batch_size)):
            # Several may be full at once where batches become smaller.
            full = next((bucket for bucket, some in waiting.items() if len(some) >= size), None)
            while full is None:
                ((row, visit),) = visits.take_with_visits(1)
                some = waiting.setdefault(self._buckets[row], [])
                some.append((row, visit))
                full = self._buckets[row] if len(some) >= size else None
            batch, waiting[full] = waiting[full][:size], waiting[full][size:]
            yield batch

    def take_with_visits(self, number: int) -> list[tuple[int, int]]:
        """The next batch of this process: its row numbers, each with the number of its visit.

        Raises:
            ValueError: if ``number`` is not the size of a batch.
        """
        if number != self.batch_size:
            raise ValueError(f"batches hold {self.batch_size} rows, not {number}")
        self._draw(self.world)
        batches = [self._drawn.popleft() for _ in range(self.world)]
        self._position += self.world
        return batches[self.rank]

    def coming(self, number: int) -> list[tuple[int, int]]:
        """The next visits of this process, at least ``number``, in whole batches; nothing is taken."""
        turns = -(-number // self.batch_size)
        self._draw(turns * self.world)
        return [visit for turn in range(turns) for visit in self._drawn[turn * self.world + self.rank]]

    def _draw(self, batches: int) -> None:
        self._drawn.extend(islice(self._batches, max(0, batches - len(self._drawn))))

    @property
    def visits(self) -> float:
        """Epochs handed out so far, by all processes together; the visits that wait are not among them."""
        total = len(self._buckets) if self._repeats is None else sum(self._repeats)
        sizes = [*self._before, (self.batch_size, self._position)]
        return sum(size * batches for size, batches in sizes) / total

    def state(self) -> State:
        """The position in the stream of batches, and what was taken in batches of other sizes before."""
        return {"position": self._position} | (
            {"before": [list(part) for part in self._before]} if self._before else {}
        )

    def restore(self, state: State) -> None:
        """Goes back to a position."""
        self._start(int(state["position"]), [(int(size), int(batches)) for size, batches in state.get("before", ())])

    def take_over(self, states: Sequence[State], *, batch_size: int) -> None:
        """Goes on where several processes stopped, all at the same batch.

        Args:
            states: of all of them.
            batch_size: rows of their batches.
        """
        self.restore(states[0])
        if batch_size != self.batch_size:
            self._start(0, [*self._before, (batch_size, self._position)])
