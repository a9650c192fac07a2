"""What SEE's margin is made of for flow matching: section 12 of docs/derivations.md, in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from seedpo.core.noise_weights import NOISE_WEIGHTS
from seedpo.core.objectives import entropy_weights, see_loss
from seedpo.core.transitions import gaussian_log_prob, noise_log_prob
from tests.core.flow_data import flow_process

A, B = entropy_weights(10.0, 3.0, convention="relative")
WEIGHTS = {"policy_weight": A, "reference_weight": B}
VARIANCES = torch.tensor([2.0, 1.0, 0.5, 0.1, 0.01, 0.01], dtype=torch.float64)
"""Of the entries of the images, which are independent."""


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def levels(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


class TestVelocityErrors:
    """Pairs of Gaussian images with one noise, and the reference that knows the best velocity."""

    ROWS = 40_000

    def reference_log_probs(self, level: float) -> tuple[Tensor, Tensor, Tensor]:
        """-1/2 of the mean squared error of both images of each pair, and the images, (2, ROWS, 6)."""
        images = normal(2, self.ROWS, len(VARIANCES), seed=0) * VARIANCES.sqrt()
        noise, process = normal(self.ROWS, len(VARIANCES), seed=1), flow_process()
        slope = (level - (1 - level) * VARIANCES) / self.total(level)
        sides = []
        for clean in images:
            timestep = levels(level).expand(self.ROWS)
            predicted = slope * process.noisy(clean, noise, timestep)
            sides.append(noise_log_prob(predicted, process.target(clean, noise, timestep), reduction="mean"))
        return sides[0], sides[1], images

    @staticmethod
    def total(level: float) -> Tensor:
        return (1 - level) ** 2 * VARIANCES + level**2

    @pytest.mark.parametrize("name", ["constant", "noise", "clean"])
    @pytest.mark.parametrize("level", [0.05, 0.3, 0.6, 0.9, 1.0])
    def test_the_offset_s_spread(self, name: str, level: float) -> None:
        """(a - b) w / D sqrt(sum (V / T)^2 (1 - r^2)), with r = (1 - s)^2 V / T."""
        factors = flow_process().error_weights(levels(level))
        weight = NOISE_WEIGHTS[name].weight(*factors, 5.0)
        chosen, rejected, _ = self.reference_log_probs(level)
        offset = see_loss(weight * chosen, weight * rejected, weight * chosen, weight * rejected, **WEIGHTS).metrics[
            "offset"
        ]
        share, shared = VARIANCES / self.total(level), (1 - level) ** 2 * VARIANCES / self.total(level)
        spread = (share.square() * (1 - shared.square())).sum().sqrt() / len(VARIANCES)
        expected = (A - B) * float(weight) * float(spread)
        assert float(offset.std()) == pytest.approx(expected, rel=0.04, abs=1e-12)

    def test_at_pure_noise_it_compares_distances_from_the_mean_image(self) -> None:
        chosen, rejected, images = self.reference_log_probs(1.0)
        offset = see_loss(chosen, rejected, chosen, rejected, **WEIGHTS).metrics["offset"]
        distances = images.square().mean(2)
        torch.testing.assert_close(offset, -(A - B) / 2 * (distances[0] - distances[1]), rtol=1e-9, atol=1e-12)

    def test_entries_that_vary_together_count_once(self) -> None:
        """Its spread there is (a - b) mean(V) / sqrt(D_eff), D_eff = (sum V)^2 / sum V^2."""
        chosen, rejected, _ = self.reference_log_probs(1.0)
        offset = see_loss(chosen, rejected, chosen, rejected, **WEIGHTS).metrics["offset"]
        effective = float(VARIANCES.sum() ** 2 / VARIANCES.square().sum())
        assert effective < len(VARIANCES) / 2
        expected = (A - B) * float(VARIANCES.mean()) / math.sqrt(effective)
        assert float(offset.std()) == pytest.approx(expected, rel=0.04)

    @pytest.mark.parametrize("name", ["constant", "noise", "clean"])
    def test_both_sides_gradients_in_closed_form(self, name: str) -> None:
        """dL/dv = a w sigma(-m) (v - target) / D of the chosen side, and the opposite of the rejected one."""
        process, level = flow_process(), levels(0.2, 0.7, 1.0)
        weight = NOISE_WEIGHTS[name].weight(*process.error_weights(level), 5.0)
        noise = normal(3, 4, seed=0)
        targets = [process.target(normal(3, 4, seed=side), noise, level) for side in (1, 2)]
        policy = [(target + normal(3, 4, seed=side)).requires_grad_() for side, target in enumerate(targets, 3)]
        reference = [target + normal(3, 4, seed=side) for side, target in enumerate(targets, 5)]
        sides = [
            weight * noise_log_prob(value, target, reduction="mean")
            for values in (policy, reference)
            for value, target in zip(values, targets, strict=True)
        ]
        output = see_loss(*sides, **WEIGHTS)
        output.losses.sum().backward()
        pull = A * weight * torch.sigmoid(-output.metrics["rewards/margins"])
        for sign, value, target in zip((1, -1), policy, targets, strict=True):
            expected = sign * pull[:, None] * (value.detach() - target) / 4
            torch.testing.assert_close(value.grad, expected, rtol=1e-9, atol=1e-12)


STRENGTH = 0.6


def sensitivity(sde: str, now: Tensor, then: Tensor) -> Tensor:
    """k: a step's mean moves by -k std for a velocity that is larger by 1."""
    eta, length = STRENGTH, now - then
    if sde == "dance":
        return length.sqrt() * (1 / eta + eta * (1 - now) / (2 * now))
    if sde == "flow-grpo":
        return torch.where(now < 1, (length * (1 - now) / now).sqrt() * (1 / eta + eta / 2), length / eta)
    angle = eta * math.pi / 2
    return ((1 - then) * now - then * (1 - now) * math.cos(angle)) / (then * math.sin(angle))


