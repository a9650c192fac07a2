"""Anchors beside real objectives on real networks: the same losses, the terms on top, and no forward pass too many."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from seedpo.core.draws import KeyedDraws
from seedpo.core.types import ImagePairs, Likes, LossOutput
from seedpo.methods.anchors import Anchored, Anchors, BatchWithData, NoiseForm, StepForm, anchored
from seedpo.methods.noise_dpo import NoiseDPO
from seedpo.methods.noising import drawn, noised
from seedpo.methods.settings import AnchorConfig
from seedpo.models.policy import PipelinePolicy
from seedpo.models.settings import LoraForm
from seedpo.protocols import Method
from seedpo.settings import build_config
from seedpo.training.settings import RunConfig
from tests.methods import test_transition_dpo as transitions
from tests.methods.batches import image_pairs, transition_pairs
from tests.methods.flow import PackedFlow
from tests.methods.pair_rows import PairRows, step_batch
from tests.models.tiny import PROMPTS, move, rows_seen, seeded, tiny_policy

NOISE = NoiseDPO(policy_weight=220.0, reference_weight=200.0)
STEPS = transitions.method(gamma=0.5)
DRAWS = KeyedDraws(seed=3)


def config(weights: dict[str, Any]) -> AnchorConfig:
    return AnchorConfig(**weights, **({"data_set": "scenes-pairs"} if "data" in weights else {}))


def on_noise(method: Method[Any] = NOISE, **weights: Any) -> Anchored:
    return Anchored(method=method, anchors=Anchors(config=config(weights), form=NoiseForm(), draws=DRAWS))


def on_steps(**weights: Any) -> Anchored:
    return Anchored(
        method=STEPS, anchors=Anchors(config=config(weights), form=StepForm(transitions.SAMPLING), draws=DRAWS)
    )


def policy_apart(**settings: Any) -> PipelinePolicy:
    """In float64, and no longer its reference."""
    return move(tiny_policy(dtype=torch.float64, **settings))


def gradients(policy: PipelinePolicy, output: LossOutput) -> Tensor:
    parameters = list(policy.trainable_parameters().values())
    return torch.cat([value.flatten() for value in torch.autograd.grad(output.losses.mean(), parameters)])


def with_reference(policy: PipelinePolicy, pairs: PairRows) -> PairRows:
    """Pairs that carry the reference's log-probabilities, as roll-outs give them."""
    with policy.reference():
        sides = {
            f"{side}_reference_log_prob": transitions.log_probs_of_side(policy, transitions.SAMPLING, pairs, side)
            for side in ("chosen", "rejected")
        }
    return replace(pairs, **sides)


class TestLosses:
    @pytest.mark.parametrize("kind", ["noise", "steps"])
    def test_are_the_objective_s_and_the_weighted_terms(self, kind: str) -> None:
        policy, weights = policy_apart(), {"kl": 5.0, "winner": 0.3}
        batch: Any = image_pairs(policy) if kind == "noise" else step_batch(transition_pairs(policy))
        plain, method = (NOISE, on_noise(**weights)) if kind == "noise" else (STEPS, on_steps(**weights))
        generators = [seeded(1), seeded(1)]
        alone = plain.loss(policy, batch, generator=generators[0])
        output = method.loss(policy, batch, generator=generators[1])
        assert torch.equal(generators[0].get_state(), generators[1].get_state()), "anchors draw nothing"
        terms = sum(weight * output.metrics[f"anchor/{name}"] for name, weight in weights.items())
        torch.testing.assert_close(output.losses, alone.losses + terms)
        assert all(torch.equal(output.metrics[name], value) for name, value in alone.metrics.items())
        assert (output.metrics["anchor/kl"] > 1e-6).all()
        assert not torch.allclose(gradients(policy, output), gradients(policy, alone), rtol=1e-3)

    def test_pull_the_policy_back(self) -> None:
        """Along minus the gradient of `kl` alone the distance falls."""
        policy = policy_apart()
        method, pairs = on_noise(kl=1.0), image_pairs(policy)
        alone, output = (some.loss(policy, pairs, generator=seeded(1)) for some in (NOISE, method))
        pull = gradients(policy, output) - gradients(policy, alone)
        with torch.no_grad():
            start = 0
            for parameter in policy.trainable_parameters().values():
                parameter -= 0.1 * pull[start : start + parameter.numel()].view_as(parameter)
                start += parameter.numel()
        nearer = method.loss(policy, pairs, generator=seeded(1)).metrics["anchor/kl"]
        assert (nearer < output.metrics["anchor/kl"]).all()

    def test_vanish_at_the_reference(self) -> None:
        policy = tiny_policy(dtype=torch.float64)
        output = on_noise(kl=1e6).loss(policy, image_pairs(policy), generator=seeded(1))
        assert output.metrics["anchor/kl"].tolist() == [0.0] * 3


