from __future__ import annotations

import math
from typing import Any, get_args

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from seedpo.core.objectives import see_loss
from seedpo.core.processes import DiffusionProcess, PredictionType, TimestepSpacing
from seedpo.core.transitions import gaussian_log_prob, noise_log_prob
from tests.core.denoisers import small_process


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def scheduler_and_schedule(**config: Any) -> tuple[DDIMScheduler, DiffusionProcess]:
    """diffusers' scheduler with Stable Diffusion's betas, and ours."""
    theirs = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", **config)
    ours = DiffusionProcess(
        alphas_cumprod=theirs.alphas_cumprod,
        final_alpha_cumprod=float(theirs.final_alpha_cumprod),
        prediction_type=theirs.config.prediction_type,
        timestep_spacing=theirs.config.timestep_spacing,
        steps_offset=theirs.config.steps_offset,
        clip_sample_range=theirs.config.clip_sample_range if theirs.config.clip_sample else None,
    )
    return theirs, ours


class TestAgainstDiffusers:
    """Every step of a grid at once, one row each, against diffusers' scheduler step by step."""

    @pytest.mark.parametrize("clip_sample", [False, True])
    @pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
    @pytest.mark.parametrize("spacing", get_args(TimestepSpacing))
    @pytest.mark.parametrize("prediction_type", get_args(PredictionType))
    @pytest.mark.parametrize("final_is_clean", [False, True])
    def test_step(
        self, prediction_type: str, spacing: str, eta: float, clip_sample: bool, final_is_clean: bool
    ) -> None:
        theirs, ours = scheduler_and_schedule(
            prediction_type=prediction_type,
            timestep_spacing=spacing,
            clip_sample=clip_sample,
            clip_sample_range=0.8,
            set_alpha_to_one=final_is_clean,
            steps_offset=1,
        )
        theirs.set_timesteps(9)
        timesteps, previous = ours.timesteps(9)
        assert previous[-1] < 0
        prediction, latents = normal(9, 2, 3, 3), normal(9, 2, 3, 3, seed=1)
        noise = normal(9, 2, 3, 3, seed=2)
        step = ours.step(prediction, latents, timesteps, previous, eta=eta)
        drawn = step.mean + step.std.view(-1, 1, 1, 1) * noise
        for row, timestep in enumerate(timesteps.tolist()):
            for variance_noise, found in ((torch.zeros_like(noise[row]), step.mean[row]), (noise[row], drawn[row])):
                wanted, _ = theirs.step(
                    prediction[row], timestep, latents[row], eta=eta, variance_noise=variance_noise, return_dict=False
                )
                torch.testing.assert_close(found, wanted, rtol=2e-6, atol=2e-6)
            zeros, ones = torch.zeros(2), torch.ones(2)
            std, _ = theirs.step(zeros, timestep, zeros, eta=eta, variance_noise=ones, return_dict=False)
            torch.testing.assert_close(step.std[row], std[0] if eta > 0 else zeros[0], rtol=1e-6, atol=0)

    def test_zero_terminal_snr(self) -> None:
        """Its first step starts at pure noise; where diffusers' rounding gives NaN, ours is finite."""
        theirs, ours = scheduler_and_schedule(
            prediction_type="v_prediction", timestep_spacing="trailing", rescale_betas_zero_snr=True, clip_sample=False
        )
        assert ours.alphas_cumprod[-1] == 0
        prediction, latents = normal(1, 2, 3, 3), normal(1, 2, 3, 3, seed=1)
        for count in range(2, 60):
            theirs.set_timesteps(count)
            timesteps, previous = (steps[:1] for steps in ours.timesteps(count))
            step = ours.step(prediction, latents, timesteps, previous, eta=1.0)
            wanted, _ = theirs.step(
                prediction,
                int(timesteps),
                latents,
                eta=1.0,
                variance_noise=torch.zeros_like(latents),
                return_dict=False,
            )
            assert step.mean.isfinite().all()
            if wanted.isfinite().all():
                torch.testing.assert_close(step.mean, wanted, rtol=1e-5, atol=1e-3)


class TestDdimTransition:
    def test_one_row_alone_is_the_row_in_a_batch(self) -> None:
        schedule = small_process()
        prediction, latents = normal(3, 1, 2, 2), normal(3, 1, 2, 2, seed=1)
        timestep, previous = torch.tensor([99, 50, 7]), torch.tensor([80, 30, -3])
        batch = schedule.step(prediction, latents, timestep, previous, eta=1.0)
        for row in range(3):
            rows = slice(row, row + 1)
            alone = schedule.step(prediction[rows], latents[rows], timestep[rows], previous[rows], eta=1.0)
            torch.testing.assert_close(alone.mean, batch[rows].mean)
            torch.testing.assert_close(alone.std, batch[rows].std)

    def test_half_precision_predictions_are_widened(self) -> None:
        step = small_process().step(
            normal(1, 1, 2, 2).bfloat16(), normal(1, 1, 2, 2), torch.tensor([50]), torch.tensor([30]), eta=1.0
        )
        assert step.mean.dtype == step.std.dtype == torch.float32

    @pytest.mark.parametrize("eta", [-0.1, 1.1, math.nan])
    def test_refused_etas(self, eta: float) -> None:
        latents, timestep = normal(1, 1, 2, 2), torch.tensor([50])
        with pytest.raises(ValueError, match=r"eta = .* must be from 0"):
            small_process().step(latents, latents, timestep, timestep - 20, eta=eta)

    def test_gradcheck(self) -> None:
        schedule = small_process(torch.float64)
        latents, x = normal(2, 1, 2, 2, dtype=torch.float64), normal(2, 1, 2, 2, seed=1, dtype=torch.float64)
        timestep = torch.tensor([90, 40])

        def log_prob(prediction: Tensor) -> Tensor:
            step = schedule.step(prediction, latents, timestep, timestep - 20, eta=1.0)
            return gaussian_log_prob(x, step.mean, step.std)

        prediction = normal(2, 1, 2, 2, seed=2, dtype=torch.float64).requires_grad_()
        assert torch.autograd.gradcheck(log_prob, (prediction,))


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