@pytest.mark.parametrize("sde", ["dance", "flow-grpo", "cps"])
class TestSteps:
    NOW, THEN = levels(1.0, 0.8, 0.3), levels(0.9, 0.7, 0.1)

    def steps(self, sde: str) -> tuple[Any, Any, Tensor]:
        """The policy's and the reference's steps from shared latents, and by how much their velocities differ."""
        process, latents = flow_process(sde=sde), normal(3, 4, seed=0)
        velocity, change = normal(3, 4, seed=1), 0.3 * normal(3, 4, seed=2)
        policy, reference = (
            process.step(prediction, latents, self.NOW, self.THEN, eta=STRENGTH)
            for prediction in (velocity, velocity - change)
        )
        return policy, reference, change

    def test_how_far_apart_two_steps_are(self, sde: str) -> None:
        policy, reference, change = self.steps(sde)
        shift = (policy.mean - reference.mean) / policy.std[:, None]
        torch.testing.assert_close(shift, -sensitivity(sde, self.NOW, self.THEN)[:, None] * change)

    def test_on_policy_margin(self, sde: str) -> None:
        """m = -b k Delta eps . change - (a - b) Delta |eps|^2 / 2: the second part knows no level and no rule."""
        policy, reference, change = self.steps(sde)
        noises = [normal(3, 4, seed=side) for side in (5, 6)]
        drawn = [policy.mean + policy.std[:, None] * noise for noise in noises]
        sides = [gaussian_log_prob(x, step.mean, step.std) for step in (policy, reference) for x in drawn]
        output = see_loss(*sides, **WEIGHTS)
        along = -sensitivity(sde, self.NOW, self.THEN) * ((noises[0] - noises[1]) * change).sum(1)
        lengths = (noises[0].square() - noises[1].square()).sum(1)
        margin = B * along - (A - B) / 2 * lengths
        torch.testing.assert_close(output.metrics["rewards/margins"], margin, rtol=1e-8, atol=1e-8)
        base = see_loss(*sides, policy_weight=B, reference_weight=B)
        torch.testing.assert_close(base.metrics["rewards/margins"], B * along, rtol=1e-8, atol=1e-8)

    def test_the_log_ratio_of_a_step(self, sde: str) -> None:
        """-k eps . change + k^2 |change|^2 / 2."""
        policy, reference, change = self.steps(sde)
        noise = normal(3, 4, seed=5)
        drawn = policy.mean + policy.std[:, None] * noise
        log_probs = [gaussian_log_prob(drawn, step.mean, step.std) for step in (policy, reference)]
        k = sensitivity(sde, self.NOW, self.THEN)
        expected = -k * (noise * change).sum(1) + k.square() * change.square().sum(1) / 2
        torch.testing.assert_close(log_probs[0] - log_probs[1], expected, rtol=1e-8, atol=1e-8)

    def test_both_sides_gradients_in_closed_form(self, sde: str) -> None:
        """dL/dv = a sigma(-m) k eps of the chosen side, and the opposite of the rejected one; two separate x."""
        process = flow_process(sde=sde)
        latents = [normal(3, 4, seed=side) for side in (0, 1)]
        velocities = [normal(3, 4, seed=side).requires_grad_() for side in (2, 3)]
        drawn = [normal(3, 4, seed=side) for side in (4, 5)]
        steps = [
            process.step(velocity, x, self.NOW, self.THEN, eta=STRENGTH)
            for velocity, x in zip(velocities, latents, strict=True)
        ]
        log_probs = [gaussian_log_prob(x, step.mean, step.std) for x, step in zip(drawn, steps, strict=True)]
        references = [log_prob.detach() + 0.1 * side for side, log_prob in enumerate(log_probs)]
        output = see_loss(*log_probs, *references, **WEIGHTS)
        output.losses.sum().backward()
        pull = A * torch.sigmoid(-output.metrics["rewards/margins"]) * sensitivity(sde, self.NOW, self.THEN)
        for sign, velocity, x, step in zip((1, -1), velocities, drawn, steps, strict=True):
            noise = (x - step.mean.detach()) / step.std[:, None]
            torch.testing.assert_close(velocity.grad, sign * pull[:, None] * noise, rtol=1e-8, atol=1e-10)