class TestWinner:
    @pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
    def test_is_the_error_on_the_preferred_images(self, prediction_type: str) -> None:
        policy = policy_apart(prediction_type=prediction_type)
        metrics = on_noise(winner=1.0).loss(policy, image_pairs(policy), generator=seeded(1)).metrics
        expected = metrics["error/policy_chosen"].mean().expand(3)
        torch.testing.assert_close(metrics["anchor/winner"], expected, rtol=1e-5, atol=1e-7)

    def test_is_that_of_a_flow_s_velocity(self) -> None:
        policy: Any = PackedFlow(weight=torch.tensor(0.3, requires_grad=True))
        generator = seeded()
        latents = [torch.randn(4, *policy.latent_shape, generator=generator) for _ in range(2)]
        pairs = ImagePairs(
            chosen_latents=latents[0], rejected_latents=latents[1], conditioning=policy.encode_prompts(["a"] * 4)
        )
        output = on_noise(winner=1.0, kl=1.0).loss(policy, pairs, generator=seeded(1))
        torch.testing.assert_close(
            output.metrics["anchor/winner"].double(),
            output.metrics["error/policy_chosen"].mean().expand(4),
            rtol=1e-4,
            atol=1e-5,
        )
        assert (output.metrics["anchor/kl"] > 0).all()

    def test_is_that_of_likes_alone(self) -> None:
        policy = policy_apart()
        pairs = image_pairs(policy)
        liked = torch.tensor([True, False, True])
        likes = Likes(latents=pairs.chosen_latents, conditioning=pairs.conditioning, liked=liked)

        class OnLikes:
            errors: Tensor

            def loss(self, policy: Any, batch: Likes, *, generator: torch.Generator) -> LossOutput:
                times, noise = drawn(batch, policy.process, batch.latents.shape[1:], draws=None, generator=generator)
                rows = noised(policy.process, batch.latents, noise, times, batch.conditioning)
                self.errors = (rows.prediction(policy) - rows.target).square().mean((1, 2, 3)).detach()
                return LossOutput(losses=torch.zeros(3, dtype=torch.float64), metrics={})

        method = OnLikes()
        output = on_noise(method, winner=1.0).loss(policy, likes, generator=seeded(1))
        expected = (method.errors * liked).mean().expand(3)
        torch.testing.assert_close(output.metrics["anchor/winner"], expected, rtol=1e-5, atol=1e-7)

    def test_leaves_out_ties(self) -> None:
        policy = policy_apart()
        labels = torch.tensor([1.0, 0.5, 0.8])
        pairs = replace(image_pairs(policy), chosen_probability=labels)
        metrics = on_noise(winner=1.0).loss(policy, pairs, generator=seeded(1)).metrics
        expected = (metrics["error/policy_chosen"] * (labels > 0.5)).mean().expand(3)
        torch.testing.assert_close(metrics["anchor/winner"], expected, rtol=1e-5, atol=1e-7)

    def test_leaves_out_pairs_without_a_preference(self) -> None:
        policy = policy_apart()
        batch = step_batch(transition_pairs(policy))
        weighed = replace(batch, weight=torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64))
        whole, less, none = (
            on_steps(winner=1.0).loss(policy, some, generator=seeded()).metrics["anchor/winner"][0]
            for some in (batch, weighed, replace(weighed, weight=torch.zeros(3, dtype=torch.float64)))
        )
        assert whole > less > none == 0


class TestCost:
    def rows(self, policy: PipelinePolicy, method: Any, batch: Any) -> list[int]:
        with rows_seen(policy.module) as seen:
            method.loss(policy, batch, generator=seeded())
        return seen

    def test_what_the_objective_asked_is_not_asked_again(self) -> None:
        policy = policy_apart()
        assert self.rows(policy, on_noise(kl=1.0, winner=1.0), image_pairs(policy)) == [6, 6]
        batch = step_batch(transition_pairs(policy))
        assert self.rows(policy, on_steps(kl=1.0, winner=1.0), batch) == [6, 6]

    def test_the_reference_is_asked_once_where_its_log_probabilities_come_with_the_batch(self) -> None:
        policy = policy_apart()
        batch = step_batch(with_reference(policy, transition_pairs(policy)))
        assert self.rows(policy, STEPS, batch) == [6]
        assert self.rows(policy, on_steps(winner=1.0), batch) == [6]
        assert self.rows(policy, on_steps(kl=1.0), batch) == [6, 6]
        live = step_batch(transition_pairs(policy))
        terms = [on_steps(kl=1.0).loss(policy, some, generator=seeded()) for some in (batch, live)]
        assert torch.equal(terms[0].metrics["anchor/kl"], terms[1].metrics["anchor/kl"])


