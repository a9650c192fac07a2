"""Qwen-Image: levels of the published scheduler at several sizes, guidance that keeps the length of tokens."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from diffusers.pipelines.qwenimage.pipeline_qwenimage import calculate_shift, retrieve_timesteps

from seedpo.errors import DataError
from seedpo.models.families import family_of
from seedpo.models.policy import PipelinePolicy
from tests.models.qwen_pipelines import SCHEDULERS, pipeline_of
from tests.models.tiny import seeded


@pytest.mark.parametrize("size", [(512, 512), (1024, 1024), (1328, 1328), (928, 1664)])
@pytest.mark.parametrize("steps", [2, 8, 28, 50])
def test_levels_are_the_librarys(size: tuple[int, int], steps: int) -> None:
    pipeline = pipeline_of("qwen-image")
    pipeline.vae_scale_factor = 8
    process = family_of(pipeline).process(pipeline, size)
    mu = calculate_shift(size[0] * size[1] // 256, 256, 8192, 0.5, 0.9)
    retrieve_timesteps(pipeline.scheduler, steps, "cpu", sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)
    levels, following = process.timesteps(steps)
    assert torch.equal(levels, pipeline.scheduler.sigmas[:-1])
    assert torch.equal(following, pipeline.scheduler.sigmas[1:])
    assert float(levels[-1]) == pytest.approx(SCHEDULERS["qwen-image"]["shift_terminal"], abs=1e-6)
    assert process.shift == pytest.approx(math.exp(mu))


def test_one_step_has_no_levels() -> None:
    """The library divides 0 by 0 there."""
    pipeline = pipeline_of("qwen-image")
    process = family_of(pipeline).process(pipeline, (16, 16))
    with pytest.raises(ValueError, match="two steps"):
        process.timesteps(1)


def test_guidance_keeps_the_length_of_every_token() -> None:
    pipeline = pipeline_of("qwen-image")
    process = family_of(pipeline).process(pipeline, (16, 24))
    negative, positive = (torch.randn(2, 4, 8, 12, generator=seeded(seed), dtype=torch.float64) for seed in (0, 1))
    guided = process.guided(negative, positive, 4.0)
    plain = negative + 4.0 * (positive - negative)
    for row in range(2):
        for top in range(0, 8, 2):
            for left in range(0, 12, 2):
                token = (row, slice(None), slice(top, top + 2), slice(left, left + 2))
                expected = plain[token] * positive[token].norm() / plain[token].norm()
                torch.testing.assert_close(guided[token], expected)


def test_the_usual_guidance_is_the_pipelines_true_one() -> None:
    assert family_of(pipeline_of("qwen-image")).usual_guidance == 4.0


def test_a_scheduler_that_does_not_shift_by_size() -> None:
    with pytest.raises(DataError, match=r"use_dynamic_shifting"):
        PipelinePolicy(pipeline_of("qwen-image", use_dynamic_shifting=False), resolution=16)
