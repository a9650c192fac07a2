from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from diffusers import DDIMScheduler

from seedpo.core.processes import PARAMETERISATIONS, DiffusionProcess, PredictionType, TimestepSpacing
from seedpo.core.transitions import over_latents
from tests.core.denoisers import small_process

PREDICTION_TYPES = get_args(PredictionType)
SPACINGS = get_args(TimestepSpacing)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


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
