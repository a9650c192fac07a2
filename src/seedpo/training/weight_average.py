"""An exponential moving average of trained weights (EMA), kept beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from seedpo.training.layout import shard_like, whole_tensor


def decay_at(step: int, *, decay: float) -> float:
    """Decay of update ``step``, from 1: 0 at the first, then min(decay, step / (step + 9)), as diffusers' EMAModel.

    The average of a short run is therefore not that of its untrained weights: after 90 updates the decay is at most
    0.909, after 1000 at most 0.991.
    """
    return 0.0 if step == 1 else min(decay, step / (step + 9))


@torch.no_grad()
def exchange(weights: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Swaps the contents of two sets of tensors, name by name; the tensors stay where they are."""
    for name, weight in weights.items():
        held = weight.detach().clone()
        weight.copy_(values[name])
        values[name].copy_(held)


@contextmanager
def exchanged(weights: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, ``weights`` hold ``values`` and the other way round; afterwards all is as before, bit for bit."""
    exchange(weights, values)
    try:
        yield
    finally:
        exchange(weights, values)


class WeightAverage:
    """average <- d average + (1 - d) weights after every update, with d of :func:`decay_at`.

    Where weights lie in shards, each process averages its own part.

    Args:
        weights: the trained weights, by name; the average starts from their present values.
        decay: largest decay, in (0, 1).
        start: whole tensors to start from instead, as a checkpoint holds them.
    """

    def __init__(self, weights: Mapping[str, Tensor], *, decay: float, start: Mapping[str, Tensor] | None = None):
        self._weights = weights
        self._decay = decay
        self.values = {
            name: weight.detach().clone() if start is None else _laid_out(start[name], weight)
            for name, weight in weights.items()
        }

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in the weights after update ``step``, from 1."""
        decay = decay_at(step, decay=self._decay)
        for name, value in self.values.items():
            value.mul_(decay).add_(self._weights[name].detach(), alpha=1.0 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the trained network answers with the average; every process must enter, before weights are joined."""
        with exchanged(self._weights, self.values):
            yield

    def whole_values(self) -> dict[str, Tensor]:
        """The average on the CPU, shards joined; every process must ask together."""
        return {name: whole_tensor(value).cpu().clone() for name, value in self.values.items()}


def _laid_out(value: Tensor, weight: Tensor) -> Tensor:
    return shard_like(value, weight) if isinstance(weight, DTensor) else value.to(weight.device, copy=True)
