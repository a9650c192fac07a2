"""A discrete world with a known optimum: pi* ~ pi_ref^{b/a} exp(r / a)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from seedpo.core.objectives import entropy_weights, see_loss

REWARD = torch.tensor([0.3, -0.4, 0.9, 0.0, -1.1, 0.5], dtype=torch.float64)
REFERENCE = torch.tensor([0.30, 0.25, 0.05, 0.20, 0.15, 0.05], dtype=torch.float64)

SETTINGS = [
    (0.5, 0.0, "relative"),
    (0.5, 1.0, "relative"),
    (0.2, 3.0, "relative"),
    (0.8, -0.4, "relative"),
    (0.5, 0.7, "absolute"),
    (0.8, -0.3, "absolute"),
]


def optimum(a: float, b: float) -> Tensor:
    return ((b / a) * REFERENCE.log() + REWARD / a).softmax(0)


def total_variation(first: Tensor, second: Tensor) -> float:
    return 0.5 * float((first - second).abs().sum())


def trained(a: float, b: float, *, winner_weight: Tensor | None = None) -> Tensor:
    """A softmax policy trained on all ordered pairs, each weighted by its Bradley-Terry probability of that label.

    Each pair is also weighted by ``winner_weight`` of its winner, (6,), if that is given.
    """
    chosen, rejected = torch.meshgrid(torch.arange(6), torch.arange(6), indexing="ij")
    pairs = chosen != rejected
    chosen, rejected = chosen[pairs], rejected[pairs]
    label = torch.sigmoid(REWARD[chosen] - REWARD[rejected])
    if winner_weight is not None:
        label = label * winner_weight[chosen]
    logits = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], lr=1.0, max_iter=200, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        policy, reference = logits.log_softmax(0), REFERENCE.log()
        output = see_loss(
            policy[chosen],
            policy[rejected],
            reference[chosen],
            reference[rejected],
            policy_weight=a,
            reference_weight=b,
        )
        loss = (label * output.losses).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    return logits.detach().softmax(0)


def objective(policy: Tensor, beta: float, gamma: float, convention: str) -> Tensor:
    """The entropy-regularised objective as it is stated, for policies (..., 6)."""
    divergence = (policy * (policy / REFERENCE).log()).sum(-1)
    entropy = -(policy * policy.log()).sum(-1)
    entropy_weight = beta * gamma if convention == "relative" else gamma
    return (policy * REWARD).sum(-1) - beta * divergence + entropy_weight * entropy


@pytest.mark.parametrize(("beta", "gamma", "convention"), SETTINGS)
def test_training_recovers_the_optimum(beta: float, gamma: float, convention: Any) -> None:
    a, b = entropy_weights(beta, gamma, convention=convention)
    assert total_variation(trained(a, b), optimum(a, b)) < 1e-3


@pytest.mark.parametrize(("beta", "gamma", "convention"), SETTINGS)
def test_it_is_the_optimum_of_the_stated_objective(beta: float, gamma: float, convention: Any) -> None:
    best = optimum(*entropy_weights(beta, gamma, convention=convention))
    generator = torch.Generator().manual_seed(0)
    for size in (1e-3, 0.1, 2.0):
        moved = (best.log() + size * torch.randn(500, 6, dtype=torch.float64, generator=generator)).softmax(-1)
        assert (objective(moved, beta, gamma, convention) < objective(best, beta, gamma, convention)).all()


def test_the_entropy_weight_moves_the_optimum_and_flattens_it() -> None:
    """Else the two tests above could not tell gamma from 0."""
    entropies = []
    for gamma in (-0.4, 0.0, 1.0, 3.0):
        policy = optimum(*entropy_weights(0.5, gamma, convention="relative"))
        entropies.append(-float((policy * policy.log()).sum()))
        if gamma != 0:
            assert total_variation(policy, optimum(0.5, 0.5)) > 0.02
    assert entropies == sorted(entropies)


def test_the_optimum_at_gamma_is_not_the_base_method_s_at_the_same_temperature() -> None:
    """The control run (base method at beta' = a) differs: it keeps the whole of the reference."""
    a, b = entropy_weights(0.5, 3.0, convention="relative")
    assert total_variation(optimum(a, b), optimum(a, a)) > 0.02