class TestToward:
    @pytest.mark.parametrize("adapter", ["lora", "full"])
    def test_the_model_before_training_stays_where_the_reference_moves(self, adapter: Any) -> None:
        policy = policy_apart(adapter=adapter)
        pairs = image_pairs(policy)
        before = on_noise(kl=1.0).loss(policy, pairs, generator=seeded(1)).metrics["anchor/kl"]
        policy.move_reference()
        moved, initial = (
            on_noise(kl=1.0, toward=toward).loss(policy, pairs, generator=seeded(1)).metrics["anchor/kl"]
            for toward in ("reference", "initial")
        )
        assert moved.tolist() == [0.0] * 3
        torch.testing.assert_close(initial, before, rtol=1e-6, atol=1e-12)

    def test_a_frozen_reference_is_the_model_before_training(self) -> None:
        for kind, toward in (("frozen", "reference"), ("rollout", "initial")):
            reference = {"kind": kind}
            run = build_config(RunConfig, {"anchor": {"kl": 1.0, "toward": "initial"}, "reference": reference})
            method = anchored(NOISE, run, log_prob="noise")
            assert isinstance(method, Anchored)
            assert method.anchors.config.toward == toward


class TestData:
    def batch(self, policy: PipelinePolicy, visit: int = 0) -> BatchWithData:
        data = replace(image_pairs(policy, rows=2), pair=torch.tensor([4, 9]), visit=torch.tensor([visit, visit]))
        return BatchWithData(batch=image_pairs(policy), data=data)

    def test_is_the_diffusion_loss_of_preferred_images_at_draws_of_their_own(self) -> None:
        policy = policy_apart()
        batch = self.batch(policy)
        alone = NOISE.loss(policy, batch.batch, generator=seeded(1))
        output = on_noise(data=2.0).loss(policy, batch, generator=seeded(1))
        clean = batch.data.chosen_latents
        timestep, noise = DRAWS.timestep_and_noise(
            torch.tensor([4, 9]), torch.zeros(2, dtype=torch.int64), process=policy.process, shape=clean.shape[1:]
        )
        prediction = policy.predict(
            policy.process.noisy(clean, noise, timestep), timestep, policy.encode_prompts(PROMPTS[:2])
        )
        expected = (prediction - noise).square().mean()
        torch.testing.assert_close(output.losses, alone.losses + 2 * expected)
        torch.testing.assert_close(output.metrics["anchor/data"], expected.detach().expand(3))
        pull = gradients(policy, output) - gradients(policy, alone)
        parameters = list(policy.trainable_parameters().values())
        direct = torch.cat([value.flatten() for value in torch.autograd.grad(2 * expected, parameters)])
        torch.testing.assert_close(pull, direct, rtol=1e-6, atol=1e-9)

    def test_another_visit_is_another_draw(self) -> None:
        policy = policy_apart()
        terms = [
            on_noise(data=1.0).loss(policy, self.batch(policy, visit), generator=seeded(1)).metrics["anchor/data"][0]
            for visit in (0, 1, 0)
        ]
        assert terms[0] == terms[2] != terms[1]

    def test_works_beside_steps_and_costs_its_rows(self) -> None:
        policy = policy_apart()
        steps = step_batch(transition_pairs(policy))
        batch = BatchWithData(batch=steps, data=self.batch(policy).data)
        with rows_seen(policy.module) as seen:
            output = on_steps(data=1.0).loss(policy, batch, generator=seeded())
        assert seen == [6, 6, 2]
        alone = STEPS.loss(policy, steps, generator=seeded())
        torch.testing.assert_close(output.losses, alone.losses + output.metrics["anchor/data"])


def test_a_dropout_changes_neither_the_policy_nor_what_it_is_compared_with() -> None:
    """The policy's own pass is used, in which some inputs are left out; the reference has none."""
    policy = move(tiny_policy(lora=LoraForm(rank=4, dropout=0.5)))
    policy.module.train()
    torch.manual_seed(0)
    output = on_noise(kl=1.0).loss(policy, image_pairs(policy), generator=seeded(1))
    assert (output.metrics["anchor/kl"] > 0).all()
