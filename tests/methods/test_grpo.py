from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from seedpo.core.sampling import Sampler, Sampling
from seedpo.core.transitions import scaled_square
from seedpo.core.types import LossOutput, StepGroups
from seedpo.methods.grpo import GRPO
from seedpo.methods.transition_dpo import TransitionDPO
from seedpo.models.policy import PipelinePolicy
from tests.methods.batches import STEPS, transition_pairs
from tests.methods.pair_rows import step_batch
from tests.models.tiny import move, seeded, tiny_policy

SAMPLING = Sampling(num_inference_steps=STEPS, guidance_scale=3.0, eta=0.9)
ADVANTAGES = (1.5, -0.5, 0.8, -2.0, 0.3, -1.0)


@cache
def moved() -> PipelinePolicy:
    return move(tiny_policy(dtype=torch.float64), scale=0.02)


def steps_of(policy: PipelinePolicy, *, on_policy: bool, advantages: tuple[float, ...] = ADVANTAGES) -> StepGroups:
    """Six steps, drawn by the policy or by another one that makes other things likely."""
    pairs = step_batch(transition_pairs(policy, shared=(False, False, False)))
    shared = {
        name: getattr(pairs, name)
        for name in (
            "latents",
            "timestep",
            "next_timestep",
            "conditioning",
            "negative_conditioning",
            "next_latents",
            "start",
        )
    }
    with torch.no_grad():
        log_prob = Sampler(policy, SAMPLING).log_probs(pairs)
    if not on_policy:
        entries = pairs.latents[0].numel()
        log_prob = log_prob + entries * torch.tensor([0.05, -0.05, 0.3, 0.3, -0.3, -0.3], dtype=log_prob.dtype)
    advantage = torch.tensor(advantages, dtype=torch.float64)
    return StepGroups(**shared, advantage=advantage, rollout_log_prob=log_prob)


def loss(policy: PipelinePolicy, steps: StepGroups, **settings: Any) -> LossOutput:
    method = GRPO(**{"kl_weight": 0.0, "sampling": SAMPLING, **settings})
    return method.loss(policy, steps, generator=seeded())


def gradient(policy: PipelinePolicy, losses: Tensor) -> Tensor:
    """By all trained parameters, in one row."""
    parameters = list(policy.trainable_parameters().values())
    return torch.cat([part.flatten() for part in torch.autograd.grad(losses, parameters)])


