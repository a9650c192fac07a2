from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from typing import Any, Literal

import pytest
import torch
from diffusers.training_utils import compute_snr
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from seedpo.core.draws import KeyedDraws
from seedpo.core.loser_scale import LoserScale
from seedpo.core.margin_scale import GapScale
from seedpo.core.types import ImagePairs, LossOutput
from seedpo.methods.beta_rule import BetaRule
from seedpo.methods.noise_dpo import NoiseDPO, error_metrics
from seedpo.models.policy import PipelinePolicy
from tests.methods.batches import image_pairs
from tests.methods.direct import Reduction, noise_dpo_losses, noise_draws, noise_errors, scheduler_of
from tests.models.tiny import move, rows_seen, seeded, tiny_policy

BETA = {"mean": 200.0, "sum": 0.5}
REDUCTIONS = pytest.mark.parametrize("reduction", ["mean", "sum"])
SEED = 3
SIDES = ("chosen", "rejected")


def trained(**settings: Any) -> PipelinePolicy:
    return move(tiny_policy(dtype=torch.float64, **settings))


moved = cache(trained)
"""The same, one for all tests that only ask it."""


def loss(policy: PipelinePolicy, *, gamma: float = 0.0, reduction: Reduction = "mean") -> LossOutput:
    beta = BETA[reduction]
    method = NoiseDPO(policy_weight=beta * (1 + gamma), reference_weight=beta, reduction=reduction)
    return method.loss(policy, image_pairs(policy), generator=seeded(SEED))


