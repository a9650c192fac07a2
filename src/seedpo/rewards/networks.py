"""A reward's network without weights, on torch's device ``meta``: what `seedpo plan` counts the cost of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class RewardNetwork:
    """The network of a reward on the device ``meta``, and the calls that scoring makes.

    Attributes:
        network: the network.
        images: runs what a number of images need; in a network that reads prompt and image together, the prompt too;
            `None` if no network reads images.
        prompts: runs what a number of prompts need, once for each prompt; `None` if there is no such part.
        latents: runs what noisy latents (B, ...) need; `None` if the reward reads images alone.
    """

    network: nn.Module
    images: Callable[[int], object] | None
    prompts: Callable[[int], object] | None = None
    latents: Callable[[Tensor], object] | None = None


NO_NETWORK = RewardNetwork(network=nn.Module(), images=None)
"""Of a reward that computes without a network."""


def on_meta(make: Callable[[], Any]) -> Any:
    """A frozen network without weights.

    Args:
        make: constructs the network.
    """
    with torch.device("meta"):
        network = make()
    return network.eval().requires_grad_(False)
