"""Losses of a pair as functions of its margin, in one table; a new one is a function and a row.

m = a Delta log policy - b Delta log reference is the margin of implicit rewards (:mod:`seedpo.core.objectives`), with
the weights a and b of the entropy term. Each row says the loss if the first side is preferred, L(m). With probability p
that it is, the loss of a pair is the expectation p L(m) + (1 - p) L(-m). So a tie, p = 0.5, has a meaning for each: it
draws the margin towards 0 (sigmoid, IPO), or into [-1, 1] (hinge). Importing this imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from seedpo.core.entropy import clipped_margin


@dataclass(frozen=True, kw_only=True)
class PreferenceLoss:
    """One convex loss.

    Attributes:
        target: ``module:function`` of margins (B,) and b, the reference's weight, that gives losses (B,).
        value: the same of one number.
        best_margin: the margin at which it is least.
        source: where it was published.
    """

    target: str
    value: Callable[[float, float], float]
    best_margin: float
    source: str

    def function(self, margin: Any, beta: float) -> Any:
        """Losses (B,) of margins (B,), as tensors."""
        module, _, name = self.target.partition(":")
        return getattr(import_module(module), name)(margin, beta)

    def start_value(self, beta: float) -> float:
        """The loss at margin 0: of a run without the entropy term before its first step."""
        return self.value(0.0, beta)

    def bounds(self, largest_margin: float, beta: float) -> tuple[float, float]:
        """Least and greatest loss of pairs whose margin is in [-largest_margin, largest_margin]."""
        return self.value(min(self.best_margin, largest_margin), beta), self.value(-largest_margin, beta)


LOSSES = {
    "sigmoid": PreferenceLoss(
        target="seedpo.core.objectives:sigmoid_loss",
        value=lambda margin, beta: max(-margin, 0.0) + math.log1p(math.exp(-abs(margin))),
        best_margin=math.inf,
        source="arXiv 2305.18290",
    ),
    "ipo": PreferenceLoss(
        target="seedpo.core.objectives:ipo_loss",
        value=lambda margin, beta: float((margin / beta - 1 / (2 * beta)) ** 2),
        best_margin=0.5,
        source="arXiv 2310.12036",
    ),
    "hinge": PreferenceLoss(
        target="seedpo.core.objectives:hinge_loss",
        value=lambda margin, beta: max(0.0, 1 - margin),
        best_margin=1.0,
        source="arXiv 2305.10425",
    ),
}
"""By the value of the key ``loss``."""


def clipped_loss(policy_weight: float, clip_range: float, *, loss: str = "sigmoid") -> tuple[float, float]:
    """Least and greatest loss of a base method (gamma = 0) whose ratios are held in [1 - clip_range, 1 + clip_range].

    At beta = 0.1 and clip_range = 0.1, as published for D3PO, [0.683, 0.703]: such a loss looks flat, always.
    """
    return LOSSES[loss].bounds(clipped_margin(policy_weight, clip_range), policy_weight)
