"""Weights and suspects in every objective: what they do to losses and gradients, and nothing where there are none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from seedpo.core.draws import KeyedDraws
from seedpo.core.types import ImagePairs, LossOutput, StepBatch
from seedpo.core.weighting import balanced
from seedpo.methods.anchors import Anchored, Anchors, NoiseForm, StepForm
from seedpo.methods.grpo import GRPO
from seedpo.methods.noise_dpo import NoiseDPO
from seedpo.methods.settings import AnchorConfig
from seedpo.methods.transition_dpo import TransitionDPO
from tests.methods import test_groups_of_images as groups_of_images
from tests.methods import test_grpo as steps_of_groups
from tests.methods import test_transition_dpo as transitions
from tests.methods.batches import image_pairs, transition_pairs
from tests.methods.pair_rows import step_batch
from tests.methods.sources.toys import seeded
from tests.models.tiny import move, tiny_policy

SUSPECT = torch.tensor([True, False, True])
WEIGHT = torch.tensor([0.0, 2.0, 0.5], dtype=torch.float64)
BETA, KAPPA = 3.0, 2.0
DRAWS = KeyedDraws(seed=3)


def policy_apart() -> Any:
    return move(tiny_policy(dtype=torch.float64), scale=0.02)


def gradient(policy: Any, losses: Tensor) -> Tensor:
    parameters = list(policy.trainable_parameters().values())
    return torch.cat([value.flatten() for value in torch.autograd.grad(losses.sum(), parameters)])


def on_noise(beta: float = BETA, kappa: float = 0.0, gamma: float = 0.0) -> NoiseDPO:
    return NoiseDPO(policy_weight=beta * (1 + gamma), reference_weight=beta, suspect_anchor=kappa)


def on_steps(beta: float = BETA, kappa: float = 0.0, gamma: float = 0.0) -> TransitionDPO:
    return TransitionDPO(
        policy_weight=beta * (1 + gamma),
        reference_weight=beta,
        suspect_anchor=kappa,
        sampling=transitions.SAMPLING,
        clip_range=0.5,
    )


def pairs_of_images(policy: Any) -> ImagePairs:
    return image_pairs(policy)


def pairs_of_steps(policy: Any) -> StepBatch:
    return step_batch(transition_pairs(policy, shared=(True, False, True)))


KINDS = pytest.mark.parametrize(
    ("method", "batch_of"), [(on_noise, pairs_of_images), (on_steps, pairs_of_steps)], ids=["noise", "steps"]
)


def output(method: Any, policy: Any, batch: Any) -> LossOutput:
    result: LossOutput = method.loss(policy, batch, generator=seeded())
    return result


class TestPairs:
    @KINDS
    def test_a_weight_multiplies_the_loss_and_its_gradient(self, method: Any, batch_of: Any) -> None:
        policy = policy_apart()
        batch = batch_of(policy)
        plain = output(method(), policy, batch)
        weighed = output(method(), policy, replace(batch, loss_weight=WEIGHT))
        torch.testing.assert_close(weighed.losses, WEIGHT * plain.losses, atol=0, rtol=0)
        torch.testing.assert_close(gradient(policy, weighed.losses), gradient(policy, WEIGHT * plain.losses.double()))
        assert all(torch.equal(weighed.metrics[name], values) for name, values in plain.metrics.items())

    @KINDS
    @pytest.mark.parametrize("gamma", [0.0, 0.5])
    def test_suspects_are_at_a_greater_beta(self, method: Any, batch_of: Any, gamma: float) -> None:
        """With the loss divided by as much, clips of the ratio included, and gamma what it was."""
        policy = policy_apart()
        batch = replace(batch_of(policy), suspect=SUSPECT)
        mixed = output(method(kappa=KAPPA, gamma=gamma), policy, batch)
        plain = output(method(gamma=gamma), policy, batch)
        greater = output(method(beta=BETA * (1 + KAPPA), gamma=gamma), policy, batch)
        expected = torch.where(SUSPECT, greater.losses / (1 + KAPPA), plain.losses)
        torch.testing.assert_close(mixed.losses, expected, atol=0, rtol=1e-12)
        torch.testing.assert_close(gradient(policy, mixed.losses), gradient(policy, expected))

    @KINDS
    def test_suspects_alone_change_nothing(self, method: Any, batch_of: Any) -> None:
        policy = policy_apart()
        batch = batch_of(policy)
        plain, suspected = (output(method(), policy, some) for some in (batch, replace(batch, suspect=SUSPECT)))
        assert torch.equal(plain.losses, suspected.losses)


class TestGroups:
    """P = 3 groups of G = 4 images."""

    FACTOR = torch.tensor([[0.5, 1.0, 2.0, 0.0]] * 3, dtype=torch.float64)

    @pytest.mark.parametrize("name", ["dgpo", "nft"])
    def test_weights_multiply_advantages(self, name: str) -> None:
        policy = groups_of_images.Trained(0.1)
        batch = groups_of_images.groups(policy)
        advantages = batch.advantages * self.FACTOR
        by_hand = replace(batch, advantages=balanced(advantages) if name == "dgpo" else advantages)
        method = groups_of_images.objective(name)
        weighed = output(method, policy, replace(batch, loss_weight=self.FACTOR))
        torch.testing.assert_close(weighed.losses, output(method, policy, by_hand).losses)
        assert not torch.allclose(weighed.losses, output(method, policy, batch).losses)

    def test_beta_of_a_group_grows_with_its_suspects(self) -> None:
        policy = groups_of_images.Trained(0.1)
        batch = groups_of_images.groups(policy)
        everything = torch.ones(3, 4, dtype=torch.bool)
        best = batch.advantages == batch.advantages.amax(1, keepdim=True)
        share = (batch.advantages.clamp(min=0) * best).sum(1) / batch.advantages.clamp(min=0).sum(1)

        def losses(beta: float, suspect: Tensor | None = None) -> Tensor:
            keys = {"policy_weight": beta, "reference_weight": beta, "suspect_anchor": KAPPA}
            method = groups_of_images.objective("dgpo", **keys)
            return output(method, policy, replace(batch, suspect=suspect)).losses

        torch.testing.assert_close(losses(4.0, everything), losses(4.0 * (1 + KAPPA)))
        torch.testing.assert_close(losses(4.0, ~everything), losses(4.0))
        for group in range(3):
            alone = losses(4.0 * (1 + KAPPA * float(share[group])))
            torch.testing.assert_close(losses(4.0, best)[group], alone[group])

    def test_steps_of_images(self) -> None:
        """Weights multiply advantages, and the KL of suspects weighs more."""
        policy = steps_of_groups.moved()
        steps = steps_of_groups.steps_of(policy, on_policy=False)
        weight = torch.tensor([0.0, 2.0, 0.5, 1.0, 3.0, 1.0], dtype=torch.float64)
        suspect = torch.tensor([True, False, False, True, False, False])

        def made(steps: Any, beta: float = 0.0, kappa: float = 0.0) -> LossOutput:
            method = GRPO(kl_weight=beta, sampling=steps_of_groups.SAMPLING, suspect_anchor=kappa)
            return output(method, policy, steps)

        by_hand = replace(steps, advantage=steps.advantage * weight)
        torch.testing.assert_close(made(replace(steps, loss_weight=weight)).losses, made(by_hand).losses)
        plain = made(steps, beta=0.5)
        extra = 0.5 * KAPPA * suspect * plain.metrics["kl"]
        torch.testing.assert_close(
            made(replace(steps, suspect=suspect), beta=0.5, kappa=KAPPA).losses, plain.losses + extra
        )
        assert (extra > 0).any()


class TestGatedAnchor:
    def gated(self, method: Any, form: Any, *, gated: bool = True) -> Anchored:
        return Anchored(
            method=method, anchors=Anchors(config=AnchorConfig(kl=2.0), form=form, draws=DRAWS, gated=gated)
        )

    @KINDS
    def test_it_holds_suspect_pairs_alone(self, method: Any, batch_of: Any) -> None:
        """The gated term of several pairs is the mean over all of them, those without suspicion counting 0."""
        policy = policy_apart()
        form = NoiseForm() if method is on_noise else StepForm(transitions.SAMPLING)
        batch = batch_of(policy)
        gate, free = self.gated(method(), form), self.gated(method(), form, gated=False)
        everyone, nobody = torch.ones_like(SUSPECT), torch.zeros_like(SUSPECT)

        def term(anchored: Anchored, suspect: Tensor) -> float:
            return float(output(anchored, policy, replace(batch, suspect=suspect)).metrics["anchor/kl"][0])

        assert term(gate, everyone) == pytest.approx(term(free, everyone), rel=1e-12)
        assert term(gate, nobody) == 0.0
        one_by_one = [term(gate, torch.arange(3) == pair) for pair in range(3)]
        assert min(one_by_one) > 0
        assert term(gate, SUSPECT) == pytest.approx(one_by_one[0] + one_by_one[2], rel=1e-12)
        assert sum(one_by_one) == pytest.approx(term(free, everyone), rel=1e-12)

    def test_it_holds_suspect_images_of_groups(self) -> None:
        policy = groups_of_images.Trained(0.1)
        batch = groups_of_images.groups(policy)
        for name in ("dgpo", "nft"):
            gate = self.gated(groups_of_images.objective(name), NoiseForm())

            def term(suspect: Tensor, gate: Anchored = gate) -> float:
                return float(output(gate, policy, replace(batch, suspect=suspect)).metrics["anchor/kl"][0])

            first = torch.arange(12).view(3, 4) == 5
            assert 0 < term(first) < term(torch.ones_like(first))
            assert term(first) + term(~first) == pytest.approx(term(torch.ones_like(first)))

    def test_it_holds_steps_of_suspect_images(self) -> None:
        policy = steps_of_groups.moved()
        steps = steps_of_groups.steps_of(policy, on_policy=True)
        method = GRPO(kl_weight=0.0, sampling=steps_of_groups.SAMPLING)
        gate = self.gated(method, StepForm(steps_of_groups.SAMPLING))

        def term(*suspects: int) -> float:
            suspect = torch.isin(torch.arange(6), torch.tensor(suspects))
            return float(output(gate, policy, replace(steps, suspect=suspect)).metrics["anchor/kl"][0])

        assert term(1, 4) == pytest.approx(term(1) + term(4), rel=1e-12)
        assert term(0) > 0
