"""The entropy of the image distribution, its estimate from a prompt's samples, and what a bonus maximises."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from seedpo.core.objectives import entropy_weights
from seedpo.methods.sources.diversity import distances
from tests.invariants.test_toy_optimum import objective, optimum

EULER = 0.5772156649015329


def nearest_neighbour_entropy(points: Tensor) -> float:
    """Kozachenko and Leonenko: d mean log rho + log V_d + psi(N) - psi(1), in nats, of N points (N, d)."""
    count, d = points.shape
    apart = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(math.inf)
    ball = d / 2 * math.log(math.pi) - math.lgamma(d / 2 + 1)
    return float(d * apart.amin(1).log().mean() + ball + torch.digamma(torch.tensor(float(count))) + EULER)


@pytest.mark.parametrize(("d", "std"), [(1, 1.0), (2, 0.1), (3, 4.0)])
def test_the_estimate_is_the_entropy_of_a_gaussian(d: int, std: float) -> None:
    points = std * torch.randn(3000, d, dtype=torch.float64, generator=torch.Generator().manual_seed(d))
    expected = d / 2 * math.log(2 * math.pi * math.e * std**2)
    assert nearest_neighbour_entropy(points) == pytest.approx(expected, abs=0.12)


def test_the_bonus_is_the_estimate_up_to_constants() -> None:
    """(H - log V_d - psi(N) + psi(1)) / d is the mean ``log_nearest`` bonus, and log sqrt(pixels), at any spread."""
    shown = torch.rand(1, 12, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    d = 12
    mean_bonus = float(distances(shown, "log_nearest").mean())
    ball = d / 2 * math.log(math.pi) - math.lgamma(d / 2 + 1)
    constants = ball + float(torch.digamma(torch.tensor(12.0))) + EULER + d * math.log(math.sqrt(d))
    expected = nearest_neighbour_entropy(shown.flatten(2)[0].double())
    assert d * mean_bonus + constants == pytest.approx(expected, rel=1e-5)


def test_one_image_s_bonus_estimates_minus_its_log_density_over_d() -> None:
    """E[log rho | x] = -log p(x) / d + a constant: here d = 1, and p is 1.6 on the left half and 0.4 on the right."""
    generator = torch.Generator().manual_seed(0)
    side = (torch.rand(4000, 200, generator=generator, dtype=torch.float64) > 0.8).double()
    others = (torch.rand(4000, 200, generator=generator, dtype=torch.float64) + side) / 2
    found = [float((others - x).abs().amin(1).log().mean()) for x in (0.25, 0.75)]
    assert found[1] - found[0] == pytest.approx(-math.log(0.4 / 1.6), abs=4 * (2 * 1.65 / 4000) ** 0.5)
    constant = float(torch.digamma(torch.tensor(1.0)) - torch.digamma(torch.tensor(201.0))) - math.log(2)
    assert found[0] == pytest.approx(constant - math.log(1.6), abs=4 * (1.65 / 4000) ** 0.5)


def variation(functional: object, policy: Tensor) -> Tensor:
    """The derivative of a functional of a table of probabilities."""
    table = policy.clone().requires_grad_()
    functional(table).backward()  # type: ignore[operator]
    assert table.grad is not None
    return table.grad


POLICY = torch.tensor([0.4, 0.1, 0.2, 0.25, 0.05], dtype=torch.float64)


def test_the_first_variation_of_the_entropy_is_minus_log_p() -> None:
    """So that r - weight log p is what a step towards more of E[r] + weight H(p) makes more likely."""
    found = variation(lambda p: -(p * p.log()).sum(), POLICY)
    torch.testing.assert_close(found, -POLICY.log() - 1)


def test_the_first_variation_of_half_the_mean_distance_is_the_mean_distance_to_the_others() -> None:
    places = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    apart = torch.cdist(places, places)
    found = variation(lambda p: p @ apart @ p / 2, POLICY)
    torch.testing.assert_close(found, apart @ POLICY)


def test_the_mean_distance_of_samples_is_an_unbiased_estimate_of_it() -> None:
    """Over draws of k - 1 others, the ``mean`` bonus of an image is its mean distance to the distribution."""
    grey = torch.tensor([0.0, 0.2, 0.5, 0.6, 1.0])
    drawn = torch.multinomial(POLICY.float(), 3 * 4000, replacement=True, generator=torch.Generator().manual_seed(1))
    others = grey[drawn].view(4000, 3)
    for one, expected in zip(grey, torch.cdist(grey[:, None], grey[:, None]) @ POLICY.float(), strict=True):
        shown = torch.cat([one.expand(4000, 1), others], 1).view(4000, 4, 1, 1, 1).expand(-1, -1, 3, 2, 2)
        found = distances(shown.contiguous(), "mean")[:, 0]
        assert float(found.mean()) == pytest.approx(float(expected), abs=4 * float(found.std()) / 4000**0.5)


def test_an_entropy_bonus_on_images_is_the_absolute_convention() -> None:
    """max E[r] - beta KL + weight H over images has the optimum of gamma_absolute = weight."""
    beta, weight = 0.5, 0.7
    best = optimum(*entropy_weights(beta, weight, convention="absolute")).requires_grad_()
    objective(best, beta, weight, "absolute").backward()
    assert best.grad is not None
    torch.testing.assert_close(best.grad, best.grad.mean().expand_as(best.grad), msg="all slopes are the multiplier")
