"""From the two stated objectives to the loss, formula by formula: docs/derivations.md, sections 1 to 4."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from seedpo.core.objectives import entropy_weights, implicit_reward, see_loss
from tests.invariants.test_toy_optimum import REFERENCE, REWARD, SETTINGS, objective, optimum


def policies(count: int = 50) -> Tensor:
    return torch.randn(count, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).softmax(-1)


@pytest.mark.parametrize(("beta", "gamma", "convention"), SETTINGS)
def test_both_objectives_are_one_with_two_weights(beta: float, gamma: float, convention: Any) -> None:
    """E[r] + b E[log pi_ref] - a E[log pi]."""
    a, b = entropy_weights(beta, gamma, convention=convention)
    policy = policies()
    one = (policy * (REWARD + b * REFERENCE.log() - a * policy.log())).sum(-1)
    torch.testing.assert_close(one, objective(policy, beta, gamma, convention))


@pytest.mark.parametrize(("beta", "gamma", "convention"), SETTINGS)
def test_the_objective_is_concave(beta: float, gamma: float, convention: Any) -> None:
    """Halfway between two policies it is above the mean of both, since a is above 0."""
    one, other = policies().chunk(2)
    ends = (objective(one, beta, gamma, convention) + objective(other, beta, gamma, convention)) / 2
    assert (objective((one + other) / 2, beta, gamma, convention) > ends).all()


@pytest.mark.parametrize(("beta", "gamma", "convention"), SETTINGS)
def test_the_slope_at_the_optimum_is_the_same_in_every_direction(beta: float, gamma: float, convention: Any) -> None:
    """r + b log pi_ref - a log pi* - a is one number, the multiplier: a log Z - a."""
    a, b = entropy_weights(beta, gamma, convention=convention)
    slope = REWARD + b * REFERENCE.log() - a * optimum(a, b).log() - a
    multiplier = a * ((b / a) * REFERENCE.log() + REWARD / a).logsumexp(0) - a
    torch.testing.assert_close(slope, multiplier.expand_as(slope))


@pytest.mark.parametrize(("beta", "gamma", "convention"), SETTINGS)
def test_the_optimum_s_implicit_reward_is_the_reward(beta: float, gamma: float, convention: Any) -> None:
    """r = a log pi* - b log pi_ref + a log Z, so that differences of the implicit reward are those of r."""
    a, b = entropy_weights(beta, gamma, convention=convention)
    found = implicit_reward(optimum(a, b).log(), REFERENCE.log(), policy_weight=a, reference_weight=b)
    log_z = ((b / a) * REFERENCE.log() + REWARD / a).logsumexp(0)
    torch.testing.assert_close(found + a * log_z, REWARD)


def test_the_loss_is_the_bradley_terry_likelihood_of_the_label() -> None:
    """At the optimum, -log sigma(Delta r): the negative log-probability that the label is what it is."""
    a, b = entropy_weights(0.5, 1.0, convention="relative")
    best, first, second = optimum(a, b).log(), torch.tensor([0, 2, 5]), torch.tensor([4, 1, 3])
    reference = REFERENCE.log()
    output = see_loss(
        best[first], best[second], reference[first], reference[second], policy_weight=a, reference_weight=b
    )
    torch.testing.assert_close(output.losses, -torch.sigmoid(REWARD[first] - REWARD[second]).log())


def test_gamma_0_is_dpo_s_optimum() -> None:
    a, b = entropy_weights(0.5, 0.0, convention="relative")
    dpo = REFERENCE * (REWARD / 0.5).exp()
    torch.testing.assert_close(optimum(a, b), dpo / dpo.sum())


@pytest.mark.parametrize(("beta", "gamma"), [(0.1, 3.0), (500.0, 3.0), (0.1, 0.5)])
def test_the_reference_s_exponent_depends_on_relative_gamma_alone(beta: float, gamma: float) -> None:
    a, b = entropy_weights(beta, gamma, convention="relative")
    assert b / a == pytest.approx(1 / (1 + gamma))


def test_the_entropy_of_a_step_in_closed_form() -> None:
    """(D / 2) log(2 pi e std^2): no mean in it."""
    std, dimensions = 0.3, 12
    normal = torch.distributions.Normal(torch.randn(dimensions, dtype=torch.float64), std)
    assert float(normal.entropy().sum()) == pytest.approx(dimensions / 2 * math.log(2 * math.pi * math.e * std**2))


@pytest.mark.parametrize("margin", [-4.0, -1.0, 0.5, 3.0])
def test_a_winner_unlikely_under_the_reference_weighs_more(margin: float) -> None:
    """The pair's weight a sigma(-m) falls as Delta log pi_ref rises, at one and the same log-ratio."""
    weights = []
    for log_reference in (-2.0, 0.0, 2.0):
        chosen = torch.tensor([margin + log_reference], dtype=torch.float64, requires_grad=True)
        zero = torch.zeros(1, dtype=torch.float64)
        see_loss(
            chosen, zero, torch.tensor([log_reference]).double(), zero, policy_weight=2.0, reference_weight=1.0
        ).losses.sum().backward()
        assert chosen.grad is not None
        weights.append(-float(chosen.grad))
    assert weights == sorted(weights, reverse=True)
    assert weights[0] > weights[2]
