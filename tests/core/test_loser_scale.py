"""Diffusion-SDPO's scale of the loser's gradient, arXiv 2511.03317."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from seedpo.core.loser_scale import LoserScale, with_scaled_gradient

Per = Literal["pair", "batch"]


def residuals(rows: int = 64, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Predictions less targets of winners and losers; some point the same way and some do not."""
    values = torch.randn(2, rows, 2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    winner, loser = values
    return winner, 2 * loser + torch.linspace(-1, 3, rows, dtype=torch.float64).view(-1, 1, 1, 1) * winner


@pytest.mark.parametrize("mu", [0.0, 0.6, 0.9, 1.0])
def test_is_the_published_formula_for_each_pair(mu: float) -> None:
    winner, loser = residuals()
    expected = []
    for one, other in zip(winner.numpy(), loser.numpy(), strict=True):
        overlap = float((one * other).sum())
        expected.append(np.clip((1 - mu) * (one**2).sum() / overlap, 0, 1) if overlap > 0 else 1.0)
    scale = LoserScale(mu=mu, per="pair").of(winner, loser)
    np.testing.assert_allclose(scale, expected, rtol=1e-12)
    assert float((scale == 1).double().mean()) < 0.9


def test_of_a_batch_is_one_scale_as_in_the_published_code() -> None:
    """A and B are means over a whole half of the micro-batch, and their gradients are compared as one vector."""
    winner, loser = residuals(rows=6, seed=1)
    prediction = torch.cat([winner, loser]).requires_grad_()
    chosen, rejected = prediction.chunk(2)
    (one,) = torch.autograd.grad(chosen.square().mean(), prediction, retain_graph=True)
    (other,) = torch.autograd.grad(rejected.square().mean(), prediction)
    one, other = one[:6].flatten(), other[6:].flatten()
    assert float(one @ other) > 0
    expected = min(0.4 * float(one @ one) / float(one @ other), 1.0)
    assert expected < 1
    scale = LoserScale(mu=0.6, per="batch").of(winner, loser)
    torch.testing.assert_close(scale, torch.full_like(scale, expected))


@pytest.mark.parametrize("per", ["pair", "batch"])
def test_opposed_gradients_and_errors_of_zero_are_left_alone(per: Per) -> None:
    winner, loser = residuals()
    rule = LoserScale(mu=0.9, per=per)
    assert rule.of(winner, -winner).tolist() == [1.0] * 64
    assert rule.of(0 * winner, loser).tolist() == [1.0] * 64
    assert rule.of(winner, 0 * loser).tolist() == [1.0] * 64


@pytest.mark.parametrize("mu", [0.0, 0.5, 0.9])
def test_the_winner_s_error_falls_to_first_order(mu: float) -> None:
    """-|g_w|^2 + lam g_w . g_l <= -mu |g_w|^2, and lam is the greatest that has it, up to 1."""
    winner, loser = (values.flatten(1) for values in residuals())
    scale = LoserScale(mu=mu, per="pair").of(*residuals())
    size, overlap = winner.square().sum(1), (winner * loser).sum(1)
    change = -size + scale * overlap
    assert bool((change <= -mu * size + 1e-9 * size).all())
    bound = scale < 1
    assert 0 < int(bound.sum()) < 64
    torch.testing.assert_close(change[bound], (-mu * size)[bound])
    unscaled = -size + overlap
    assert bool((unscaled > 0).any()), "without the scale some winners get worse"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_only_the_gradient_is_scaled(dtype: torch.dtype) -> None:
    values = torch.randn(9, dtype=dtype, generator=torch.Generator().manual_seed(2)).mul(1e4).requires_grad_()
    scale = torch.linspace(0, 1, 9, dtype=torch.float64)
    scaled = with_scaled_gradient(values, scale)
    assert torch.equal(scaled, values)
    (gradient,) = torch.autograd.grad(scaled.sum(), values)
    assert torch.equal(gradient, scale.to(dtype))