def test_short_steps_of_cps_still_move_by_as_much() -> None:
    """Its k tends to (1 - s) tan(eta pi / 4), while those of rules with a score fall with the root of the length."""
    now, angle = levels(0.5), STRENGTH * math.pi / 4
    for sde, limit in (("cps", 0.5 * math.tan(angle)), ("dance", 0.0), ("flow-grpo", 0.0)):
        assert float(sensitivity(sde, now, now - 1e-8)) == pytest.approx(limit, abs=1e-3)


@pytest.mark.parametrize(("dimensions", "spread"), [(65_536, 0.117), (262_144, 0.059), (512, 1.33)])
def test_the_table_of_spreads(dimensions: int, spread: float) -> None:
    assert (A - B) / math.sqrt(dimensions) == pytest.approx(spread, rel=0.01)


def test_the_spread_of_a_step_s_log_ratio() -> None:
    """With the k of DanceGRPO's rule at strength 0.3 in the middle of 20 steps."""
    k = math.sqrt(0.05) * (1 / 0.3 + 0.3 / 2)
    assert k == pytest.approx(0.8, rel=0.05)
    assert k * 0.05 / math.sqrt(65_536) == pytest.approx(1.6e-4, rel=0.06)


@pytest.mark.parametrize(("beta", "effective", "spread"), [(2000, 65_536, 7.8), (2000, 64, 250), (100, 64, 12.5)])
def test_the_table_of_spreads_at_pure_noise(beta: float, effective: int, spread: float) -> None:
    """With gamma 1 and a mean variance of 1 per entry."""
    a, b = entropy_weights(beta, 1.0, convention="relative")
    assert (a - b) / math.sqrt(effective) == pytest.approx(spread, rel=0.01)
