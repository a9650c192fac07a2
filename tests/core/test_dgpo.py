from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seedpo.core.advantages import group_advantages
from seedpo.core.dgpo import dgpo_loss, group_margin, hold_clipped, is_held
from seedpo.core.entropy import entropy_weights
from seedpo.core.objectives import see_loss


def log_probs(groups: int, count: int, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    reference = -torch.rand(groups, count, generator=generator, dtype=torch.float64)
    policy = reference + 0.1 * torch.randn(groups, count, generator=generator, dtype=torch.float64)
    return policy.requires_grad_(), reference


@pytest.mark.parametrize("gamma", [0.0, 0.7])
@pytest.mark.parametrize("beta", [0.5, 40.0])
def test_for_two_images_the_gradient_is_dpo_s_divided_by_beta(beta: float, gamma: float) -> None:
    a, b = entropy_weights(beta, gamma, convention="relative")
    policy, reference = log_probs(6, 2)
    rewards = torch.tensor([[3.0, 1.0], [0.1, 0.2], [5.0, 4.9], [0.0, 9.0], [1.0, 0.0], [-3.0, -2.0]])
    advantages = group_advantages(rewards, normalise="std")
    assert advantages.abs().eq(1).all()
    margin = group_margin(policy, reference, advantages, policy_weight=a, reference_weight=b)
    (ours,) = torch.autograd.grad(dgpo_loss(margin, reference_weight=b).sum(), policy)
    best = rewards.argmax(1, keepdim=True)
    sides = [values.gather(1, place)[:, 0] for values in (policy, reference) for place in (best, 1 - best)]
    pair = see_loss(*sides, policy_weight=a, reference_weight=b)
    (dpo,) = torch.autograd.grad(pair.losses.sum(), policy)
    torch.testing.assert_close(ours, dpo / beta)
    torch.testing.assert_close(margin.detach(), pair.metrics["rewards/margins"])


@given(seed=st.integers(0, 1000), count=st.integers(2, 6), beta=st.floats(0.01, 100.0))
def test_the_gradient_in_closed_form(seed: int, count: int, beta: float) -> None:
    """sigma(S) A_i / G for the error e_i = -2 log p_i."""
    policy, reference = log_probs(3, count, seed=seed)
    advantages = group_advantages(torch.randn(3, count), normalise="std")
    margin = group_margin(policy, reference, advantages, policy_weight=beta, reference_weight=beta)
    (gradient,) = torch.autograd.grad(dgpo_loss(margin, reference_weight=beta).sum(), policy)
    s = beta / count * (advantages * (-2 * policy.detach() + 2 * reference)).sum(1, keepdim=True)
    torch.testing.assert_close(gradient, -2 * torch.sigmoid(s) * advantages / count)


def test_what_depends_on_the_prompt_alone_cancels() -> None:
    policy, reference = log_probs(4, 5)
    advantages = group_advantages(torch.randn(4, 5), normalise="mean")
    margins = [
        group_margin(policy + shift, reference, advantages, policy_weight=2.0, reference_weight=2.0)
        for shift in (0.0, torch.randn(4, 1, dtype=torch.float64))
    ]
    torch.testing.assert_close(*margins)


def test_at_the_start_every_group_has_log_2_over_beta() -> None:
    _, reference = log_probs(4, 5)
    margin = group_margin(reference, reference, torch.randn(4, 5), policy_weight=3.0, reference_weight=3.0)
    torch.testing.assert_close(dgpo_loss(margin, reference_weight=3.0), torch.full((4,), 2.0).double().log() / 3.0)


def test_clipping_holds_what_moved_far_enough_and_nothing_else() -> None:
    """Of a good image the error falls, of a bad one it rises: by 2 (log p - log reference)."""
    reference = torch.zeros(1, 6, dtype=torch.float64)
    policy = torch.tensor([[0.2, 0.01, -0.2, 0.2, -0.01, -0.2]], dtype=torch.float64).requires_grad_()
    advantages = torch.tensor([[1.0, 1.0, 1.0, -1.0, -1.0, -1.0]])
    held = is_held(policy, reference, advantages, clip_range=0.1)
    assert held.tolist() == [[True, False, False, False, False, True]]
    clipped = hold_clipped(policy, reference, advantages, clip_range=0.1)
    assert torch.equal(clipped.detach(), policy.detach())
    (gradient,) = torch.autograd.grad(clipped.sum(), policy)
    assert torch.equal(gradient, (~held).double())
