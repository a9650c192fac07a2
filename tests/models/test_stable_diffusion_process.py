"""What is read from a diffusers scheduler is what that scheduler does."""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
)

from seedpo.models.pipelines.stable_diffusion import diffusion_process

STABLE_DIFFUSION = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
}


def test_every_kind_of_ddim() -> None:
    predictions, spacings = ("epsilon", "v_prediction", "sample"), ("leading", "trailing", "linspace")
    for prediction_type, spacing, to_one in product(predictions, spacings, (True, False)):
        scheduler = DDIMScheduler(
            **STABLE_DIFFUSION,
            prediction_type=prediction_type,
            timestep_spacing=spacing,
            set_alpha_to_one=to_one,
            steps_offset=1,
            clip_sample=False,
        )
        process = diffusion_process(scheduler)
        assert torch.equal(process.alphas_cumprod, scheduler.alphas_cumprod)
        assert process.prediction_type == prediction_type
        assert process.clip_sample_range is None
        assert process.final_alpha_cumprod == (1.0 if to_one else float(scheduler.alphas_cumprod[0]))
        scheduler.set_timesteps(7)
        assert torch.equal(process.timesteps(7)[0], scheduler.timesteps), (prediction_type, spacing, to_one)


def test_noise_levels_of_other_schedules() -> None:
    changes: tuple[dict[str, Any], ...] = (
        {"beta_schedule": "linear", "num_train_timesteps": 200},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"},
    )
    for change in changes:
        scheduler = DDIMScheduler(**{**STABLE_DIFFUSION, **change})
        process = diffusion_process(scheduler)
        assert torch.equal(process.alphas_cumprod, scheduler.alphas_cumprod), change
        assert len(process) == scheduler.config.num_train_timesteps


def test_clipping_is_read() -> None:
    scheduler = DDIMScheduler(**STABLE_DIFFUSION, clip_sample=True, clip_sample_range=1.5)
    assert diffusion_process(scheduler).clip_sample_range == 1.5


def test_schedulers_of_published_checkpoints() -> None:
    """Their configurations come from other samplers; of those only DDPM's has `clip_sample`, true by default."""
    for kind in (DDPMScheduler, PNDMScheduler, EulerDiscreteScheduler, DPMSolverMultistepScheduler):
        changes = {"clip_sample": False} if kind is DDPMScheduler else {}
        scheduler = kind(**STABLE_DIFFUSION, prediction_type="v_prediction", **changes)
        process = diffusion_process(scheduler)
        assert torch.equal(process.alphas_cumprod, scheduler.alphas_cumprod), kind
        assert process.prediction_type == "v_prediction"
        assert process.clip_sample_range is None


def test_stable_diffusion_1_5() -> None:
    """The published file: a PNDM processr with keys of DDIM."""
    published = {
        "_class_name": "PNDMScheduler",
        **STABLE_DIFFUSION,
        "clip_sample": False,
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
        "trained_betas": None,
    }
    process = diffusion_process(PNDMScheduler.from_config(published))
    assert process.steps_offset == 1
    assert process.clip_sample_range is None
    assert process.final_alpha_cumprod == float(process.alphas_cumprod[0])
    assert process.timesteps(20)[0].tolist() == list(range(951, 0, -50))