class TestOnPolicy:
    def test_the_ratio_is_exactly_1(self) -> None:
        policy = moved()
        steps = steps_of(policy, on_policy=True)
        output = loss(policy, steps, clip_range=1e-4)
        assert output.metrics["ratio"].tolist() == [1.0] * 6
        assert output.metrics["clipped"].tolist() == [0.0] * 6
        assert output.losses.tolist() == (-steps.advantage).tolist()

    @pytest.mark.parametrize("clip_range", [None, 1e-4])
    def test_the_gradient_is_reinforce(self, clip_range: float | None) -> None:
        policy = moved()
        steps = steps_of(policy, on_policy=True)
        entries = steps.latents[0].numel()
        expected = -(steps.advantage * Sampler(policy, SAMPLING).log_probs(steps) / entries).sum()
        found = gradient(policy, loss(policy, steps, clip_range=clip_range).losses.sum())
        torch.testing.assert_close(found, gradient(policy, expected), rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize("beta", [0.1, 10.0])
    def test_two_images_are_d3po_with_the_roll_out_as_its_reference(self, beta: float) -> None:
        """A = +-1: the mean over the two steps has D3PO's gradient, divided by beta."""
        policy = moved()
        pairs = transition_pairs(policy, shared=(False, False, False))
        batch = step_batch(pairs)
        steps = steps_of(policy, on_policy=True, advantages=(0.0,) * 6)
        advantage = torch.zeros(6, dtype=torch.float64)
        advantage[batch.chosen], advantage[batch.rejected] = 1.0, -1.0
        of_groups = loss(policy, replace(steps, advantage=advantage)).losses.mean()
        d3po = TransitionDPO(policy_weight=beta, reference_weight=beta, sampling=SAMPLING)
        of_pairs = d3po.loss(policy, replace(batch, reference_log_prob=steps.rollout_log_prob), generator=seeded())
        expected = gradient(policy, of_pairs.losses.mean()) / beta
        assert expected.abs().max() > 0
        torch.testing.assert_close(gradient(policy, of_groups), expected, rtol=1e-8, atol=1e-12)


class TestOffPolicy:
    def test_only_what_the_advantage_pushes_past_the_bound_stops(self) -> None:
        policy = moved()
        steps = steps_of(policy, on_policy=False)
        output = loss(policy, steps, clip_range=0.1)
        ratio = output.metrics["ratio"]
        stopped = ((ratio > 1.1) & (steps.advantage > 0)) | ((ratio < 0.9) & (steps.advantage < 0))
        assert output.metrics["clipped"].tolist() == stopped.double().tolist() == [0.0, 0.0, 0.0, 1.0, 1.0, 0.0]
        assert not gradient(policy, output.losses[stopped].sum()).any()
        for index in (~stopped).nonzero()[:, 0]:
            assert gradient(policy, loss(policy, steps, clip_range=0.1).losses[index]).abs().max() > 0

    def test_advantages_are_held_in_their_limit(self) -> None:
        policy = moved()
        steps = steps_of(policy, on_policy=False)
        clamped = replace(steps, advantage=steps.advantage.clamp(-0.7, 0.7))
        output = loss(policy, steps, advantage_limit=0.7)
        assert output.losses.tolist() == loss(policy, clamped).losses.tolist()
        assert output.metrics["advantage_abs"].max() == 0.7

    def test_sums_have_ratios_of_whole_steps(self) -> None:
        policy = moved()
        steps = steps_of(policy, on_policy=False)
        mean, total = (loss(policy, steps, reduction=reduction).metrics["log_ratio"] for reduction in ("mean", "sum"))
        torch.testing.assert_close(total, mean * steps.latents[0].numel())


class TestKL:
    def test_is_that_of_the_steps(self) -> None:
        """The mean of log policy - log reference over many draws from the policy."""
        policy = moved()
        steps = steps_of(policy, on_policy=True)
        kl = loss(policy, steps, kl_weight=1.0, reduction="sum").metrics["kl"]
        sampler, ratios = Sampler(policy, SAMPLING), []
        with torch.no_grad():
            step = sampler.gaussians(steps)
            with policy.reference():
                reference = sampler.gaussians(steps)
        std = step.std.view(-1, 1, 1, 1)
        for seed in range(200):
            drawn = step.mean + std * torch.randn(step.mean.shape, generator=seeded(seed), dtype=torch.float64)
            distances = [((drawn - some.mean) / std).square().sum((1, 2, 3)) for some in (reference, step)]
            ratios.append((distances[0] - distances[1]) / 2)
        values = torch.stack(ratios)
        error = values.std(0) / len(values) ** 0.5
        assert ((values.mean(0) - kl).abs() < 5 * error).all()
        assert (kl > 0).all()

    def test_is_added_with_its_weight(self) -> None:
        policy = moved()
        steps = steps_of(policy, on_policy=False)
        plain, weighted = loss(policy, steps), loss(policy, steps, kl_weight=0.3)
        torch.testing.assert_close(weighted.losses, plain.losses + 0.3 * weighted.metrics["kl"])
        assert weighted.metrics["policy_loss"].tolist() == plain.losses.tolist()

    def test_its_gradient_draws_towards_the_reference(self) -> None:
        policy = move(tiny_policy(dtype=torch.float64), scale=0.02)
        steps = replace(steps_of(policy, on_policy=True), advantage=torch.zeros(6, dtype=torch.float64))
        before = loss(policy, steps, kl_weight=1.0)
        before.losses.sum().backward()
        size = sum(float(value.grad.square().sum()) for value in policy.trainable_parameters().values()) ** 0.5
        with torch.no_grad():
            for value in policy.trainable_parameters().values():
                value -= 1e-4 / size * value.grad
        assert loss(policy, steps, kl_weight=1.0).losses.sum() < before.losses.sum()

    def test_without_weight_the_reference_is_not_asked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        policy = moved()
        steps = steps_of(policy, on_policy=False)
        assert {"kl", "distance"} <= loss(policy, steps, kl_weight=1.0).metrics.keys()
        monkeypatch.setattr(policy, "reference", None)
        assert not {"kl", "distance"} & loss(policy, steps).metrics.keys()


def test_the_square_of_cps_stands_for_both_log_probabilities() -> None:
    policy = moved()
    steps = steps_of(policy, on_policy=False)
    sampler, entries = Sampler(policy, SAMPLING), steps.latents[0].numel()
    std = policy.process.step_std(steps.timestep, steps.next_timestep, eta=0.9)
    log_prob = sampler.log_probs(steps).detach()
    expected = (scaled_square(log_prob, std, entries) - scaled_square(steps.rollout_log_prob, std, entries)) / entries
    found = loss(policy, steps, square=True).metrics["log_ratio"]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found, 2 * std.double() ** 2 * loss(policy, steps).metrics["log_ratio"])
