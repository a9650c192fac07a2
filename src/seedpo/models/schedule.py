"""The noise schedule that a diffusers scheduler stands for."""

from __future__ import annotations

from typing import Any

from diffusers import DDIMScheduler

from seedpo.core.diffusion import NoiseSchedule
from seedpo.errors import DataError


def noise_schedule(scheduler: Any) -> NoiseSchedule:
    """Reads the noise levels and the kind of prediction out of a diffusers scheduler of the DDPM family.

    Latents are clipped only where the configuration says so; a DDIM scheduler made from a configuration without that
    key (those of PNDM, Euler, DPM-Solver) would clip them.

    Raises:
        DataError: if the scheduler is of another family (EDM, flow matching), whose noise levels DDIM cannot follow.
    """
    if not hasattr(scheduler, "alphas_cumprod"):
        raise DataError(
            f"a model with {type(scheduler).__name__} cannot be trained: its noise levels are not those of DDPM; "
            "take a model of the Stable Diffusion 1, 2 or XL family"
        )
    ddim = DDIMScheduler.from_config(scheduler.config, clip_sample=scheduler.config.get("clip_sample", False))
    return NoiseSchedule(
        alphas_cumprod=ddim.alphas_cumprod,
        final_alpha_cumprod=float(ddim.final_alpha_cumprod),
        prediction_type=ddim.config.prediction_type,
        timestep_spacing=ddim.config.timestep_spacing,
        steps_offset=ddim.config.steps_offset,
        clip_sample_range=ddim.config.clip_sample_range if ddim.config.clip_sample else None,
    )
