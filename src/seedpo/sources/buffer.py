"""Pairs of one roll-out, handed out in shuffled batches."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch

from seedpo.core.types import Conditioning, TransitionPairs
from seedpo.protocols import State


class PairBuffer:
    """Pairs waiting to be trained on; they wait in the CPU's memory, wherever they were made.

    Args:
        passes: how often each pair is handed out.
    """

    def __init__(self, *, passes: int) -> None:
        self.passes = passes
        self._pairs: TransitionPairs | None = None

    def __len__(self) -> int:
        return 0 if self._pairs is None else len(self._pairs)

    def fill(self, pairs: TransitionPairs, *, generator: torch.Generator) -> None:
        """Adds a roll-out behind what is left of the last one, each pass shuffled by itself."""
        pairs = pairs.to("cpu")
        shuffled = [pairs[torch.randperm(len(pairs), generator=generator)] for _ in range(self.passes)]
        left = [] if self._pairs is None else [self._pairs]
        self._pairs = TransitionPairs.cat([*left, *shuffled])

    def take(self, count: int) -> TransitionPairs:
        """The next pairs; there must be as many."""
        assert self._pairs is not None
        batch, self._pairs = self._pairs[slice(None, count)], self._pairs[slice(count, None)]
        return batch

    def state(self) -> State:
        """The waiting pairs as tensors."""
        return {} if self._pairs is None else _tensors(self._pairs)

    def restore(self, state: State) -> None:
        """Takes back what :meth:`state` gave."""
        self._pairs = _pairs(state) if state else None


def _tensors(rows: TransitionPairs | Conditioning) -> State:
    values = {entry.name: getattr(rows, entry.name) for entry in fields(rows)}
    return {
        name: _tensors(value) if isinstance(value, Conditioning) else value
        for name, value in values.items()
        if value is not None
    }


def _pairs(state: State) -> TransitionPairs:
    rows: dict[str, Any] = {
        name: Conditioning(**value) if isinstance(value, dict) else value for name, value in state.items()
    }
    return TransitionPairs(**rows)
