from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from diffusers import DDIMScheduler

from seedpo.core.diffusion import (
    NoiseSchedule,
    PredictionType,
    TimestepSpacing,
    add_noise,
    guided_prediction,
    predicted_noise,
    predicted_original,
    prediction_target,
)
from tests.core.denoisers import Recorder, linear, prompts, small_schedule

PREDICTION_TYPES = get_args(PredictionType)
SPACINGS = get_args(TimestepSpacing)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class TestNoiseSchedule:
    @pytest.mark.parametrize("spacing", SPACINGS)
    @pytest.mark.parametrize("offset", [0, 1])
    def test_grids_are_those_of_diffusers(self, spacing: Any, offset: int) -> None:
        theirs = DDIMScheduler(num_train_timesteps=1000, timestep_spacing=spacing, steps_offset=offset)
        ours = NoiseSchedule(alphas_cumprod=theirs.alphas_cumprod, timestep_spacing=spacing, steps_offset=offset)
        for count in (1, 2, 3, 4, 7, 20, 30, 50, 99, 333, 500, 999):
            theirs.set_timesteps(count)
            timesteps, previous = ours.timesteps(count)
            assert timesteps.dtype == previous.dtype == torch.int64
            assert torch.equal(timesteps, theirs.timesteps), count
            assert torch.equal(previous, theirs.timesteps - 1000 // count), count

    @pytest.mark.parametrize("spacing", SPACINGS)
    def test_always_as_many_steps_as_asked_for(self, spacing: Any) -> None:
        """diffusers' trailing grid has one step too many, time step -1, for N = 61 and some others."""
        schedule = NoiseSchedule(alphas_cumprod=torch.linspace(0.99, 0.01, 1000), timestep_spacing=spacing)
        for count in range(1, 1001):
            timesteps, previous = schedule.timesteps(count)
            assert len(timesteps) == len(previous) == count
            assert timesteps.min() >= 0
            assert (timesteps.diff() < 0).all()

    def test_the_usual_grid(self) -> None:
        schedule = NoiseSchedule(alphas_cumprod=torch.linspace(0.99, 0.01, 1000), steps_offset=1)
        timesteps, previous = schedule.timesteps(4)
        assert timesteps.tolist() == [751, 501, 251, 1]
        assert previous.tolist() == [501, 251, 1, -249]

    @pytest.mark.parametrize("count", [0, -1, 101])
    def test_refused_numbers_of_steps(self, count: int) -> None:
        with pytest.raises(ValueError, match=f"num_inference_steps = {count} must be from 1 to .* 100"):
            small_schedule().timesteps(count)

    def test_a_grid_that_starts_outside_is_refused(self) -> None:
        schedule = NoiseSchedule(alphas_cumprod=torch.linspace(0.99, 0.01, 100), steps_offset=1)
        with pytest.raises(ValueError, match="starts at time step 100, but the model has 100"):
            schedule.timesteps(100)

    def test_levels_of_rows_and_of_the_clean_image(self) -> None:
        schedule = NoiseSchedule(alphas_cumprod=torch.tensor([0.9, 0.5, 0.1]), final_alpha_cumprod=0.95)
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
            NoiseSchedule(**({"alphas_cumprod": torch.tensor([0.9, 0.5])} | change))


def test_noise_is_added_as_in_diffusers() -> None:
    scheduler = DDIMScheduler()
    schedule = NoiseSchedule(alphas_cumprod=scheduler.alphas_cumprod)
    latents, noise = normal(3, 2, 4, 4).float(), normal(3, 2, 4, 4, seed=1).float()
    timestep = torch.tensor([0, 400, 999])
    torch.testing.assert_close(
        add_noise(latents, noise, timestep, schedule), scheduler.add_noise(latents, noise, timestep)
    )


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_a_perfect_prediction_gives_back_image_and_noise(prediction_type: Any) -> None:
    schedule = small_schedule(torch.float64)
    latents, noise, timestep = normal(4, 2, 3, 3), normal(4, 2, 3, 3, seed=1), torch.tensor([0, 30, 60, 99])
    level = schedule.alpha_cumprod(timestep)
    noisy = add_noise(latents, noise, timestep, schedule)
    prediction = prediction_target(latents, noise, level, prediction_type)
    torch.testing.assert_close(predicted_original(prediction, noisy, level, prediction_type), latents)
    torch.testing.assert_close(predicted_noise(prediction, noisy, level, prediction_type), noise)


def test_the_targets_of_the_prediction_types() -> None:
    latents, noise = normal(1, 1, 2, 2), normal(1, 1, 2, 2, seed=1)
    level = torch.tensor([0.36], dtype=torch.float64)
    assert torch.equal(prediction_target(latents, noise, level, "epsilon"), noise)
    assert torch.equal(prediction_target(latents, noise, level, "sample"), latents)
    torch.testing.assert_close(prediction_target(latents, noise, level, "v_prediction"), 0.6 * noise - 0.8 * latents)


class TestGuidance:
    def test_one_call_with_the_negative_prompts_first(self) -> None:
        predict, latents, timestep = Recorder(), normal(2, 1, 2, 2), torch.tensor([3, 5])
        guided = guided_prediction(predict, latents, timestep, prompts(0.5, 0.7), prompts(0.1, 0.2), 5.0)
        ((asked, steps, conditioning),) = predict.calls
        assert torch.equal(asked, torch.cat([latents, latents]))
        assert steps.tolist() == [3, 5, 3, 5]
        assert conditioning.prompt_embeds[:, 0, 0].tolist() == pytest.approx([0.1, 0.2, 0.5, 0.7])
        negative = linear(latents, timestep, prompts(0.1, 0.2))
        positive = linear(latents, timestep, prompts(0.5, 0.7))
        torch.testing.assert_close(guided, negative + 5 * (positive - negative))

    def test_scale_1_asks_for_the_prompts_alone(self) -> None:
        predict, latents, timestep = Recorder(), normal(2, 1, 2, 2), torch.tensor([3, 5])
        guided = guided_prediction(predict, latents, timestep, prompts(0.5, 0.7), None, 1.0)
        assert [len(call[0]) for call in predict.calls] == [2]
        assert torch.equal(guided, linear(latents, timestep, prompts(0.5, 0.7)))

    def test_scale_0_is_the_negative_prompt(self) -> None:
        latents, timestep = normal(1, 1, 2, 2), torch.tensor([3])
        guided = guided_prediction(linear, latents, timestep, prompts(0.5), prompts(0.1), 0.0)
        torch.testing.assert_close(guided, linear(latents, timestep, prompts(0.1)))

    def test_guidance_without_negative_prompts_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"guidance_scale = 5.0 needs negative_conditioning"):
            guided_prediction(linear, normal(1, 1, 2, 2), torch.tensor([3]), prompts(0.5), None, 5.0)
