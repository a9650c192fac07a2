"""Another process and another kind of latents pass through objectives, sources, draws and previews as they are."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from seedpo.core.draws import KeyedDraws
from seedpo.core.sampling import Sampler, Sampling
from seedpo.core.types import ImagePairs, StepBatch
from seedpo.methods.noise_dpo import NoiseDPO
from seedpo.methods.settings import SamplingConfig, StepPoolConfig, TrajectoryConfig
from seedpo.methods.sources.steps import step_source
from seedpo.methods.sources.trajectories import trajectory_source
from seedpo.methods.transition_dpo import TransitionDPO
from seedpo.rewards.previews import NoisyPreviews
from tests.methods.flow import FlowConditioning, PackedFlow, flow_process
from tests.methods.sources.toys import PROMPTS, ToyReward, seeded

SAMPLING = SamplingConfig(num_inference_steps=5, guidance_scale=2.0, eta=0.7)
WEIGHTS = {"policy_weight": 20.0, "reference_weight": 10.0}


def pairs(rows: int = 3) -> ImagePairs:
    chosen, rejected = torch.randn(2, rows, 16, 3, generator=seeded())
    prompts = PackedFlow().encode_prompts(PROMPTS[:rows])
    numbers = torch.arange(rows)
    return ImagePairs(
        chosen_latents=chosen, rejected_latents=rejected, conditioning=prompts, pair=numbers, visit=0 * numbers
    )


def steps(kind: str, model: PackedFlow) -> StepBatch:
    common: dict[str, Any] = {"sampling": SAMPLING, "batch_size": 4, "seed": 0}
    if kind == "trajectories":
        config = TrajectoryConfig(images_per_prompt=3, prompts_per_rollout=2)
        return trajectory_source(model, ToyReward(), PROMPTS, config=config, **common).next_batch()
    pool = StepPoolConfig(candidates=3, plain_steps=1, inner_steps=1, min_gap=0.0, prompts_per_rollout=2)
    return step_source(model, ToyReward(), PROMPTS, config=pool, **common).next_batch()


@pytest.mark.parametrize("kind", ["trajectories", "steps"])
def test_steps_are_rolled_out_and_trained_on(kind: str) -> None:
    model = PackedFlow()
    batch = steps(kind, model)
    assert batch.latents.shape[1:] == (16, 3)
    assert batch.timestep.dtype == torch.float32
    assert (batch.next_timestep > 0).all(), "the deterministic last step makes no pair"
    assert isinstance(batch.conditioning, FlowConditioning)
    output = TransitionDPO(**WEIGHTS, sampling=SAMPLING).loss(model, batch, generator=seeded())
    for side in ("chosen", "rejected"):
        ratio = output.metrics[f"log_ratio/{side}"].exp()
        torch.testing.assert_close(ratio, torch.ones_like(ratio), rtol=1e-5, atol=1e-5)
    output.losses.sum().backward()
    assert model.weight.grad is not None
    assert model.weight.grad.abs() > 0


@pytest.mark.parametrize("kind", ["trajectories", "steps"])
def test_log_probs_are_those_of_torch(kind: str) -> None:
    model = PackedFlow()
    batch = steps(kind, model)
    sampler = Sampler(model, SAMPLING)
    step = sampler.step(
        batch.latents, batch.timestep, batch.next_timestep, batch.conditioning, batch.negative_conditioning
    )
    normal = torch.distributions.Normal(step.mean.double()[batch.start], step.std.double()[batch.start].view(-1, 1, 1))
    expected = normal.log_prob(batch.next_latents.double()).sum((1, 2))
    torch.testing.assert_close(sampler.log_probs(batch), expected, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(batch.reference_log_prob, expected, rtol=1e-5, atol=1e-3)


def test_the_velocity_is_trained_on_pairs_of_images() -> None:
    """-1/2 of the mean squared error of the velocity, at keyed times and noises that do not depend on the batch."""
    model, batch = PackedFlow(), pairs()
    method = NoiseDPO(**WEIGHTS, draws=KeyedDraws(seed=3))
    output = method.loss(model, batch, generator=seeded())
    assert output.metrics["log_ratio/chosen"].abs().max() == 0
    output.losses.sum().backward()
    assert model.weight.grad is not None
    assert model.weight.grad.abs() > 0
    alone = method.loss(model, batch[1:2], generator=seeded())
    torch.testing.assert_close(alone.losses, output.losses[1:2])
    timestep, noise = KeyedDraws(seed=3).timestep_and_noise(
        torch.tensor([0]), torch.tensor([0]), process=flow_process(), shape=(16, 3)
    )
    level, clean = timestep.view(-1, 1, 1), batch.chosen_latents[:1]
    velocity = model.predict((1 - level) * clean + level * noise, timestep, batch.conditioning[:1]).detach().double()
    reference = -0.5 * (velocity - (noise - clean)).square().mean((1, 2))
    gained = (WEIGHTS["policy_weight"] - WEIGHTS["reference_weight"]) * reference
    torch.testing.assert_close(output.metrics["rewards/chosen"][:1], gained, rtol=1e-5, atol=1e-5)


def test_without_noise_the_steps_are_euler_s() -> None:
    model = PackedFlow()
    latents, prompts = torch.randn(2, 16, 3, generator=seeded()), model.encode_prompts(PROMPTS[:2])
    drawn = Sampler(model, Sampling(num_inference_steps=8, guidance_scale=1.0)).sample(latents, prompts, None)
    expected = latents
    for index in range(8):
        velocity = model.predict(expected, torch.full((2,), 1 - index / 8), prompts).detach()
        expected = expected - velocity / 8
    torch.testing.assert_close(drawn, expected)


def test_noise_keeps_the_distribution_of_gaussian_data() -> None:
    """With the exact velocity of data N(0.3, 0.25), many small noisy steps give the data's mean and variance."""
    process, variance, mean = flow_process(), 0.25, 0.3
    x = torch.randn(20000, 1, generator=seeded())
    for now, then in zip(*process.timesteps(200), strict=True):
        total = (1 - now) ** 2 * variance + now**2
        velocity = (now - (1 - now) * variance) / total * (x - (1 - now) * mean) - mean
        step = process.step(velocity, x, now.expand(len(x)), then.expand(len(x)), eta=0.3)
        x = step.mean + step.std.view(-1, 1) * torch.randn(x.shape, generator=seeded(int(1000 * now)))
    assert float(x.mean()) == pytest.approx(mean, abs=4 * math.sqrt(variance / len(x)) + 0.01)
    assert float(x.var()) == pytest.approx(variance, rel=0.06)


def test_previews_are_shown() -> None:
    model = PackedFlow()
    views = NoisyPreviews(model, size=4, guidance_scale=2.0, clean_share=0.3)
    shown = views.drawn(pairs(6), generator=seeded())
    assert shown.pixels.shape == (6, 2, 3, 4, 4)
    assert shown.timestep is not None
    assert shown.timestep.dtype == torch.float32
    assert (shown.timestep == 0).any()
    half: Any = 0.5
    first, again = (views.at(some, half, seed=4) for some in (pairs(6), pairs(6)[:2]))
    torch.testing.assert_close(first.pixels[:2], again.pixels)
