"""Factors of the margin: SmPO's and PNAPO's by the gap, PNAPO's decay, SimpleTuner's automatic beta."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from seedpo.core.margin_scale import GapScale, beta_of_factor, decayed_beta


def test_smpo_as_its_code_computes_it() -> None:
    """10 (2 p - 1), p the softmax of cosines that were brought to [0, 1]; its scores span 0.16658."""
    low, high = 0.11543526500463486, 0.28201571106910706
    first, second = np.linspace(0.15, 0.28, 7), np.linspace(0.25, 0.12, 7)
    one, other = np.exp((first - low) / (high - low)), np.exp((second - low) / (high - low))
    expected = 10 * (2 * one / (one + other) - 1)
    scale = GapScale(strength=10.0, temperature=high - low).of(torch.from_numpy(first - second))
    np.testing.assert_allclose(scale, expected, rtol=1e-10, atol=1e-12)
    assert float(scale.min()) < 0 < float(scale.max())


def test_pnapo_s_sample_controller() -> None:
    """f = 2 sigma(gap) - 1, which rises to 1."""
    gaps = torch.tensor([0.0, 0.5, 3.0, 100.0], dtype=torch.float64)
    scale = GapScale(strength=1.0, temperature=1.0).of(gaps)
    torch.testing.assert_close(scale, 2 * gaps.sigmoid() - 1)
    assert scale[[0, 3]].tolist() == [0.0, 1.0]


def test_beta_falls_to_its_half_along_a_cosine() -> None:
    factors = [decayed_beta(updates, first=100, last=300) for updates in (0, 100, 150, 200, 250, 300, 9000)]
    half = 0.25 * math.sqrt(0.5)
    assert factors == pytest.approx([1.0, 1.0, 0.75 + half, 0.75, 0.75 - half, 0.5, 0.5])


@pytest.mark.parametrize("gradient_factor", [0.05, 0.2, 0.4])
@pytest.mark.parametrize("beta", [0.1, 1.0, 3.0])
def test_the_mean_pair_gets_the_weight_that_is_asked_for(gradient_factor: float, beta: float) -> None:
    """SimpleTuner: beta = -2 logit(target) / mean |margin of errors|, with logits = beta / 2 of that margin."""
    error_margin = 7.0
    published = -2 * math.log(gradient_factor / (1 - gradient_factor)) / error_margin
    factor = beta_of_factor(beta / 2 * error_margin, gradient_factor=gradient_factor, least=1e-6)
    assert factor * beta == pytest.approx(min(published, beta))
    margin = factor * beta / 2 * error_margin
    assert 1 / (1 + math.exp(margin)) == pytest.approx(
        max(gradient_factor, 1 / (1 + math.exp(beta / 2 * error_margin)))
    )


def test_the_factor_stays_between_its_bounds() -> None:
    assert beta_of_factor(0.0, gradient_factor=0.2, least=0.01) == 1.0
    assert beta_of_factor(1e9, gradient_factor=0.2, least=0.01) == 0.01
