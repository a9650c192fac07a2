"""The presets are the published settings, and every one of them is a valid configuration."""

from __future__ import annotations

import pytest

from seedpo.methods.presets import METHODS
from seedpo.settings import build_config
from seedpo.training.settings import RunConfig


def test_the_three_methods() -> None:
    assert METHODS.names() == ["diffusion-dpo", "d3po", "spo"]
    joined = {name: (METHODS.load(name).objective, METHODS.load(name).source) for name in METHODS.names()}
    assert joined == {
        "diffusion-dpo": ("noise", "offline"),
        "d3po": ("transition", "trajectories"),
        "spo": ("transition", "steps"),
    }


@pytest.mark.parametrize(
    ("name", "beta", "clip_range"), [("diffusion-dpo", 2000.0, None), ("d3po", 0.1, 0.1), ("spo", 10.0, 0.1)]
)
def test_published_settings(name: str, beta: float, clip_range: float | None) -> None:
    config = build_config(RunConfig, METHODS.load(name).defaults, {"method": name})
    assert config.beta == beta
    assert config.clip_range == clip_range
    assert config.gamma == 0.0
    assert config.reduction == "mean"
    assert config.sampling.eta == 1.0
    assert config.sampling.num_inference_steps == 20
    assert config.sampling.guidance_scale == 5.0
    assert config.lora_rank == 4
    assert config.optimizer.weight_decay == 1e-4
    assert config.optimizer.max_grad_norm == 1.0
    assert METHODS.load(name).paper in METHODS[name].summary


def test_step_pool_of_spo() -> None:
    config = build_config(RunConfig, METHODS.load("spo").defaults)
    assert (config.steps.candidates, config.steps.plain_steps, config.steps.min_gap) == (4, 4, 0.3)
