from __future__ import annotations

import pytest
import torch

from seedpo.core.kto import kto_baseline, kto_losses, kto_margin

LIKED = torch.tensor([True, False, True, False])


def test_the_baseline_is_the_mean_gain_and_never_below_0() -> None:
    assert kto_baseline(torch.tensor([1.0, 2.0, 6.0])).item() == pytest.approx(3.0)
    assert kto_baseline(torch.tensor([-1.0, -2.0])).item() == 0.0
    assert not kto_baseline(torch.ones(2, requires_grad=True)).requires_grad


def test_a_policy_that_is_the_reference_has_half_the_weight_as_loss() -> None:
    margin = kto_margin(torch.zeros(4), LIKED, baseline=torch.tensor(0.0))
    losses = kto_losses(margin, LIKED, liked_weight=1.6, disliked_weight=0.4)
    torch.testing.assert_close(losses, torch.tensor([0.8, 0.2, 0.8, 0.2]))


def test_liked_images_are_pulled_and_others_pushed() -> None:
    rewards = torch.tensor([0.5, 0.5, -2.0, -2.0], dtype=torch.float64, requires_grad=True)
    margin = kto_margin(rewards, LIKED, baseline=torch.tensor(0.25))
    assert margin.tolist() == [0.25, -0.25, -2.25, 2.25]
    kto_losses(margin, LIKED).sum().backward()
    h = torch.sigmoid(rewards.detach() - 0.25)
    torch.testing.assert_close(rewards.grad, torch.tensor([-1.0, 1.0, -1.0, 1.0]) * h * (1 - h))


def test_extreme_rewards_have_finite_losses_and_gradients() -> None:
    rewards = torch.tensor([-1e8, -1e8, 1e8, 1e8], requires_grad=True)
    losses = kto_losses(kto_margin(rewards, LIKED, baseline=kto_baseline(rewards)), LIKED)
    losses.sum().backward()
    assert losses.tolist() == [1.0, 0.0, 0.0, 1.0]
    assert rewards.grad is not None
    assert rewards.grad.isfinite().all()


def test_the_baseline_changes_no_gradient_of_its_own() -> None:
    """Q is a constant, although it is computed from the same rewards."""
    rewards = torch.tensor([1.0, 0.2, 0.4, 0.1], dtype=torch.float64, requires_grad=True)
    kto_losses(kto_margin(rewards, LIKED, baseline=kto_baseline(rewards)), LIKED).sum().backward()
    fixed = rewards.detach().clone().requires_grad_()
    kto_losses(kto_margin(fixed, LIKED, baseline=torch.tensor(0.425).double()), LIKED).sum().backward()
    torch.testing.assert_close(rewards.grad, fixed.grad)
