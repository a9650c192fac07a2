from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor

from seedpo.core.sampling import Sampling
from seedpo.errors import ConfigError
from seedpo.models.denoiser import PipelineDenoiser
from seedpo.models.samplers import DDPM_SAMPLERS, denoise_with
from tests.models.tiny import PROMPTS, seeded, tiny_pipeline

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
"""The schedulers of diffusers hand tensors to numpy in an old way."""

NEGATIVE = "a small gray ring"

SETTINGS = Sampling(num_inference_steps=6, guidance_scale=2.5)


def generators() -> list[torch.Generator]:
    return [seeded(row + 10) for row in range(len(PROMPTS))]


def ours(denoiser: PipelineDenoiser, name: str | None, latents: Tensor) -> Tensor:
    denoise = denoise_with(denoiser, name, SETTINGS)
    positive, negative = denoiser.encode_prompts(PROMPTS), denoiser.encode_prompts([NEGATIVE] * len(PROMPTS))
    return denoise(latents, positive, negative, generators())


def of_diffusers(pipeline: Any, scheduler: Any, latents: Tensor) -> Tensor:
    """What the pipeline of diffusers draws with a scheduler."""
    pipeline.scheduler = scheduler
    drawn: Tensor = pipeline(
        list(PROMPTS),
        negative_prompt=[NEGATIVE] * len(PROMPTS),
        num_inference_steps=SETTINGS.num_inference_steps,
        guidance_scale=SETTINGS.guidance_scale,
        latents=latents.clone(),
        generator=generators(),
        output_type="latent",
    ).images
    return drawn


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("name", sorted(DDPM_SAMPLERS))
def test_latents_are_those_of_diffusers(name: str, prediction_type: str) -> None:
    pipeline = tiny_pipeline(prediction_type=prediction_type)
    denoiser = PipelineDenoiser(pipeline)
    latents = torch.randn(len(PROMPTS), *denoiser.latent_shape, generator=seeded())
    scheduler = DDPM_SAMPLERS[name].of(pipeline)
    torch.testing.assert_close(ours(denoiser, name, latents), of_diffusers(pipeline, scheduler, latents))


def test_a_sampler_begins_anew_each_time() -> None:
    denoiser = PipelineDenoiser(tiny_pipeline())
    latents = torch.randn(len(PROMPTS), *denoiser.latent_shape, generator=seeded())
    denoise = denoise_with(denoiser, "unipc", SETTINGS)
    positive, negative = denoiser.encode_prompts(PROMPTS), denoiser.encode_prompts([""] * len(PROMPTS))
    first = denoise(latents, positive, negative, generators())
    assert torch.equal(first, denoise(latents, positive, negative, generators()))


def test_the_own_sampler_is_ddim() -> None:
    pipeline = tiny_pipeline()
    denoiser = PipelineDenoiser(pipeline)
    latents = torch.randn(len(PROMPTS), *denoiser.latent_shape, generator=seeded())
    own = ours(denoiser, None, latents)
    assert torch.equal(own, ours(denoiser, "ddim", latents))
    torch.testing.assert_close(own, of_diffusers(pipeline, deepcopy(pipeline.scheduler), latents))


def test_an_unknown_sampler_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"unknown sampler 'eulr'; did you mean 'euler'.*ddim.*unipc"):
        denoise_with(PipelineDenoiser(tiny_pipeline()), "eulr", SETTINGS)


def test_more_steps_than_the_model_has_are_refused() -> None:
    with pytest.raises(ConfigError, match="2000 denoising steps do not fit"):
        denoise_with(PipelineDenoiser(tiny_pipeline()), None, Sampling(num_inference_steps=2000, guidance_scale=1.0))
