"""Losses of a pair as functions of its margin, in one table; a new one is a function and a row.

m = a Delta log policy - b Delta log reference is the margin of implicit rewards (:mod:`seedpo.core.objectives`), with
the weights a and b of the entropy term. Each row says the loss if the first side is preferred, L(m). With probability p
that it is, the loss of a pair is the expectation p L(m) + (1 - p) L(-m). So a tie, p = 0.5, has a meaning for each: it
draws the margin towards 0, or into [-1, 1] (hinge). Importing this imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

from seedpo.core.entropy import clipped_margin

LINEAR_SLOPE = 0.4
"""By how much the weight of `linear` falls for each unit of the margin: 0.2 beta D of the published code is -0.4 m."""


@dataclass(frozen=True, kw_only=True)
class LossConstants:
    """Numbers that the losses of a pair read, each its own.

    Attributes:
        beta: weight of the reference, the scale of IPO's loss; above 0; of pairs that differ in it, (B,).
        linear_floor: least weight of `linear`, eta of arXiv 2605.21123; its greatest is 1 less this. In [0, 0.5).
        dmpo_smoothing: probability that the label is wrong, alpha of arXiv 2507.07510; in (0, 0.5).
    """

    beta: Any = 1.0
    linear_floor: float = 0.001
    dmpo_smoothing: float = 0.01

    @property
    def linear_reach(self) -> float:
        """The |margin| from which on the weight of `linear` is constant."""
        return (0.5 - self.linear_floor) / LINEAR_SLOPE

    @property
    def dmpo_margin(self) -> float:
        """The margin at which sigma(m) is the smoothed label of `dmpo`."""
        return math.log1p(-self.dmpo_smoothing) - math.log(self.dmpo_smoothing)


DEFAULT_CONSTANTS = LossConstants()


@dataclass(frozen=True, kw_only=True)
class PreferenceLoss:
    """One loss, which falls up to its best margin.

    Attributes:
        target: ``module:function`` of margins (B,) and :class:`LossConstants` that gives losses (B,).
        value: the same of one number.
        best_margin: the margin at which it is least.
        source: where it was published.
    """

    target: str
    value: Callable[[float, LossConstants], float]
    best_margin: Callable[[LossConstants], float]
    source: str

    def function(self, margin: Any, constants: LossConstants) -> Any:
        """Losses (B,) of margins (B,), as tensors."""
        module, _, name = self.target.partition(":")
        return getattr(import_module(module), name)(margin, constants)

    def start_value(self, constants: LossConstants) -> float:
        """The loss at margin 0: of a run without the entropy term before its first step."""
        return self.value(0.0, constants)

    def bounds(self, largest_margin: float, constants: LossConstants) -> tuple[float, float]:
        """Least and greatest loss of pairs whose margin is in [-largest_margin, largest_margin]."""
        best = min(self.best_margin(constants), largest_margin)
        return self.value(best, constants), self.value(-largest_margin, constants)


def _softplus(value: float) -> float:
    return max(value, 0.0) + math.log1p(math.exp(-abs(value)))


def _linear(margin: float, constants: LossConstants) -> float:
    reach = constants.linear_reach
    near = min(max(margin, -reach), reach)
    top = 0.5 / LINEAR_SLOPE
    return LINEAR_SLOPE / 2 * (top - near) ** 2 - LINEAR_SLOPE * (top - near) * (margin - near)


def _dmpo(margin: float, constants: LossConstants) -> float:
    wrong = constants.dmpo_smoothing
    log_likely, log_unlikely = -_softplus(-margin), -_softplus(margin)
    likely = math.exp(log_likely) * (log_likely - math.log1p(-wrong))
    return likely + math.exp(log_unlikely) * (log_unlikely - math.log(wrong))


LOSSES = {
    "sigmoid": PreferenceLoss(
        target="seedpo.core.objectives:sigmoid_loss",
        value=lambda margin, constants: _softplus(-margin),
        best_margin=lambda constants: math.inf,
        source="arXiv 2305.18290",
    ),
    "ipo": PreferenceLoss(
        target="seedpo.core.objectives:ipo_loss",
        value=lambda margin, constants: float((margin / constants.beta - 1 / (2 * constants.beta)) ** 2),
        best_margin=lambda constants: 0.5,
        source="arXiv 2310.12036",
    ),
    "hinge": PreferenceLoss(
        target="seedpo.core.objectives:hinge_loss",
        value=lambda margin, constants: max(0.0, 1 - margin),
        best_margin=lambda constants: 1.0,
        source="arXiv 2305.10425",
    ),
    "linear": PreferenceLoss(
        target="seedpo.core.objectives:linear_loss",
        value=_linear,
        best_margin=lambda constants: math.inf if constants.linear_floor else constants.linear_reach,
        source="arXiv 2605.21123",
    ),
    "dmpo": PreferenceLoss(
        target="seedpo.core.objectives:dmpo_loss",
        value=_dmpo,
        best_margin=lambda constants: constants.dmpo_margin,
        source="arXiv 2507.07510",
    ),
}
"""By the value of the key ``loss``."""


def clipped_loss(
    policy_weight: float, clip_range: float, *, loss: str = "sigmoid", constants: LossConstants = DEFAULT_CONSTANTS
) -> tuple[float, float]:
    """Least and greatest loss of a base method (gamma = 0) whose ratios are held in [1 - clip_range, 1 + clip_range].

    At beta = 0.1 and clip_range = 0.1, as published for D3PO, [0.683, 0.703]: such a loss looks flat, always.

    Args:
        policy_weight: beta, which is that of the constants, too.
        clip_range: in (0, 1).
        loss: name of the loss of a pair.
        constants: numbers of the losses.
    """
    constants = replace(constants, beta=policy_weight)
    return LOSSES[loss].bounds(clipped_margin(policy_weight, clip_range), constants)
