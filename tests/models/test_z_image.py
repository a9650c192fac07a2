"""Z-Image: levels of the published schedulers, guidance in seedpo's convention, and the distilled Turbo."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler
from diffusers.pipelines.z_image.pipeline_z_image import calculate_shift, get_default_z_image_sigmas, retrieve_timesteps

from seedpo.errors import ConfigError, DataError
from seedpo.models.denoiser import PipelineDenoiser
from seedpo.models.families import family_of
from seedpo.models.policy import PipelinePolicy
from tests.models.qwen_pipelines import call, pipeline_of
from tests.models.test_qwen_families import some_latents
from tests.models.tiny import PROMPTS


@pytest.mark.parametrize("kind", ["z-image", "z-image-turbo"])
@pytest.mark.parametrize("size", [(512, 512), (1024, 1024), (768, 1344)])
@pytest.mark.parametrize("steps", [1, 8, 28, 50])
def test_levels_are_the_librarys(kind: str, size: tuple[int, int], steps: int) -> None:
    pipeline = pipeline_of(kind)
    pipeline.vae_scale_factor = 8
    process = family_of(pipeline).process(pipeline, size)
    mu = calculate_shift(size[0] * size[1] // 256)
    retrieve_timesteps(pipeline.scheduler, steps, "cpu", sigmas=get_default_z_image_sigmas(steps), mu=mu)
    levels, following = process.timesteps(steps)
    assert torch.equal(levels, pipeline.scheduler.sigmas[:-1])
    assert torch.equal(following, pipeline.scheduler.sigmas[1:])
    assert (following < levels).all()  # no step of length zero
    assert process.shift == {"z-image": 6.0, "z-image-turbo": 3.0}[kind]


def test_the_usual_guidance_is_one_more_than_the_pipelines() -> None:
    assert family_of(pipeline_of("z-image")).usual_guidance == 5.0 + 1


def test_turbo_draws_but_is_not_trained() -> None:
    with pytest.raises(ConfigError, match=r"must not be trained: shift = 3 .*train Z-Image"):
        PipelinePolicy(pipeline_of("z-image-turbo"), resolution=16)
    denoiser = PipelineDenoiser(pipeline_of("z-image-turbo"), resolution=16)
    assert "guidance" in str(denoiser.family.unguided(denoiser.pipeline))
    latents = some_latents(denoiser, 1, (16, 16))
    theirs, _ = call(pipeline_of("z-image-turbo"), [PROMPTS[0]], latents, scale=1.0, steps=1)
    velocity = denoiser.predict(latents, torch.ones(1), denoiser.encode_prompts([PROMPTS[0]]))
    torch.testing.assert_close(latents - velocity, theirs[0], rtol=1e-4, atol=1e-5)
    base = pipeline_of("z-image")
    assert family_of(base).unguided(base) is None


def test_schedulers_of_another_kind() -> None:
    with pytest.raises(DataError, match=r"use_dynamic_shifting"):
        PipelinePolicy(pipeline_of("z-image", use_dynamic_shifting=True), resolution=16)
    pipeline = pipeline_of("z-image")
    pipeline.scheduler = DDIMScheduler()
    with pytest.raises(DataError, match=r"DDIMScheduler"):
        PipelinePolicy(pipeline, resolution=16)
