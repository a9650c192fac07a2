"""Consequences of the objective that docs/derivations.md works out and users are told to rely on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from seedpo.core.objectives import entropy_weights, implicit_reward, see_loss
from seedpo.core.processes import DiffusionProcess
from seedpo.core.transitions import noise_log_prob


def log_probs(seed: int, *, rows: int = 64, spread: float = 1.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randn(4, rows, generator=generator, dtype=torch.float64) * spread
    return draws[0], draws[1], draws[2], draws[3]


def test_the_entropy_of_a_step_has_no_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    schedule = DiffusionProcess(alphas_cumprod=torch.linspace(0.99, 0.01, 1000, dtype=torch.float64))
    latents = torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64)
    prediction = torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64).requires_grad_()
    step = schedule.step(prediction, latents, torch.tensor([900, 400]), torch.tensor([850, 350]), eta=1.0)
    assert step.mean.requires_grad
    assert not step.std.requires_grad


@pytest.mark.parametrize("gamma", [-0.5, 0.5, 3.0])
def test_only_the_offset_sets_the_loss_apart_from_its_control(gamma: float) -> None:
    chosen, rejected, chosen_reference, rejected_reference = log_probs(1)
    policy_weight, reference_weight = entropy_weights(0.7, gamma, convention="relative")

    def margin(reference_weight: float) -> Tensor:
        rewards = [
            implicit_reward(policy, reference, policy_weight=policy_weight, reference_weight=reference_weight)
            for policy, reference in ((chosen, chosen_reference), (rejected, rejected_reference))
        ]
        return rewards[0] - rewards[1]

    offset = (policy_weight - reference_weight) * (chosen_reference - rejected_reference)
    torch.testing.assert_close(margin(reference_weight) - margin(policy_weight), offset)


def test_clipping_confines_the_loss_of_d3po() -> None:
    weights = entropy_weights(0.1, 0.0, convention="relative")
    output = see_loss(
        *log_probs(2, rows=1000, spread=50.0), policy_weight=weights[0], reference_weight=weights[1], clip_range=0.1
    )
    assert 0.683 < output.losses.min().item() < 0.684
    assert 0.703 < output.losses.max().item() < 0.7033


def test_a_beta_on_the_mean_is_a_smaller_beta_on_the_sum() -> None:
    generator = torch.Generator().manual_seed(3)
    prediction, target = torch.randn(2, 5, 4, 8, 8, generator=generator, dtype=torch.float64)
    on_mean = 5000 * noise_log_prob(prediction, target, reduction="mean")
    on_sum = 5000 / (4 * 8 * 8) * noise_log_prob(prediction, target, reduction="sum")
    torch.testing.assert_close(on_mean, on_sum)
