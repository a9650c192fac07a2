"""How much of the loser's gradient is kept, so that the winner gets no worse: Diffusion-SDPO (arXiv 2511.03317).

The gradient of a pair pulls the winner's error down along g_w and pushes the loser's up along g_l. To first order the
winner's error changes by -|g_w|^2 + lam g_w . g_l, and it falls by mu |g_w|^2 at least if

    lam <= (1 - mu) |g_w|^2 / (g_w . g_l)    where g_w . g_l > 0, else any lam does.

The gradients are taken at the network's output, where g = 2 (prediction - target) / D: no more is computed than two
sums. There the bound is exact; of the weights it is only if the network's Jacobian is the same for both images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from seedpo.core.transitions import widest_dtype

LOSER_SCALE_MU = 0.9
"""Published for SD1.5."""


@dataclass(frozen=True, kw_only=True)
class LoserScale:
    """The greatest scale in [0, 1] that keeps the winner's error from rising.

    Attributes:
        mu: share of its fall that the winner keeps at least, in [0, 1]; 1 leaves a loser no gradient that opposes it.
        per: ``pair``: one scale for each pair. ``batch``: one for all pairs of a call, of the sums over them, as the
            published code has it; it depends on the size of the micro-batch.
    """

    mu: float
    per: Literal["pair", "batch"]

    @torch.no_grad()
    def of(self, winner: Tensor, loser: Tensor) -> Tensor:
        """The scale lam of each pair.

        Args:
            winner: prediction less target of the images that the loss pulls to, (B, ...).
            loser: the same of the others, (B, ...).

        Returns:
            (B,), in [0, 1], of the widest type of the device.
        """
        wide = widest_dtype(winner.device)
        size = winner.square().flatten(1).sum(1, dtype=wide)
        overlap = (winner * loser).flatten(1).sum(1, dtype=wide)
        if self.per == "batch":
            size, overlap = (values.sum().expand_as(values) for values in (size, overlap))
        return torch.where(overlap > 0, (1 - self.mu) * size / overlap, torch.ones_like(size)).clamp(max=1.0)


def with_scaled_gradient(values: Tensor, scale: Tensor) -> Tensor:
    """The same values (B,), bit for bit, whose gradient is ``scale`` (B,) times as large."""
    constant = values.detach()
    return constant + scale.to(values) * (values - constant)
