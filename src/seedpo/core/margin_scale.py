"""Factors of a pair's margin, which act like other betas: by the gap of two rewards, by progress, by past margins.

SmPO (arXiv 2506.02698) multiplies the margin of Diffusion-DPO by 2 alpha - gamma', with alpha = gamma' p and p the
probability that a reward prefers the winner; PNAPO (arXiv 2605.09433) multiplies beta by 2 sigma(gap) - 1. They are one
factor, c (2 sigma(gap / T) - 1) = c tanh(gap / (2 T)). PNAPO also halves beta in the course of a run, and SimpleTuner's
Flow-DPO sets beta so that the pairs keep the same weight in the gradient.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class GapScale:
    """c (2 p - 1) with p = sigma(gap / T), the probability that a reward prefers the first image.

    It is 0 where the reward prefers neither and negative where it prefers the second image: the pair is then trained on
    the other way round, since L(-|s| m) is the loss of the turned pair. So it is the reward that labels, as published.

    Attributes:
        strength: c, the factor of a pair without doubt; above 0.
        temperature: T, in the unit of the reward; above 0.
    """

    strength: float
    temperature: float

    def of(self, gap: Tensor) -> Tensor:
        """Factors (B,), in [-c, c], of gaps (B,): reward of the first image less that of the second."""
        return self.strength * (gap / (2 * self.temperature)).tanh()


def decayed_beta(updates: int, *, first: int, last: int) -> float:
    """Factor of beta after some updates: 1 until ``first``, 1/2 from ``last`` on, along a cosine between (PNAPO)."""
    if updates <= first:
        return 1.0
    if updates >= last:
        return 0.5
    return 0.75 + 0.25 * math.cos(math.pi * (updates - first) / (last - first))


def beta_of_factor(mean_margin: float, *, gradient_factor: float, least: float) -> float:
    """Factor of beta at which a pair of the mean margin has the weight sigma(-|m|) = ``gradient_factor``.

    Args:
        mean_margin: mean |m| at the beta that the factor multiplies, at least 0.
        gradient_factor: in (0, 0.5).
        least: least factor, in (0, 1].

    Returns:
        In [least, 1]: 1 as long as the margins are small enough.
    """
    wanted = math.log1p(-gradient_factor) - math.log(gradient_factor)
    return 1.0 if mean_margin <= wanted else max(wanted / mean_margin, least)
