"""An endless shuffled stream of row numbers that can be put back where it was."""

from __future__ import annotations

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
    """

    def __init__(self, count: int, *, seed: int, rank: int = 0, world: int = 1, shuffle: bool = True) -> None:
        self.count = count
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
        """The next row numbers of this process, each with how often the row was handed out before."""
        places = [self._position + self.rank + self.world * index for index in range(number)]
        self._position += self.world * number
        # An epoch hands out every row once, so that its number is the count of earlier visits.
        return [(self._row(place), place // self.count) for place in places]

    def _row(self, place: int) -> int:
        epoch, offset = divmod(place, self.count)
        return self._order(epoch)[offset] if self.shuffle else offset

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
