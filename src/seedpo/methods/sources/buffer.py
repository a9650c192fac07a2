"""Pairs of roll-outs, waiting to be handed out in shuffled batches."""

from __future__ import annotations

from dataclasses import fields

import torch
from torch import Tensor

from seedpo.methods.sources.rolled import RolledPairs, join
from seedpo.protocols import State


class PairBuffer:
    """Pairs waiting to be trained on; they wait in the CPU's memory, wherever they were made.

    A pass over a roll-out is an order of its units, so that several passes hold no copy of the latents.

    Args:
        passes: how often each unit is handed out.
    """

    def __init__(self, *, passes: int) -> None:
        self.passes = passes
        self._pairs: RolledPairs | None = None
        self._queue: Tensor = torch.zeros(0, dtype=torch.int64)
        """Units in the order in which they are handed out."""

    def __len__(self) -> int:
        """Units that wait, every pass counted."""
        return len(self._queue)

    def prompts(self) -> tuple[str, ...]:
        """Prompts of what waits."""
        return () if self._pairs is None else self._pairs.prompts

    def fill(self, pairs: RolledPairs, *, generator: torch.Generator) -> None:
        """Adds a roll-out behind what is left of the last one, each pass shuffled by itself."""
        pairs = pairs.with_latents_on("cpu")
        self._drop_what_is_done()
        waiting = 0 if self._pairs is None else self._pairs.units()
        shuffled = [torch.randperm(pairs.units(), generator=generator) + waiting for _ in range(self.passes)]
        self._pairs = pairs if self._pairs is None else join([self._pairs, pairs])
        self._queue = torch.cat([self._queue, *shuffled])

    def take(self, count: int) -> RolledPairs:
        """The pairs of the next units; there must be as many."""
        pairs = self._pairs
        assert pairs is not None
        taken, self._queue = self._queue[:count], self._queue[count:]
        return pairs.select(torch.cat([(pairs.unit == unit).nonzero()[:, 0] for unit in taken]))

    def _drop_what_is_done(self) -> None:
        """Frees the memory of pairs that will not be handed out again."""
        if self._pairs is None:
            return
        waiting, self._queue = torch.unique(self._queue, return_inverse=True)
        rows = torch.isin(self._pairs.unit, waiting).nonzero()[:, 0]
        self._pairs = self._pairs.select(rows) if len(rows) else None

    def state(self) -> State:
        """What waits: latents, numbers and prompts, each once."""
        self._drop_what_is_done()
        if self._pairs is None:
            return {}
        values = {entry.name: getattr(self._pairs, entry.name) for entry in fields(self._pairs)}
        return {**values, "prompts": list(self._pairs.prompts), "queue": self._queue}

    def restore(self, state: State) -> None:
        """Takes back what :meth:`state` gave."""
        if not state:
            self._pairs, self._queue = None, torch.zeros(0, dtype=torch.int64)
            return
        values = {name: value for name, value in state.items() if name not in ("queue", "prompts")}
        self._pairs = RolledPairs(**values, prompts=tuple(state["prompts"]))
        self._queue = state["queue"]
