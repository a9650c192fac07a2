"""Advantages: how much better than the others of its group an image is, from the rewards of the group.

Torch and rewards of any scale in, numbers without unit out (but for ``mean`` and ``raw``). Every group is of one
prompt, so that a prompt whose images all score high teaches no more than another.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def group_advantages(rewards: Tensor, *, normalise: str) -> Tensor:
    """The advantage of every image of P groups of G.

        std:     (r - mean of the group) / deviation of the group           GRPO, arXiv 2402.03300
        pooled:  (r - mean of the group) / deviation of all P G rewards     Flow-GRPO's code, arXiv 2505.05470
        mean:     r - mean of the group                                     Dr. GRPO, arXiv 2503.20783
        raw:      r

    Deviations are the population's, without the published 1e-4 that is added to them: two images of different rewards
    have advantages 1 and -1, however little they differ. Where a deviation is 0, the advantages are 0.

    Args:
        rewards: (P, G), of any floating type.
        normalise: a name in :data:`NORMALISATIONS`.

    Returns:
        (P, G) float64 (float32 on devices without it).

    Raises:
        ValueError: if there is no such normalisation, or a group has fewer than two images.
    """
    if normalise not in NORMALISATIONS:
        raise ValueError(f"normalise = {normalise!r} is not one of {', '.join(NORMALISATIONS)}")
    if rewards.ndim != 2 or rewards.shape[1] < 2:
        raise ValueError(f"rewards have shape {tuple(rewards.shape)}; a group needs two images or more, (P, G)")
    wide = rewards.to(torch.float32 if rewards.device.type == "mps" else torch.float64)
    return NORMALISATIONS[normalise](wide)


def _centred(rewards: Tensor) -> Tensor:
    return rewards - rewards.mean(1, keepdim=True)


def _in_deviations(deviations: Tensor, rewards: Tensor) -> Tensor:
    # Equal rewards may differ from their mean by rounding, which a division by nearly 0 would blow up.
    equal = (rewards == rewards[:, :1]).all(1, keepdim=True) | (deviations == 0)
    return torch.where(equal, 0.0, _centred(rewards) / deviations)


NORMALISATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "std": lambda rewards: _in_deviations(rewards.std(1, keepdim=True, correction=0), rewards),
    "pooled": lambda rewards: _in_deviations(rewards.std(correction=0), rewards),
    "mean": _centred,
    "raw": lambda rewards: rewards,
}
"""By the value of the key ``groups.normalise``."""
