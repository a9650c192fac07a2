"""An endless shuffled stream of row numbers that can be put back where it was."""

from __future__ import annotations

import torch

from seedpo.protocols import State


class IndexStream:
    """Row numbers 0 to count - 1, shuffled anew in every epoch, dealt out among processes.

    Args:
        count: number of rows.
        seed: seed of the shuffles; the same on all processes.
        rank: number of this process.
        world: number of processes.
    """

    def __init__(self, count: int, *, seed: int, rank: int = 0, world: int = 1) -> None:
        self.count = count
        self.seed = seed
        self.rank = rank
        self.world = world
        self._position = 0
        """Rows that all processes together have taken."""

    def take(self, number: int) -> list[int]:
        """The next row numbers of this process."""
        places = [self._position + self.rank + self.world * index for index in range(number)]
        self._position += self.world * number
        return [self._row(place) for place in places]

    def _row(self, place: int) -> int:
        epoch, offset = divmod(place, self.count)
        return self._order(epoch)[offset]

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
