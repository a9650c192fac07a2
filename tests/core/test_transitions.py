from __future__ import annotations

import pytest
import torch
from torch import Tensor

from seedpo.core.objectives import see_loss
from seedpo.core.transitions import gaussian_log_prob, noise_log_prob


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


class TestGaussianLogProb:
    @pytest.mark.parametrize("rows", [1, 3])
    def test_is_the_density_summed_over_latents(self, rows: int) -> None:
        x, mean = normal(rows, 2, 3, 3, dtype=torch.float64), normal(rows, 2, 3, 3, seed=1, dtype=torch.float64)
        std = torch.linspace(0.2, 1.5, rows, dtype=torch.float64)
        wanted = torch.distributions.Normal(mean, std.view(-1, 1, 1, 1)).log_prob(x)
        torch.testing.assert_close(gaussian_log_prob(x, mean, std), wanted.sum((1, 2, 3)))

    def test_differences_of_large_sums_survive_float32_latents(self) -> None:
        """At 512 px a log-probability is about 2e4 nats; float32 sums would lose the difference below."""
        mean, noise = normal(2, 4, 64, 64), normal(2, 4, 64, 64, seed=1)
        std = torch.full((2,), 0.05)
        x = mean + 0.05 * noise
        nearby = mean + 1e-6 * noise
        found = gaussian_log_prob(x, nearby, std) - gaussian_log_prob(x, mean, std)
        wide = [value.double() for value in (x, nearby, mean, std)]
        wanted = gaussian_log_prob(wide[0], wide[1], wide[3]) - gaussian_log_prob(wide[0], wide[2], wide[3])
        assert found.dtype == torch.float64
        assert wanted.abs().max() < 1
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=0)

    def test_gradient_reaches_float32_means_in_float32(self) -> None:
        x, mean = normal(2, 1, 2, 2), normal(2, 1, 2, 2, seed=1).requires_grad_()
        gaussian_log_prob(x, mean, torch.tensor([0.5, 2.0])).sum().backward()
        assert mean.grad is not None
        wanted = (x - mean.detach()) / torch.tensor([0.25, 4.0]).view(-1, 1, 1, 1)
        torch.testing.assert_close(mean.grad, wanted)


class TestNoiseLogProb:
    def test_reductions(self) -> None:
        prediction, target = normal(3, 2, 3, 3), normal(3, 2, 3, 3, seed=1)
        squares = (target.double() - prediction.double()).square()
        torch.testing.assert_close(
            noise_log_prob(prediction, target, reduction="sum"), -0.5 * squares.sum((1, 2, 3)), rtol=1e-6, atol=0
        )
        torch.testing.assert_close(
            noise_log_prob(prediction, target, reduction="mean"), -0.5 * squares.mean((1, 2, 3)), rtol=1e-6, atol=0
        )

    def test_half_precision_is_widened_before_it_is_squared(self) -> None:
        prediction, target = normal(1, 2, 3, 3).bfloat16(), normal(1, 2, 3, 3, seed=1).bfloat16()
        wanted = noise_log_prob(prediction.double(), target.double(), reduction="mean")
        found = noise_log_prob(prediction, target, reduction="mean")
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=0)

    def test_mean_reduction_and_gamma_0_are_the_official_diffusion_dpo_loss(self) -> None:
        """The lines of the official script, on a batch that stacks chosen and rejected."""
        prediction, reference, target = (normal(8, 2, 3, 3, seed=seed) for seed in range(3))
        beta_dpo = 2.0
        model_losses_w, model_losses_l = (prediction - target).pow(2).mean(dim=[1, 2, 3]).chunk(2)
        ref_losses_w, ref_losses_l = (reference - target).pow(2).mean(dim=[1, 2, 3]).chunk(2)
        inside_term = -0.5 * beta_dpo * ((model_losses_w - model_losses_l) - (ref_losses_w - ref_losses_l))
        official = -torch.nn.functional.logsigmoid(inside_term)
        chosen, rejected = noise_log_prob(prediction, target, reduction="mean").chunk(2)
        chosen_reference, rejected_reference = noise_log_prob(reference, target, reduction="mean").chunk(2)
        ours = see_loss(
            chosen, rejected, chosen_reference, rejected_reference, policy_weight=beta_dpo, reference_weight=beta_dpo
        )
        torch.testing.assert_close(ours.losses.float(), official, rtol=1e-6, atol=1e-6)
