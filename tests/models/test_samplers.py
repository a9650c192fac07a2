from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor

from seedpo.core.sampling import Sampling
from seedpo.errors import ConfigError
from seedpo.models.denoiser import PipelineDenoiser
from seedpo.models.samplers import DDPM_SAMPLERS, FLOW_SAMPLERS, denoise_with
from tests.models.flow_pipelines import flow_pipeline
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


@pytest.mark.parametrize("name", sorted(FLOW_SAMPLERS.keys() - {"dpm++-sde"}))
def test_latents_of_a_flow_are_those_of_diffusers(name: str) -> None:
    pipeline = flow_pipeline("sd3")
    denoiser = PipelineDenoiser(pipeline)
    latents = torch.randn(len(PROMPTS), *denoiser.latent_shape, generator=seeded())
    drawn = ours(denoiser, name, latents)
    scheduler = FLOW_SAMPLERS[name].of(pipeline, denoiser.process)
    assert scheduler.config[FLOW_SAMPLERS[name].shift] == 3.0
    torch.testing.assert_close(drawn, of_diffusers(pipeline, scheduler, latents), atol=1e-5, rtol=1e-4)


def test_more_steps_of_any_sampler_of_a_flow_end_at_the_same_latents() -> None:
    """They solve one equation; with few steps they differ."""
    denoiser = PipelineDenoiser(flow_pipeline("sd3"))
    latents = torch.randn(1, *denoiser.latent_shape, generator=seeded())
    positive, negative = denoiser.encode_prompts(PROMPTS[:1]), denoiser.encode_prompts([NEGATIVE])
    ends = [
        denoise_with(denoiser, name, Sampling(num_inference_steps=60, guidance_scale=1.0))(
            latents, positive, negative, [seeded()]
        )
        for name in ("euler", "dpm++", "heun", "unipc")
    ]
    scale = (ends[0] - latents).std()
    for end in ends[1:]:
        assert (end - ends[0]).std() < 0.02 * scale


def test_noise_of_a_flow_comes_from_each_rows_own_generator() -> None:
    """diffusers' pipelines of flows hand no generator to the scheduler."""
    denoiser = PipelineDenoiser(flow_pipeline("sd3"))
    latents = torch.randn(len(PROMPTS), *denoiser.latent_shape, generator=seeded())
    denoise = denoise_with(denoiser, "dpm++-sde", SETTINGS)
    prompts = denoiser.encode_prompts(PROMPTS)
    first = denoise(latents, prompts, prompts, generators())
    assert torch.equal(first, denoise(latents, prompts, prompts, generators()))
    others = denoise(latents, prompts, prompts, [*generators()[:2], seeded(99)])
    torch.testing.assert_close(others[:2], first[:2])
    assert (others[2] - first[2]).abs().max() > 0.1


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


def test_a_flow_has_no_ddim() -> None:
    with pytest.raises(ConfigError, match=r"unknown sampler 'ddim'.*euler.*unipc"):
        denoise_with(PipelineDenoiser(flow_pipeline("sd3")), "ddim", SETTINGS)


def test_more_steps_than_the_model_has_are_refused() -> None:
    with pytest.raises(ConfigError, match="2000 denoising steps do not fit"):
        denoise_with(PipelineDenoiser(tiny_pipeline()), None, Sampling(num_inference_steps=2000, guidance_scale=1.0))
