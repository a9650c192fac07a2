"""Other values of trained weights, which take their place while the network answers with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightCopy:
    """A copy of trained weights, in their own number format, which can be exchanged with them.

    Nothing is copied to exchange the two. Graphs of autograd keep the trained tensors, not their values, so that a
    backward pass must come when these are back in their place.

    Args:
        weights: gives the trained weights by name, always with the same names; the copy begins with their values.
    """

    def __init__(self, weights: Callable[[], Mapping[str, nn.Parameter]]) -> None:
        self._weights = weights
        self.values: dict[str, Tensor] = {name: value.detach().clone() for name, value in weights().items()}

    @torch.no_grad()
    def take(self) -> None:
        """The copy becomes the weights as they are now, in the memory that it has."""
        for name, weight in self._weights().items():
            self.values[name].copy_(weight)

    @torch.no_grad()
    def average(self, decay: float) -> None:
        """The copy becomes ``decay`` times itself plus ``1 - decay`` times the weights, tensor by tensor.

        Args:
            decay: in [0, 1].
        """
        for name, weight in self._weights().items():
            self.values[name] = self.values[name].to(weight.device).lerp_(weight.detach(), 1.0 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the trained tensors have the values of the copy; afterwards all is as before, bit for bit."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for name, weight in self._weights().items():
            weight.data, self.values[name] = self.values[name].to(weight.device), weight.data


def copied(weights: Callable[[], Mapping[str, nn.Parameter]], *, into: WeightCopy | None) -> WeightCopy:
    """A copy of the weights as they are now, in the memory of an older one if there is one."""
    if into is None:
        return WeightCopy(weights)
    into.take()
    return into


@contextmanager
def interpolated(
    weights: Callable[[], Mapping[str, nn.Parameter]], start: Mapping[str, Tensor], strength: float
) -> Iterator[None]:
    """Inside, each trained tensor is ``start + strength (trained - start)`` (arXiv 2109.01903); afterwards as before.

    Args:
        weights: gives the trained weights by name.
        start: what they were before training, by the same names.
        strength: 0 is the start, 1 the trained weights; values outside extrapolate.
    """
    between = WeightCopy(weights)
    for name, trained in between.values.items():
        between.values[name] = torch.lerp(start[name].detach().to(trained), trained, strength)
    with between.in_place():
        yield
