"""Another process and another kind of latents pass through objectives, sources, draws and previews as they are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from seedpo.core.draws import KeyedDraws
from seedpo.core.sampling import Sampler, Sampling
from seedpo.core.types import ImagePairs, StepBatch
from seedpo.methods.noise_dpo import NoiseDPO
from seedpo.methods.settings import SamplingConfig, StepPoolConfig, TrajectoryConfig
from seedpo.methods.sources.steps import step_source
from seedpo.methods.sources.trajectories import trajectory_source
from seedpo.methods.transition_dpo import TransitionDPO
from seedpo.rewards.previews import NoisyPreviews
from seedpo.rewards.step_aware_clip import normalise
from tests.core.flow_data import flow_process
from tests.methods.flow import FlowConditioning, PackedFlow
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


def test_previews_are_shown() -> None:
    model = PackedFlow()
    views = NoisyPreviews(model, size=4, guidance_scale=2.0, clean_share=0.5)
    shown = views.drawn(pairs(6), generator=seeded())
    assert shown.pixels.shape == (6, 2, 3, 4, 4)
    assert shown.timestep is not None
    assert shown.timestep.dtype == torch.int64, "scorers read the numbers of Stable Diffusion's time steps"
    assert (shown.timestep == 0).any()
    assert shown.timestep.max() > 500
    first, again = (views.at(some, 500, seed=4) for some in (pairs(6), pairs(6)[:2]))
    torch.testing.assert_close(first.pixels[:2], again.pixels)


def test_previews_are_made_at_the_level_of_the_scorer_s_time() -> None:
    model, batch, noise = PackedFlow(), pairs(2), torch.randn(2, 16, 3, generator=seeded(1))
    views = NoisyPreviews(model, size=4, guidance_scale=1.0)
    shown = views.shown(batch, torch.tensor([0, 700]), noise)
    level = model.process.timestep_of(torch.tensor([700]))
    noisy = model.process.noisy(batch.chosen_latents[1:], noise[1:], level)
    prompts = model.encode_prompts(PROMPTS[1:2])
    predicted = model.process.clean(model.predict(noisy, level, prompts).detach(), noisy, level)
    expected = normalise(model.decode(torch.cat([batch.chosen_latents[:1], predicted])), 4)
    torch.testing.assert_close(shown.pixels[:, 0], expected)


def test_step_aware_scorers_read_times_of_stable_diffusion() -> None:
    """After the plain step there are three random ones."""
    model, reward = PackedFlow(), ToyReward()
    pool = StepPoolConfig(candidates=2, plain_steps=1, min_gap=0.0, prompts_per_rollout=2)
    step_source(model, reward, PROMPTS, config=pool, sampling=SAMPLING, batch_size=4, seed=0).next_batch()
    _, reached = model.process.timesteps(5)
    expected = [int(model.process.embedded_time(level)) for level in reached[1:4]]
    times = [times for times in reward.timesteps if times is not None]
    assert all(rows.dtype == torch.int64 for rows in times)
    assert [rows.unique().tolist() for rows in times] == [[time] for time in expected]


@pytest.mark.parametrize(("sde", "eta"), [("dance", 0.3), ("flow-grpo", 0.7), ("cps", 0.8)])
def test_without_an_eta_the_rule_s_usual_one_is_taken(sde: str, eta: float) -> None:
    model = PackedFlow(flow_process(sde=sde))
    usual, named = (Sampling(num_inference_steps=5, guidance_scale=1.0, eta=value) for value in (None, eta))
    assert Sampler(model, usual).eta == eta
    drawn = [
        Sampler(model, settings).trajectory(
            torch.randn(2, 16, 3, generator=seeded()), model.encode_prompts(PROMPTS[:2]), None, generator=seeded(1)
        )
        for settings in (usual, named)
    ]
    assert torch.equal(drawn[0].latents, drawn[1].latents)
    assert drawn[0].log_probs[:, -1].isnan().all()
    assert drawn[0].log_probs[:, :-1].isfinite().all()


@pytest.mark.parametrize("sde", ["dance", "flow-grpo", "cps"])
def test_on_policy_every_ratio_is_1(sde: str) -> None:
    model = PackedFlow(flow_process(sde=sde))
    settings = SamplingConfig(num_inference_steps=5, guidance_scale=2.0)
    config = TrajectoryConfig(images_per_prompt=3, prompts_per_rollout=2)
    batch = trajectory_source(
        model, ToyReward(), PROMPTS, config=config, sampling=settings, batch_size=8, seed=0
    ).next_batch()
    output = TransitionDPO(**WEIGHTS, sampling=settings, reduction="sum").loss(model, batch, generator=seeded())
    for side in ("chosen", "rejected"):
        ratio = output.metrics[f"log_ratio/{side}"].exp()
        torch.testing.assert_close(ratio, torch.ones_like(ratio), rtol=1e-5, atol=1e-5)


class TestCpsSquare:
    """-mean |x' - mean|^2 in place of the log-probability, as published."""

    SETTINGS = SamplingConfig(num_inference_steps=5, guidance_scale=2.0)

    def model_and_batch(self) -> tuple[PackedFlow, StepBatch]:
        model = PackedFlow(flow_process(sde="cps"))
        config = TrajectoryConfig(images_per_prompt=3, prompts_per_rollout=2)
        source = trajectory_source(
            model, ToyReward(), PROMPTS, config=config, sampling=self.SETTINGS, batch_size=8, seed=0
        )
        batch = source.next_batch()
        with torch.no_grad():
            model.weight += 0.02  # off policy
        return model, batch

    def test_is_the_published_number(self) -> None:
        model, batch = self.model_and_batch()
        method = TransitionDPO(policy_weight=1.0, reference_weight=1.0, sampling=self.SETTINGS, square=True)
        output = method.loss(model, batch, generator=seeded())
        sampler = Sampler(model, self.SETTINGS)
        arguments = (batch.timestep, batch.next_timestep, batch.conditioning, batch.negative_conditioning)

        def published() -> Tensor:
            mean = sampler.step(batch.latents, *arguments).mean[batch.start]
            return -(batch.next_latents.double() - mean.double()).square().mean((1, 2))

        policy = published()
        with model.reference():
            ratio = policy - published()
        for side, rows in (("chosen", batch.chosen), ("rejected", batch.rejected)):
            torch.testing.assert_close(output.metrics[f"log_ratio/{side}"], ratio[rows], rtol=1e-4, atol=1e-8)

    def test_ratios_and_gradients_are_2_std_squared_of_the_gaussian_s(self) -> None:
        model, batch = self.model_and_batch()
        std = model.process.step_std(batch.timestep, batch.next_timestep, eta=0.8)[batch.start].double()
        outputs = {
            square: TransitionDPO(**WEIGHTS, sampling=self.SETTINGS, square=square).loss(
                model, batch, generator=seeded()
            )
            for square in (False, True)
        }
        for side, rows in (("chosen", batch.chosen), ("rejected", batch.rejected)):
            factor = 2 * std[rows].square()
            plain, squared = (outputs[square].metrics[f"log_ratio/{side}"] for square in (False, True))
            assert plain.abs().min() > 0
            torch.testing.assert_close(squared, factor * plain, rtol=1e-6, atol=1e-9)
        factor = 2 * std[batch.chosen].square()
        weights = [torch.sigmoid(-outputs[square].metrics["rewards/margins"]) for square in (False, True)]
        gradients = []
        for square, scale in ((True, torch.ones(len(batch))), (False, factor * weights[1] / weights[0])):
            (gradient,) = torch.autograd.grad((scale * outputs[square].losses).sum(), model.weight)
            gradients.append(gradient)
        torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=0)
