"""What is read from a diffusers scheduler is what that scheduler does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
)

from seedpo.models.stable_diffusion import diffusion_process

STABLE_DIFFUSION = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
}


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("timestep_spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("set_alpha_to_one", [True, False])
def test_every_kind_of_ddim(prediction_type: str, timestep_spacing: str, set_alpha_to_one: bool) -> None:
    scheduler = DDIMScheduler(
        **STABLE_DIFFUSION,
        prediction_type=prediction_type,
        timestep_spacing=timestep_spacing,
        set_alpha_to_one=set_alpha_to_one,
        steps_offset=1,
        clip_sample=False,
    )
    schedule = diffusion_process(scheduler)
    assert torch.equal(schedule.alphas_cumprod, scheduler.alphas_cumprod)
    assert schedule.prediction_type == prediction_type
    assert schedule.clip_sample_range is None
    assert schedule.final_alpha_cumprod == (1.0 if set_alpha_to_one else float(scheduler.alphas_cumprod[0]))
    scheduler.set_timesteps(7)
    assert torch.equal(schedule.timesteps(7)[0], scheduler.timesteps)


@pytest.mark.parametrize(
    "changes",
    [
        {"beta_schedule": "linear", "num_train_timesteps": 200},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"},
    ],
    ids=["linear", "cosine", "zero-snr"],
)
def test_noise_levels_of_other_schedules(changes: dict[str, Any]) -> None:
    scheduler = DDIMScheduler(**{**STABLE_DIFFUSION, **changes})
    schedule = diffusion_process(scheduler)
    assert torch.equal(schedule.alphas_cumprod, scheduler.alphas_cumprod)
    assert len(schedule) == scheduler.config.num_train_timesteps


def test_clipping_is_read() -> None:
    scheduler = DDIMScheduler(**STABLE_DIFFUSION, clip_sample=True, clip_sample_range=1.5)
    assert diffusion_process(scheduler).clip_sample_range == 1.5


@pytest.mark.parametrize("kind", [DDPMScheduler, PNDMScheduler, EulerDiscreteScheduler, DPMSolverMultistepScheduler])
def test_schedulers_of_published_checkpoints(kind: Any) -> None:
    """Their configurations come from other samplers; of those only DDPM's has `clip_sample`, true by default."""
    changes = {"clip_sample": False} if kind is DDPMScheduler else {}
    scheduler = kind(**STABLE_DIFFUSION, prediction_type="v_prediction", **changes)
    schedule = diffusion_process(scheduler)
    assert torch.equal(schedule.alphas_cumprod, scheduler.alphas_cumprod)
    assert schedule.prediction_type == "v_prediction"
    assert schedule.clip_sample_range is None


def test_stable_diffusion_1_5() -> None:
    """The published file: a PNDM scheduler with keys of DDIM."""
    published = {
        "_class_name": "PNDMScheduler",
        **STABLE_DIFFUSION,
        "clip_sample": False,
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
        "trained_betas": None,
    }
    schedule = diffusion_process(PNDMScheduler.from_config(published))
    assert schedule.steps_offset == 1
    assert schedule.clip_sample_range is None
    assert schedule.final_alpha_cumprod == float(schedule.alphas_cumprod[0])
    assert schedule.timesteps(20)[0].tolist() == list(range(951, 0, -50))