class TestNoiseWeight:
    """Against the published weights, from the signal-to-noise ratio that diffusers computes."""

    @pytest.mark.parametrize("limit", [5.0, 0.1])
    @pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
    def test_min_snr_weighs_all_four_errors(self, prediction_type: str, limit: float) -> None:
        policy = moved(prediction_type=prediction_type)
        pairs, beta, gamma = image_pairs(policy), BETA["mean"], 0.02
        timestep, _ = noise_draws(pairs, SEED)
        snr = compute_snr(scheduler_of(policy), timestep).double()
        denominator = {"epsilon": snr, "v_prediction": snr + 1, "sample": torch.ones_like(snr)}[prediction_type]
        weight = snr.clamp(max=limit) / denominator
        errors = noise_errors(policy, pairs, seed=SEED, reduction="mean")
        policy_part = errors["policy chosen"] - errors["policy rejected"]
        reference_part = errors["reference chosen"] - errors["reference rejected"]
        margin = -beta / 2 * weight * ((1 + gamma) * policy_part - reference_part)
        method = NoiseDPO(
            policy_weight=beta * (1 + gamma), reference_weight=beta, noise_weight="min-snr", min_snr_gamma=limit
        )
        output = method.loss(policy, pairs, generator=seeded(SEED))
        torch.testing.assert_close(output.losses, -logsigmoid(margin), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(output.metrics["error/policy_chosen"], errors["policy chosen"], rtol=1e-6, atol=1e-9)

    def test_constant_is_bit_for_bit_the_published_loss(self) -> None:
        policy = moved()
        output = NoiseDPO(policy_weight=200.0, reference_weight=200.0, noise_weight="constant").loss(
            policy, image_pairs(policy), generator=seeded(SEED)
        )
        assert torch.equal(output.losses, loss(policy).losses)

    def test_a_high_limit_leaves_the_noise_s_error_alone(self) -> None:
        """min(SNR, infinity) / SNR = 1, for a network that predicts the noise."""
        policy = moved()
        method = NoiseDPO(policy_weight=200.0, reference_weight=200.0, noise_weight="min-snr", min_snr_gamma=1e9)
        output = method.loss(policy, image_pairs(policy), generator=seeded(SEED))
        assert torch.equal(output.losses, loss(policy).losses)


class TestBaseMethod:
    @REDUCTIONS
    @pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
    def test_is_the_loss_computed_directly(self, reduction: Reduction, prediction_type: str) -> None:
        policy = moved(prediction_type=prediction_type)
        expected = noise_dpo_losses(policy, image_pairs(policy), beta=BETA[reduction], seed=SEED, reduction=reduction)
        losses = loss(policy, reduction=reduction).losses
        assert (losses - math.log(2)).abs().min() > 1e-3
        torch.testing.assert_close(losses, expected, rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize("adapter", ["lora", "full"])
    def test_has_the_gradient_of_the_direct_computation(self, adapter: Literal["lora", "full"]) -> None:
        policies = [trained(adapter=adapter) for _ in range(2)]
        loss(policies[0]).losses.sum().backward()
        noise_dpo_losses(
            policies[1], image_pairs(policies[1]), beta=BETA["mean"], seed=SEED, reduction="mean"
        ).sum().backward()
        ours, direct = (gradients(policy) for policy in policies)
        assert ours.norm() > 1e-3
        torch.testing.assert_close(ours, direct, rtol=1e-6, atol=1e-6 * float(direct.norm()))

    @REDUCTIONS
    def test_reports_the_mean_squared_error_of_each_network_and_side(self, reduction: Reduction) -> None:
        policy = moved()
        expected = noise_errors(policy, image_pairs(policy), seed=SEED, reduction="mean")
        metrics = loss(policy, reduction=reduction).metrics
        for name, error in expected.items():
            torch.testing.assert_close(metrics[f"error/{name.replace(' ', '_')}"], error, rtol=1e-6, atol=1e-9)
        assert len(expected) == 4

    @REDUCTIONS
    def test_starts_at_log_2(self, reduction: Reduction) -> None:
        output = loss(tiny_policy(), reduction=reduction)
        assert output.losses.tolist() == [math.log(2)] * 3
        assert output.metrics["rewards/margins"].tolist() == [0.0] * 3


class TestEntropyTerm:
    @REDUCTIONS
    def test_adds_its_weight_times_the_log_reference(self, reduction: Reduction) -> None:
        """Margin: -a/2 of the policy's errors + b/2 of the reference's, chosen less rejected."""
        policy, gamma, beta = moved(), 0.01, BETA[reduction]
        error = noise_errors(policy, image_pairs(policy), seed=SEED, reduction=reduction)
        policy_weight = beta * (1 + gamma)
        margin = -0.5 * policy_weight * (error["policy chosen"] - error["policy rejected"])
        margin += 0.5 * beta * (error["reference chosen"] - error["reference rejected"])
        output = loss(policy, gamma=gamma, reduction=reduction)
        torch.testing.assert_close(output.losses, -logsigmoid(margin), rtol=1e-6, atol=1e-6)
        offset = -0.5 * beta * gamma * (error["reference chosen"] - error["reference rejected"])
        assert offset.abs().min() > 1e-4
        torch.testing.assert_close(output.metrics["offset"], offset, rtol=1e-6, atol=1e-6)

    def test_starts_at_the_offset(self) -> None:
        output = loss(tiny_policy(dtype=torch.float64), gamma=0.1)
        torch.testing.assert_close(output.metrics["rewards/margins"], output.metrics["offset"])
        torch.testing.assert_close(output.losses, -logsigmoid(output.metrics["offset"]))
        assert output.losses.tolist() != pytest.approx([math.log(2)] * 3, abs=1e-3)


class TestDraws:
    def test_time_step_and_noise_are_shared_within_a_pair(self) -> None:
        """What reaches the network, row by row: the same time step, and the same noise once the image is taken away."""
        policy = tiny_policy(dtype=torch.float64)
        pairs = image_pairs(policy)
        seen: list[tuple[Tensor, Tensor]] = []
        handle = policy.module.register_forward_pre_hook(lambda module, given: seen.append((given[0], given[1])))
        loss(policy)
        handle.remove()
        timestep, noise = noise_draws(pairs, SEED)
        assert len(set(timestep.tolist())) == 3
        for noisy, times in seen:
            assert torch.equal(times, timestep.repeat(2))
            level = policy.process.alpha_cumprod(times).view(-1, 1, 1, 1)
            found = (noisy - level.sqrt() * torch.cat([pairs.chosen_latents, pairs.rejected_latents])) / (
                1 - level
            ).sqrt()
            torch.testing.assert_close(found, noise.repeat(2, 1, 1, 1).double(), rtol=0, atol=1e-5)

    def test_all_time_steps_are_drawn(self) -> None:
        policy = tiny_policy()
        pairs = image_pairs(policy, rows=1).repeat_interleave(4000)
        drawn: list[int] = []

        def watched(latents: Tensor, timestep: Tensor, conditioning: Any) -> Tensor:
            drawn.extend(timestep[:4000].tolist())
            return latents

        policy.predict = watched  # type: ignore[method-assign]
        NoiseDPO(policy_weight=1.0, reference_weight=1.0).loss(policy, pairs, generator=seeded())
        counts = torch.bincount(torch.tensor(drawn[:4000]), minlength=1000)
        assert len(counts) == 1000
        # 400 in each tenth, give or take five standard deviations (19).
        assert (counts.view(10, 100).sum(1) - 400).abs().max() < 95

    def test_is_a_function_of_the_generator_alone(self) -> None:
        policy = moved()
        torch.manual_seed(1)
        state = torch.get_rng_state()
        first = loss(policy).losses
        assert torch.equal(torch.get_rng_state(), state)
        torch.manual_seed(2)
        assert torch.equal(loss(policy).losses, first)


class TestCost:
    def test_one_forward_of_policy_and_reference_each(self) -> None:
        policy = moved()
        with rows_seen(policy.module) as seen:
            loss(policy)
        assert seen == [6, 6]

    def test_a_single_pair(self) -> None:
        policy = moved()
        one = image_pairs(policy)[slice(0, 1)]
        output = NoiseDPO(policy_weight=1.0, reference_weight=1.0).loss(policy, one, generator=seeded())
        assert output.losses.shape == (1,)
        assert {tuple(values.shape) for values in output.metrics.values()} == {(1,)}

    def test_gradient_reaches_the_adapter_only(self) -> None:
        policy = trained()
        pairs = image_pairs(policy)
        loss(policy).losses.mean().backward()
        adapter = policy.trainable_parameters()
        assert all(value.grad is not None and value.grad.abs().max() > 0 for value in adapter.values())
        for part in ("unet", "vae", "text_encoder"):
            for name, parameter in getattr(policy.pipeline, part).named_parameters():
                assert parameter.grad is None or (part == "unet" and name in adapter), name
        assert not pairs.chosen_latents.requires_grad


def gradients(policy: PipelinePolicy) -> Tensor:
    values = [value.grad for value in policy.trainable_parameters().values()]
    return torch.cat([value.flatten() for value in values if value is not None])


class KnownReference:
    """A cache that counts, in memory."""

    def __init__(self) -> None:
        self.kept: dict[bytes, Tensor] = {}
        self.asked = 0

    def find(self, content: Tensor, timestep: Tensor, noise: Tensor) -> Tensor | None:
        self.asked += 1
        return self.kept.get(self._key(content, timestep, noise))

    def keep(self, content: Tensor, timestep: Tensor, noise: Tensor, log_probs: Tensor) -> None:
        assert log_probs.shape == (2, len(content))
        self.kept[self._key(content, timestep, noise)] = log_probs.double()

    def _key(self, *tensors: Tensor) -> bytes:
        assert {tensor.device.type for tensor in tensors} == {"cpu"}
        return b"".join(tensor.numpy().tobytes() for tensor in tensors)


class TestKeyedDraws:
    def pairs(self, policy: PipelinePolicy, *, visit: int = 0) -> ImagePairs:
        return replace(
            image_pairs(policy),
            pair=torch.tensor([4, 0, 9]),
            visit=torch.tensor([visit] * 3),
            content=torch.arange(96, dtype=torch.uint8).view(3, 32),
        )

    def method(self, **settings: Any) -> NoiseDPO:
        return NoiseDPO(policy_weight=220.0, reference_weight=200.0, draws=KeyedDraws(seed=1, visits=2), **settings)

    def gradient(
        self, method: NoiseDPO, *, visit: int = 0, adapter: Literal["lora", "full"] = "lora"
    ) -> tuple[Tensor, Tensor, list[int]]:
        """Losses, gradient, and the rows that trained network and reference saw."""
        policy = trained(adapter=adapter)
        with rows_seen(policy.module) as seen, rows_seen(policy.adapter.frozen or nn.Identity()) as seen_by_frozen:
            output = method.loss(policy, self.pairs(policy, visit=visit), generator=seeded(SEED))
        output.losses.sum().backward()
        return output.losses, gradients(policy), seen + seen_by_frozen

    def test_the_draws_are_those_of_pair_and_visit_and_the_generator_stays(self) -> None:
        policy = moved()
        pairs, generator = self.pairs(policy), seeded(SEED)
        state = generator.get_state()
        losses = self.method().loss(policy, pairs, generator=generator).losses
        assert torch.equal(generator.get_state(), state)
        assert not torch.equal(losses, loss(policy).losses)
        order = torch.tensor([2, 0, 1])
        again = self.method().loss(policy, pairs[order], generator=seeded(7)).losses
        torch.testing.assert_close(again, losses[order])

    @pytest.mark.parametrize("adapter", ["lora", "full"])
    def test_a_known_reference_is_not_asked_and_changes_no_bit(self, adapter: Literal["lora", "full"]) -> None:
        cache, policy = KnownReference(), trained(adapter=adapter)
        live, empty = (self.gradient(self.method(cache=given), adapter=adapter) for given in (None, cache))
        assert cache.kept == {}, "training stores nothing"
        self.method(cache=cache).store_reference(policy, self.pairs(policy))
        known = self.gradient(self.method(cache=cache), adapter=adapter)
        assert [result[2] for result in (live, empty, known)] == [[6, 6], [6, 6], [6]]
        for result in (empty, known):
            assert torch.equal(result[0], live[0])
            assert torch.equal(result[1], live[1])
        assert live[1].norm() > 1e-3

    def test_another_visit_is_another_draw_until_the_visits_repeat(self) -> None:
        cache = KnownReference()
        method, policy = self.method(cache=cache), trained()
        method.store_reference(policy, self.pairs(policy, visit=0))
        seen = [self.gradient(method, visit=visit)[2] for visit in range(4)]
        assert seen == [[6], [6, 6], [6], [6, 6]]

    def test_what_is_known_is_what_is_used(self) -> None:
        """A cache that lies moves the loss: the numbers that are found are taken."""
        cache, policy = KnownReference(), trained()
        method = self.method(cache=cache)
        method.store_reference(policy, self.pairs(policy))
        honest = self.gradient(method)[0]
        cache.kept = {key: value + torch.tensor([[0.01], [0.0]]) for key, value in cache.kept.items()}
        assert not torch.allclose(self.gradient(method)[0], honest)

    def test_a_cache_needs_draws_that_come_again(self) -> None:
        with pytest.raises(ValueError, match="needs draws"):
            NoiseDPO(policy_weight=1.0, reference_weight=1.0, cache=KnownReference())

    def test_the_figures_of_a_run_do_not_depend_on_what_its_cache_holds(self) -> None:
        """Micro-batches of which the cache knows some only are figures of one step."""
        policy, cache = moved(), KnownReference()
        pairs, method = self.pairs(policy), self.method(cache=cache)
        unknown = method.loss(policy, pairs, generator=seeded()).metrics
        method.store_reference(policy, pairs)
        assert set(method.loss(policy, pairs, generator=seeded()).metrics) == set(unknown)

    @pytest.mark.parametrize("missing", ["pair", "visit", "content"])
    def test_a_batch_that_does_not_say_what_it_holds(self, missing: str) -> None:
        policy = tiny_policy()
        pairs = replace(self.pairs(policy), **{missing: None})
        with pytest.raises(ValueError, match="know"):
            self.method(cache=KnownReference()).loss(policy, pairs, generator=seeded())


class TestErrorMetrics:
    def test_relative_errors_and_the_share_of_the_loser_s_push(self) -> None:
        policy = moved()
        metrics = loss(policy).metrics
        for side in ("chosen", "rejected"):
            relative = metrics[f"error/policy_{side}"] - metrics[f"error/reference_{side}"]
            assert torch.equal(metrics[f"error/relative_{side}"], relative)
        winner, loser = metrics["error/policy_chosen"].sqrt(), metrics["error/policy_rejected"].sqrt()
        torch.testing.assert_close(metrics["loser_share"], loser / (winner + loser))
        assert "loser_scale" not in metrics

    def test_a_scaled_loser_has_a_smaller_share(self) -> None:
        policy = moved()
        method = NoiseDPO(policy_weight=200.0, reference_weight=200.0, loser_scale=LoserScale(mu=0.9, per="pair"))
        metrics = method.loss(policy, image_pairs(policy), generator=seeded(SEED)).metrics
        winner, loser = metrics["error/policy_chosen"].sqrt(), metrics["error/policy_rejected"].sqrt()
        scaled = metrics["loser_scale"] * loser
        torch.testing.assert_close(metrics["loser_share"], scaled / (winner + scaled))
        assert float(metrics["loser_scale"].max()) < 1

    def test_no_error_is_no_push_of_either_side(self) -> None:
        errors = {f"{network}_{side}": torch.zeros(2) for network in ("policy", "reference") for side in SIDES}
        kept = torch.ones(2), torch.ones(2)
        assert error_metrics(errors, kept, torch.ones(2))["loser_share"].tolist() == [0.5, 0.5]

    def test_the_policy_s_gradient_is_that_of_the_scaled_sides(self) -> None:
        """Through the whole network: -a sigma(-m) (grad log p(chosen) - lam grad log p(rejected))."""
        results = []
        for rule in (None, LoserScale(mu=0.9, per="pair")):
            policy = trained()
            method = NoiseDPO(policy_weight=200.0, reference_weight=200.0, loser_scale=rule)
            output = method.loss(policy, image_pairs(policy), generator=seeded(SEED))
            output.losses.sum().backward()
            results.append((output.losses.detach(), gradients(policy)))
        assert torch.equal(results[0][0], results[1][0])
        assert not torch.allclose(results[0][1], results[1][1], rtol=1e-2)


class TestFactorsOfTheMargin:
    GAP = torch.tensor([3.0, -0.5, 0.0])

    def scaled(self, policy: PipelinePolicy, **settings: Any) -> LossOutput:
        method = NoiseDPO(
            policy_weight=300.0, reference_weight=200.0, gap_scale=GapScale(strength=4.0, temperature=2.0), **settings
        )
        return method.loss(policy, replace(image_pairs(policy), gap=self.GAP), generator=seeded(SEED))

    def test_the_gap_multiplies_the_margin(self) -> None:
        policy = moved()
        plain = NoiseDPO(policy_weight=300.0, reference_weight=200.0)
        margin = plain.loss(policy, image_pairs(policy), generator=seeded(SEED)).metrics["rewards/margins"]
        output = self.scaled(policy)
        factor = 4 * (2 * (self.GAP.double() / 2).sigmoid() - 1)
        torch.testing.assert_close(output.metrics["rewards/margins"], factor * margin)
        torch.testing.assert_close(output.losses.detach(), -logsigmoid(factor * margin))
        assert output.metrics["turned"].tolist() == [0, 1, 0]
        assert output.metrics["gradient_factor"][2] == 0.5

    def test_a_turned_pair_is_the_pair_with_its_sides_exchanged(self) -> None:
        policy = moved()
        pairs = image_pairs(policy)
        rule = LoserScale(mu=0.9, per="pair")
        method = NoiseDPO(
            policy_weight=300.0,
            reference_weight=200.0,
            gap_scale=GapScale(strength=4.0, temperature=2.0),
            loser_scale=rule,
        )
        exchanged = replace(
            pairs, chosen_latents=pairs.rejected_latents, rejected_latents=pairs.chosen_latents, gap=-self.GAP
        )
        results = []
        for batch in (replace(pairs, gap=self.GAP), exchanged):
            network = trained()
            output = method.loss(network, batch[:2], generator=seeded(SEED))
            output.losses.sum().backward()
            results.append((output, gradients(network)))
        torch.testing.assert_close(results[0][0].losses, results[1][0].losses)
        torch.testing.assert_close(
            results[0][0].metrics["loser_scale"], results[1][0].metrics["loser_scale"], msg="the loser changes too"
        )
        torch.testing.assert_close(results[0][1], results[1][1])
        torch.testing.assert_close(*(output.metrics["loser_share"] for output, _ in results))

    def test_pairs_without_a_gap_are_refused(self) -> None:
        policy = moved()
        method = NoiseDPO(policy_weight=1.0, reference_weight=1.0, gap_scale=GapScale(strength=1.0, temperature=1.0))
        with pytest.raises(ValueError, match="gap"):
            method.loss(policy, image_pairs(policy), generator=seeded(SEED))

    def test_a_rule_s_factor_is_another_beta(self) -> None:
        policy = moved()
        rule = BetaRule(decay=(0, 1), updates=5)
        output = NoiseDPO(policy_weight=300.0, reference_weight=200.0, beta=rule).loss(
            policy, image_pairs(policy), generator=seeded(SEED)
        )
        half = NoiseDPO(policy_weight=150.0, reference_weight=100.0).loss(
            policy, image_pairs(policy), generator=seeded(SEED)
        )
        torch.testing.assert_close(output.losses, half.losses)
        assert output.metrics["beta"].tolist() == [100.0] * 3


class TestTies:
    def test_a_tie_has_no_loser_whose_gradient_is_scaled(self) -> None:
        """Else the pull of one image is scaled down, and the push of the other stays whole."""
        rule = LoserScale(mu=0.9, per="pair")
        results = []
        for loser_scale in (None, rule):
            policy = trained()
            method = NoiseDPO(policy_weight=200.0, reference_weight=200.0, loser_scale=loser_scale)
            pairs = replace(image_pairs(policy), chosen_probability=torch.full((3,), 0.5))
            output = method.loss(policy, pairs, generator=seeded(SEED))
            output.losses.sum().backward()
            results.append(gradients(policy))
        assert output.metrics["loser_scale"].tolist() == [1, 1, 1]
        assert torch.equal(*results)

    @pytest.mark.parametrize("per", ["pair", "batch"])
    def test_a_label_below_one_half_makes_the_other_image_the_loser(self, per: Literal["pair", "batch"]) -> None:
        policy = moved()
        pairs = image_pairs(policy)
        method = NoiseDPO(policy_weight=200.0, reference_weight=200.0, loser_scale=LoserScale(mu=0.9, per=per))
        exchanged = replace(pairs, chosen_latents=pairs.rejected_latents, rejected_latents=pairs.chosen_latents)
        one, other = (
            method.loss(
                policy, replace(some, chosen_probability=torch.full((3,), label)), generator=seeded(SEED)
            ).metrics
            for some, label in ((pairs, 0.25), (exchanged, 0.75))
        )
        for name in ("loser_scale", "loser_share"):
            torch.testing.assert_close(one[name], other[name])
        assert 0 < float(one["loser_scale"].max()) < 1

    def test_a_tie_pulls_towards_equal_rewards(self) -> None:
        policy = moved()
        pairs = image_pairs(policy)
        method = NoiseDPO(policy_weight=200.0, reference_weight=200.0)
        certain = method.loss(policy, pairs, generator=seeded(SEED))
        tied = method.loss(policy, replace(pairs, chosen_probability=torch.full((3,), 0.5)), generator=seeded(SEED))
        margin = certain.metrics["rewards/margins"]
        assert margin.abs().min() > 1e-3
        torch.testing.assert_close(tied.losses, -0.5 * (logsigmoid(margin) + logsigmoid(-margin)))
        assert (tied.losses > math.log(2)).all()

    def test_certain_labels_are_today_s_loss_bit_for_bit(self) -> None:
        policy = moved()
        given = replace(image_pairs(policy), chosen_probability=torch.ones(3))
        method = NoiseDPO(policy_weight=200.0, reference_weight=200.0)
        assert torch.equal(
            method.loss(policy, given, generator=seeded(SEED)).losses,
            method.loss(policy, image_pairs(policy), generator=seeded(SEED)).losses,
        )
