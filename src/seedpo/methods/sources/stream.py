"""An endless shuffled stream of row numbers that can be put back where it was."""

from __future__ import annotations

from collections.abc import Sequence

import torch

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
    ) -> None:
        self._repeats = repeats
        # One entry for each visit in an epoch: the row, and which of its visits it is.
        turns = enumerate(repeats or ())
        self._entries = [(row, turn) for row, number in turns for turn in range(number)] or None
        self.count = count if self._entries is None else len(self._entries)
        self.seed = seed
        self.rank = rank
        self.world = world
        self.shuffle = shuffle
        self._position = 0
        """Rows that all processes together have taken."""

    def take(self, number: int) -> list[int]:
        """The next row numbers of this process."""
        return [row for row, _ in self.take_with_visits(number)]

    def take_with_visits(self, number: int) -> list[tuple[int, int]]:
        """The next row numbers of this process, each with the number of its visit.

        The visits of a row in an epoch are numbered in a row, whatever order they come in, so that none comes twice.
        """
        places = [self._position + self.rank + self.world * index for index in range(number)]
        self._position += self.world * number
        return [self._visit(place) for place in places]

    @property
    def visits(self) -> float:
        """Epochs handed out so far, by all processes together: how often each row was, but for its repeats."""
        return self._position / self.count

    def _visit(self, place: int) -> tuple[int, int]:
        epoch, offset = divmod(place, self.count)
        entry = self._order(epoch)[offset] if self.shuffle else offset
        if self._entries is None or self._repeats is None:
            # An epoch hands out every row once, so that its number is the count of earlier visits.
            return entry, epoch
        row, turn = self._entries[entry]
        return row, epoch * self._repeats[row] + turn

    def _order(self, epoch: int) -> list[int]:
        if getattr(self, "_epoch", None) != epoch:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            self._epoch, self._shuffled = epoch, torch.randperm(self.count, generator=generator).tolist()
        return self._shuffled

    def state(self) -> State:
        """The position in the stream."""
        return {"position": self._position}

    def restore(self, state: State) -> None:
        """Goes back to a position."""
        self._position = int(state["position"])
