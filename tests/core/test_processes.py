from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from seedpo.core.processes import PARAMETERISATIONS, DiffusionProcess, PredictionType, TimestepSpacing
from seedpo.core.transitions import gaussian_log_prob, over_latents
from tests.core.denoisers import small_process

PREDICTION_TYPES = get_args(PredictionType)
SPACINGS = get_args(TimestepSpacing)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


class TestDiffusionProcess:
    @pytest.mark.parametrize("spacing", SPACINGS)
    @pytest.mark.parametrize("offset", [0, 1])
    def test_grids_are_those_of_diffusers(self, spacing: Any, offset: int) -> None:
        theirs = DDIMScheduler(num_train_timesteps=1000, timestep_spacing=spacing, steps_offset=offset)
        ours = DiffusionProcess(alphas_cumprod=theirs.alphas_cumprod, timestep_spacing=spacing, steps_offset=offset)
        for count in (1, 2, 3, 4, 7, 20, 30, 50, 99, 333, 500, 999):
            theirs.set_timesteps(count)
            timesteps, previous = ours.timesteps(count)
            assert timesteps.dtype == previous.dtype == torch.int64
            assert torch.equal(timesteps, theirs.timesteps), count
            assert torch.equal(previous, theirs.timesteps - 1000 // count), count

    @pytest.mark.parametrize("spacing", SPACINGS)
    def test_always_as_many_steps_as_asked_for(self, spacing: Any) -> None:
        """diffusers' trailing grid has one step too many, time step -1, for N = 61 and some others."""
        schedule = DiffusionProcess(alphas_cumprod=torch.linspace(0.99, 0.01, 1000), timestep_spacing=spacing)
        for count in range(1, 1001):
            timesteps, previous = schedule.timesteps(count)
            assert len(timesteps) == len(previous) == count
            assert timesteps.min() >= 0
            assert (timesteps.diff() < 0).all()

    def test_the_usual_grid(self) -> None:
        schedule = DiffusionProcess(alphas_cumprod=torch.linspace(0.99, 0.01, 1000), steps_offset=1)
        timesteps, previous = schedule.timesteps(4)
        assert timesteps.tolist() == [751, 501, 251, 1]
        assert previous.tolist() == [501, 251, 1, -249]

    @pytest.mark.parametrize("count", [0, -1, 101])
    def test_refused_numbers_of_steps(self, count: int) -> None:
        with pytest.raises(ValueError, match=f"num_inference_steps = {count} must be from 1 to .* 100"):
            small_process().timesteps(count)

    def test_a_grid_that_starts_outside_is_refused(self) -> None:
        schedule = DiffusionProcess(alphas_cumprod=torch.linspace(0.99, 0.01, 100), steps_offset=1)
        with pytest.raises(ValueError, match="starts at time step 100, but the model has 100"):
            schedule.timesteps(100)

    def test_levels_of_rows_and_of_the_clean_image(self) -> None:
        schedule = DiffusionProcess(alphas_cumprod=torch.tensor([0.9, 0.5, 0.1]), final_alpha_cumprod=0.95)
        levels = schedule.alpha_cumprod(torch.tensor([2, 0, -1, -500, 1]))
        torch.testing.assert_close(levels, torch.tensor([0.1, 0.9, 0.95, 0.95, 0.5]))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"prediction_type": "flow_prediction"}, "prediction_type 'flow_prediction' is not one of"),
            ({"timestep_spacing": "even"}, "timestep_spacing 'even' is not one of"),
            ({"alphas_cumprod": torch.zeros(2, 2)}, r"shape \(T,\), not \(2, 2\)"),
            ({"alphas_cumprod": torch.zeros(0)}, r"shape \(T,\), not \(0,\)"),
        ],
    )
    def test_refused_schedules(self, change: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            DiffusionProcess(**({"alphas_cumprod": torch.tensor([0.9, 0.5])} | change))


def test_noise_is_added_as_in_diffusers() -> None:
    scheduler = DDIMScheduler()
    schedule = DiffusionProcess(alphas_cumprod=scheduler.alphas_cumprod)
    latents, noise = normal(3, 2, 4, 4).float(), normal(3, 2, 4, 4, seed=1).float()
    timestep = torch.tensor([0, 400, 999])
    torch.testing.assert_close(schedule.noisy(latents, noise, timestep), scheduler.add_noise(latents, noise, timestep))


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_a_perfect_prediction_gives_back_image_and_noise(prediction_type: Any) -> None:
    process = replace(small_process(torch.float64), prediction_type=prediction_type)
    latents, noise, timestep = normal(4, 2, 3, 3), normal(4, 2, 3, 3, seed=1), torch.tensor([0, 30, 60, 99])
    noisy, prediction = process.noisy(latents, noise, timestep), process.target(latents, noise, timestep)
    torch.testing.assert_close(process.clean(prediction, noisy, timestep), latents)
    level = over_latents(process.alpha_cumprod(timestep), noisy)
    torch.testing.assert_close(PARAMETERISATIONS[prediction_type].noise(prediction, noisy, level), noise)


def test_the_targets_of_the_prediction_types() -> None:
    latents, noise = normal(1, 1, 2, 2), normal(1, 1, 2, 2, seed=1)
    targets = {
        kind: DiffusionProcess(alphas_cumprod=torch.tensor([0.36], dtype=torch.float64), prediction_type=kind).target(
            latents, noise, torch.tensor([0])
        )
        for kind in PREDICTION_TYPES
    }
    assert torch.equal(targets["epsilon"], noise)
    assert torch.equal(targets["sample"], latents)
    torch.testing.assert_close(targets["v_prediction"], 0.6 * noise - 0.8 * latents)


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

    @pytest.mark.parametrize("spacing", SPACINGS)
    @pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
    def test_step(self, prediction_type: str, spacing: str) -> None:
        for eta, clip_sample, final_is_clean in itertools.product([0.0, 0.5, 1.0], [False, True], [False, True]):
            self.check_steps(prediction_type, spacing, eta, clip_sample, final_is_clean)

    @staticmethod
    def check_steps(prediction_type: str, spacing: str, eta: float, clip_sample: bool, final_is_clean: bool) -> None:
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
        prediction, latents = normal(9, 2, 3, 3, dtype=torch.float32), normal(9, 2, 3, 3, seed=1, dtype=torch.float32)
        noise = normal(9, 2, 3, 3, seed=2, dtype=torch.float32)
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
        prediction, latents = normal(1, 2, 3, 3, dtype=torch.float32), normal(1, 2, 3, 3, seed=1, dtype=torch.float32)
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


class TestDdimStep:
    def test_one_row_alone_is_the_row_in_a_batch(self) -> None:
        schedule = small_process()
        prediction, latents = normal(3, 1, 2, 2, dtype=torch.float32), normal(3, 1, 2, 2, seed=1, dtype=torch.float32)
        timestep, previous = torch.tensor([99, 50, 7]), torch.tensor([80, 30, -3])
        batch = schedule.step(prediction, latents, timestep, previous, eta=1.0)
        for row in range(3):
            rows = slice(row, row + 1)
            alone = schedule.step(prediction[rows], latents[rows], timestep[rows], previous[rows], eta=1.0)
            torch.testing.assert_close(alone.mean, batch[rows].mean)
            torch.testing.assert_close(alone.std, batch[rows].std)

    def test_half_precision_predictions_are_widened(self) -> None:
        step = small_process().step(
            normal(1, 1, 2, 2, dtype=torch.float32).bfloat16(),
            normal(1, 1, 2, 2, dtype=torch.float32),
            torch.tensor([50]),
            torch.tensor([30]),
            eta=1.0,
        )
        assert step.mean.dtype == step.std.dtype == torch.float32

    @pytest.mark.parametrize("eta", [-0.1, 1.1, math.nan])
    def test_refused_etas(self, eta: float) -> None:
        latents, timestep = normal(1, 1, 2, 2, dtype=torch.float32), torch.tensor([50])
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
