from __future__ import annotations

import pytest
import torch

from seedpo.core.dspo import dspo_losses
from seedpo.core.transitions import noise_log_prob


def predictions() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    policy, reference, target = torch.randn(3, 4, 2, 3, 3, generator=torch.Generator().manual_seed(0)).double()
    return policy.requires_grad_(), reference, target


@pytest.mark.parametrize("margin", [30.0, 3000.0])
def test_a_pair_that_is_learned_trains_as_the_diffusion_loss_does(margin: float) -> None:
    policy, reference, target = predictions()
    losses = dspo_losses(policy, reference, target, torch.full((4,), margin), beta=0.5, reduction="mean")
    torch.testing.assert_close(losses, -2 * noise_log_prob(policy, target, reduction="mean"))


def test_a_policy_that_is_the_reference_has_the_diffusion_loss_and_a_weaker_gradient() -> None:
    policy, _, target = predictions()
    margin = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    losses = dspo_losses(policy, policy.detach(), target, margin, beta=0.5, reduction="sum")
    losses.sum().backward()
    torch.testing.assert_close(losses, -2 * noise_log_prob(policy, target, reduction="sum"))
    # 2 (1 - beta sigma(0)) of the error; nothing passes through the margin.
    torch.testing.assert_close(policy.grad, 2 * (1 - 0.5 * 0.5) * (policy.detach() - target))
    assert margin.grad is not None
    assert not margin.grad.any()


def test_the_reference_gets_no_gradient_and_extreme_margins_stay_finite() -> None:
    policy, reference, target = predictions()
    reference.requires_grad_()
    margin = torch.tensor([-1e6, -50.0, 50.0, 1e6], dtype=torch.float64, requires_grad=True)
    dspo_losses(policy, reference, target, margin, beta=2.0, reduction="mean").sum().backward()
    assert reference.grad is None
    assert policy.grad is not None
    assert policy.grad.isfinite().all()
    assert margin.grad is not None
    assert margin.grad.isfinite().all()


def test_gradients_are_those_of_finite_differences() -> None:
    policy, reference, target = predictions()
    margin = torch.tensor([-1.0, 0.0, 0.5, 2.0], dtype=torch.float64, requires_grad=True)

    def losses(policy: torch.Tensor, margin: torch.Tensor) -> torch.Tensor:
        return dspo_losses(policy, reference, target, margin, beta=0.7, reduction="mean")

    assert torch.autograd.gradcheck(losses, (policy, margin))
