from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from seedpo.core.processes import Process
from seedpo.core.sampling import Sampler, Sampling
from seedpo.core.types import LossOutput, StepBatch
from seedpo.methods.transition_dpo import TransitionDPO
from seedpo.models.policy import PipelinePolicy
from tests.methods.batches import STEPS, latents_of, transition_pairs
from tests.methods.direct import Reduction, step_log_probs, transition_dpo_losses
from tests.methods.pair_rows import PairRows, log_probs_of_side, pair_rows, step_batch
from tests.models.tiny import PROMPTS, frozen_unet, move, rows_seen, seeded, tiny_policy

BETA = {"mean": 10.0, "sum": 0.02}
REDUCTIONS = pytest.mark.parametrize("reduction", ["mean", "sum"])
GUIDANCE, ETA = 3.0, 0.9
SAMPLING = Sampling(num_inference_steps=STEPS, guidance_scale=GUIDANCE, eta=ETA)
MIXED = (False, True, False)
APART = (False, False, False)
SHARED = (True, True, True)


def trained(**settings: Any) -> PipelinePolicy:
    return move(tiny_policy(dtype=torch.float64, **settings), scale=0.02)


moved = cache(trained)
"""The same, one for all tests that only ask it."""


def method(
    *,
    gamma: float = 0.0,
    reduction: Reduction = "mean",
    clip_range: float | None = None,
    guidance_scale: float = GUIDANCE,
) -> TransitionDPO:
    beta = BETA[reduction]
    return TransitionDPO(
        policy_weight=beta * (1 + gamma),
        reference_weight=beta,
        sampling=Sampling(num_inference_steps=STEPS, guidance_scale=guidance_scale, eta=ETA),
        clip_range=clip_range,
        reduction=reduction,
    )


def loss(policy: PipelinePolicy, pairs: PairRows, **settings: Any) -> LossOutput:
    return method(**settings).loss(policy, step_batch(pairs), generator=seeded())


def direct(policy: PipelinePolicy, pairs: PairRows, reduction: Reduction) -> dict[str, Tensor]:
    return step_log_probs(
        policy, pairs, num_inference_steps=STEPS, guidance_scale=GUIDANCE, eta=ETA, reduction=reduction
    )


