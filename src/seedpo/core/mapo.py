r"""MaPO (arXiv 2406.06424): a margin of the policy's own errors, without a reference.

    L = e_w - beta log sigma( T [f(e_w) - f(e_l)] ),   f(e) = s e / (exp(s e) - 1)

e is the squared error of the prediction. f falls from 1 at e = 0 to 0: a bounded measure of how well an image fits. The
first term is the diffusion loss on preferred images; it takes the place of the distance from a reference.

    dL/de_w = 1 - beta T sigma(-m) f'(e_w),   dL/de_l = beta T sigma(-m) f'(e_l),   f' <= 0,   m = T [f(e_w) - f(e_l)]

Kept: the loss of the official code, with its s = 0.5, T = 1000 and beta = 0.1. Left out: its random flips of labels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

_NEAR = 1e-2
"""Scaled errors below it take the series around 0, which has no quotient of small numbers."""


def bounded_fit(error: Tensor, *, scale: float) -> Tensor:
    """The measure f = s e / (exp(s e) - 1), from 1 at e = 0 down to 0; finite, with finite gradient, for every error.

    Args:
        error: 0 or more, (B,).
        scale: s, above 0.
    """
    scaled = scale * error
    near, far = scaled.clamp(max=_NEAR), scaled.clamp(min=_NEAR)
    series = 1 - near / 2 + near.square() / 12 - near.pow(4) / 720
    # Written with exp(-x), which underflows to the limit 0 where exp(x) would overflow.
    return torch.where(scaled < _NEAR, series, -far * (-far).exp() / (-far).expm1())


def mapo_margin(chosen_error: Tensor, rejected_error: Tensor, *, scale: float, steps: float) -> Tensor:
    """The margins m = T [f(e_w) - f(e_l)], above 0 where the preferred image has the smaller error.

    Args:
        chosen_error: of the preferred images, (B,).
        rejected_error: of the others, (B,).
        scale: s of :func:`bounded_fit`.
        steps: T, above 0.
    """
    return steps * (bounded_fit(chosen_error, scale=scale) - bounded_fit(rejected_error, scale=scale))


def mapo_losses(chosen_error: Tensor, margin: Tensor, *, beta: float) -> Tensor:
    """The losses of pairs, (B,).

    Args:
        chosen_error: of the preferred images, (B,), with gradient.
        margin: :func:`mapo_margin`, (B,), with gradient.
        beta: weight of the margin, above 0.
    """
    return chosen_error - beta * logsigmoid(margin)