class TestBaseMethod:
    @REDUCTIONS
    @pytest.mark.parametrize("shared", [SHARED, MIXED, APART], ids=["shared", "mixed", "apart"])
    def test_is_the_loss_computed_directly(self, reduction: Reduction, shared: tuple[bool, ...]) -> None:
        policy = moved()
        pairs = transition_pairs(policy, shared=shared)
        log_probs = direct(policy, pairs, reduction)
        expected = transition_dpo_losses(log_probs, beta=BETA[reduction], clip_range=None)
        output = loss(policy, pairs, reduction=reduction)
        assert (output.losses - math.log(2)).abs().max() > 1e-3
        torch.testing.assert_close(output.losses, expected, rtol=1e-6, atol=1e-6)
        log_ratio = log_probs["policy chosen"] - log_probs["reference chosen"]
        torch.testing.assert_close(output.metrics["log_ratio/chosen"], log_ratio, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("clip_range", [1e-4, 0.1])
    def test_clips_the_ratios_as_published(self, clip_range: float) -> None:
        policy = moved()
        pairs = transition_pairs(policy, shared=MIXED)
        expected = transition_dpo_losses(direct(policy, pairs, "mean"), beta=BETA["mean"], clip_range=clip_range)
        output = loss(policy, pairs, clip_range=clip_range)
        torch.testing.assert_close(output.losses, expected, rtol=1e-6, atol=1e-6)
        if clip_range == 1e-4:
            assert output.metrics["clipped"].max() > 0

    @pytest.mark.parametrize("prediction_type", ["v_prediction", "sample"])
    def test_other_predictions(self, prediction_type: str) -> None:
        policy = moved(prediction_type=prediction_type)
        pairs = transition_pairs(policy, shared=MIXED)
        expected = transition_dpo_losses(direct(policy, pairs, "mean"), beta=BETA["mean"], clip_range=None)
        torch.testing.assert_close(loss(policy, pairs).losses, expected, rtol=1e-6, atol=1e-6)

    @REDUCTIONS
    @pytest.mark.parametrize("adapter", ["lora", "full"])
    def test_starts_at_log_2(self, reduction: Reduction, adapter: Any) -> None:
        policy = tiny_policy(adapter=adapter)
        output = loss(policy, transition_pairs(policy, shared=MIXED), reduction=reduction)
        assert output.losses.tolist() == [math.log(2)] * 3
        assert output.metrics["log_ratio/chosen"].tolist() == output.metrics["log_ratio/rejected"].tolist() == [0.0] * 3


class TestEntropyTerm:
    @REDUCTIONS
    def test_adds_its_weight_times_the_log_reference(self, reduction: Reduction) -> None:
        """Margin: a Delta log policy - b Delta log reference."""
        policy, gamma, beta = moved(), 0.5, BETA[reduction]
        pairs = transition_pairs(policy, shared=MIXED)
        log_prob = direct(policy, pairs, reduction)
        reference = log_prob["reference chosen"] - log_prob["reference rejected"]
        margin = beta * (1 + gamma) * (log_prob["policy chosen"] - log_prob["policy rejected"]) - beta * reference
        output = loss(policy, pairs, gamma=gamma, reduction=reduction)
        torch.testing.assert_close(output.losses, -logsigmoid(margin), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(output.metrics["offset"], beta * gamma * reference, rtol=1e-6, atol=1e-6)
        assert output.metrics["offset"].abs().max() > 1e-2

    def test_starts_at_the_offset(self) -> None:
        policy = tiny_policy(dtype=torch.float64)
        output = loss(policy, transition_pairs(policy), gamma=1.0)
        torch.testing.assert_close(output.metrics["rewards/margins"], output.metrics["offset"])
        torch.testing.assert_close(output.losses, -logsigmoid(output.metrics["offset"]))
        assert (output.losses - math.log(2)).abs().max() > 1e-3

    def test_is_not_clipped(self) -> None:
        policy = moved()
        pairs = transition_pairs(policy)
        clip, gamma = 1e-4, 1.0
        log_prob = direct(policy, pairs, "mean")
        bounds = math.log1p(-clip), math.log1p(clip)
        ratios = [(log_prob[f"policy {s}"] - log_prob[f"reference {s}"]).clamp(*bounds) for s in ("chosen", "rejected")]
        reference = log_prob["reference chosen"] - log_prob["reference rejected"]
        margin = BETA["mean"] * ((1 + gamma) * (ratios[0] - ratios[1]) + gamma * reference)
        output = loss(policy, pairs, gamma=gamma, clip_range=clip)
        torch.testing.assert_close(output.metrics["rewards/margins"], margin, rtol=1e-6, atol=1e-6)
        assert output.metrics["rewards/margins"].abs().min() > 4 * BETA["mean"] * clip


class TestOnPolicy:
    @pytest.mark.parametrize("gamma", [0.0, 1.0])
    def test_margin_of_steps_that_the_policy_drew(self, gamma: float) -> None:
        """b (noise_w - noise_l).(mu - mu_ref) / std - (a - b) (|noise_w|^2 - |noise_l|^2) / 2, of the noises drawn."""
        policy = moved()
        pairs = transition_pairs(policy)
        with torch.no_grad():
            drawn = steps_of(policy, pairs)
            reference = steps_of(Frozen(policy.process), pairs)
        first, second = (torch.randn(drawn.mean.shape, generator=seeded(seed)).double() for seed in (8, 9))
        std = drawn.std.view(-1, 1, 1, 1)
        pairs = replace(
            pairs, chosen_next_latents=drawn.mean + std * first, rejected_next_latents=drawn.mean + std * second
        )
        delta = (drawn.mean - reference.mean) / std
        margin = ((first - second) * delta - gamma * (first**2 - second**2) / 2).sum((1, 2, 3)) * BETA["sum"]
        output = loss(policy, pairs, gamma=gamma, reduction="sum")
        assert (margin - output.metrics["offset"]).abs().min() > 1e-3
        torch.testing.assert_close(output.metrics["rewards/margins"], margin, rtol=1e-6, atol=1e-6)


class TestSharing:
    """One forward for a shared x_t is two forwards."""

    @pytest.mark.parametrize(
        ("shared", "rows"), [(SHARED, 6), (MIXED, 10), (APART, 12)], ids=["shared", "mixed", "apart"]
    )
    def test_rows_that_reach_the_network(self, shared: tuple[bool, ...], rows: int) -> None:
        policy = moved()
        pairs = transition_pairs(policy, shared=shared)
        with rows_seen(policy.module) as seen:
            loss(policy, pairs)
        assert seen == [rows, rows]
        with rows_seen(policy.module) as seen:
            loss(policy, pairs, guidance_scale=1.0)
        assert seen == [rows // 2, rows // 2]

    @pytest.mark.parametrize("shared", [SHARED, MIXED], ids=["shared", "mixed"])
    def test_losses_and_gradients_are_those_of_two_forwards(self, shared: tuple[bool, ...]) -> None:
        """An x_t that differs by less than it matters is no shared one: the same pairs, each side with its forward."""
        results = []
        for nudge in (0.0, 1e-13):
            policy = trained()
            pairs = transition_pairs(policy, shared=shared)
            pairs = replace(pairs, rejected_latents=pairs.rejected_latents + nudge)
            with rows_seen(policy.module) as seen:
                losses = loss(policy, pairs, gamma=0.5).losses
            losses.sum().backward()
            results.append((sum(seen), losses.detach(), gradients(policy)))
        (few, losses, gradient), (many, twice, gradient_twice) = results
        assert few < many == 24
        assert gradient.norm() > 1e-3
        torch.testing.assert_close(losses, twice, rtol=1e-8, atol=1e-9)
        torch.testing.assert_close(gradient, gradient_twice, rtol=1e-6, atol=1e-8 * float(gradient.norm()))

    def test_gradient_reaches_the_adapter_only(self) -> None:
        policy = trained()
        loss(policy, transition_pairs(policy, shared=MIXED)).losses.mean().backward()
        adapter = policy.trainable_parameters()
        assert all(value.grad is not None and value.grad.abs().max() > 0 for value in adapter.values())
        untrained = {n: p for n, p in policy.pipeline.unet.named_parameters() if n not in adapter}
        assert all(parameter.grad is None for parameter in untrained.values())

    def test_a_single_pair(self) -> None:
        policy = moved()
        output = loss(policy, transition_pairs(policy, shared=(False,)))
        assert output.losses.shape == (1,)
        assert {tuple(values.shape) for values in output.metrics.values()} == {(1,)}


class TestCarriedReference:
    """The reference's log-probabilities that come with a batch are used, and the reference is not asked."""

    @REDUCTIONS
    @pytest.mark.parametrize("shared", [SHARED, MIXED], ids=["shared", "mixed"])
    def test_losses_and_gradients_are_those_of_asking(self, reduction: Reduction, shared: tuple[bool, ...]) -> None:
        results = []
        for carried in (False, True):
            policy = trained()
            pairs = transition_pairs(policy, shared=shared)
            if carried:
                pairs = with_reference(policy, pairs)
            with rows_seen(policy.module) as seen:
                output = loss(policy, pairs, gamma=0.5, reduction=reduction, clip_range=0.3)
            output.losses.sum().backward()
            results.append((len(seen), output.losses.detach(), gradients(policy), output.metrics["offset"]))
        (calls, losses, gradient, offset), (carried_calls, carried_losses, carried_gradient, carried_offset) = results
        assert (calls, carried_calls) == (2, 1)
        assert gradient.norm() > 1e-3
        torch.testing.assert_close(carried_losses, losses, rtol=1e-8, atol=1e-9)
        torch.testing.assert_close(carried_offset, offset, rtol=1e-8, atol=1e-9)
        torch.testing.assert_close(carried_gradient, gradient, rtol=1e-6, atol=1e-8 * float(gradient.norm()))

    def test_no_gradient_flows_into_it(self) -> None:
        policy = moved()
        pairs = with_reference(policy, transition_pairs(policy))
        values = pairs.chosen_reference_log_prob
        assert values is not None
        values.requires_grad_(True)
        loss(policy, pairs, gamma=0.5).losses.sum().backward()
        assert values.grad is None or not values.grad.any()


class TestGroups:
    """One batch in which every image's step runs once is the pairs one by one."""

    @REDUCTIONS
    @pytest.mark.parametrize("carried", [False, True])
    def test_losses_and_gradient_are_the_sum_over_pairs(self, reduction: Reduction, carried: bool) -> None:
        settings: dict[str, Any] = {"gamma": 0.5, "reduction": reduction, "clip_range": 0.3}
        policy = trained()
        groups = images_of_one_prompt(policy, carried=carried)
        with rows_seen(policy.module) as seen:
            together = method(**settings).loss(policy, groups, generator=seeded())
        together.losses.sum().backward()
        gradient = gradients(policy)
        assert seen == [8] if carried else [8, 8]

        other = trained()
        losses = []
        for pair in range(len(groups)):
            output = loss(other, single_pair(groups, pair), **settings)
            output.losses.sum().backward()
            losses.append(output.losses.detach())
        assert gradient.norm() > 1e-3
        torch.testing.assert_close(together.losses.detach(), torch.cat(losses), rtol=1e-8, atol=1e-9)
        torch.testing.assert_close(gradient, gradients(other), rtol=1e-6, atol=1e-8 * float(gradient.norm()))

    def test_one_value_per_pair(self) -> None:
        policy = moved()
        output = method().loss(policy, images_of_one_prompt(policy), generator=seeded())
        assert output.losses.shape == (6,)
        assert {tuple(values.shape) for values in output.metrics.values()} == {(6,)}

    def test_a_shared_x_t_runs_once_for_all_steps_from_it(self) -> None:
        policy = moved()
        groups = images_of_one_prompt(policy)
        groups = replace(groups, start=torch.zeros_like(groups.start))
        groups = replace(
            groups,
            **{
                name: getattr(groups, name)[slice(0, 1)]
                for name in ("latents", "timestep", "next_timestep", "conditioning", "negative_conditioning")
            },
        )
        with rows_seen(policy.module) as seen:
            method().loss(policy, groups, generator=seeded())
        assert seen == [2, 2]


def images_of_one_prompt(policy: PipelinePolicy, *, images: int = 4, carried: bool = False) -> StepBatch:
    """One step of several images of a prompt, every two of them a pair, the lower number preferred."""
    timesteps, previous = policy.process.timesteps(STEPS)
    latents = latents_of(policy, images, 1)
    chosen, rejected = torch.triu_indices(images, images, offset=1)
    groups = StepBatch(
        latents=latents,
        timestep=timesteps[4].repeat(images),
        next_timestep=previous[4].repeat(images),
        conditioning=policy.encode_prompts([PROMPTS[0]] * images),
        negative_conditioning=policy.encode_prompts([""] * images),
        next_latents=0.9 * latents + 0.1 * latents_of(policy, images, 3),
        start=torch.arange(images),
        chosen=chosen,
        rejected=rejected,
    )
    return replace(groups, reference_log_prob=reference_of(policy, groups)) if carried else groups


def single_pair(groups: StepBatch, pair: int) -> PairRows:
    """One pair of a group as a row of its own."""
    return pair_rows(groups)[pair : pair + 1]


def reference_of(policy: PipelinePolicy, groups: StepBatch) -> Tensor:
    with policy.reference():
        return Sampler(policy, SAMPLING).log_probs(groups)


def with_reference(policy: PipelinePolicy, pairs: PairRows) -> PairRows:
    """The same pairs with what the reference says of them, each side asked by itself."""
    with policy.reference():
        chosen, rejected = (log_probs_of_side(policy, SAMPLING, pairs, side) for side in ("chosen", "rejected"))
    return replace(pairs, chosen_reference_log_prob=chosen, rejected_reference_log_prob=rejected)


def steps_of(model: Any, pairs: PairRows) -> Any:
    return Sampler(model, SAMPLING).step(
        pairs.chosen_latents,
        pairs.timestep,
        pairs.next_timestep,
        pairs.conditioning,
        pairs.negative_conditioning,
    )


@dataclass
class Frozen:
    """The network that a tiny policy started from."""

    process: Process

    @staticmethod
    def predict(latents: Tensor, timestep: Tensor, conditioning: Any) -> Tensor:
        network = frozen_unet(latents.dtype)
        prediction: Tensor = network(latents, timestep, encoder_hidden_states=conditioning.prompt_embeds).sample
        return prediction


def gradients(policy: PipelinePolicy) -> Tensor:
    values = [value.grad for value in policy.trainable_parameters().values()]
    return torch.cat([value.flatten() for value in values if value is not None])
