from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from seedpo.core.objectives import (
    SATURATION_MARGIN,
    clip_log_ratio,
    entropy_weights,
    implicit_reward,
    preference_loss,
    see_loss,
)

METRICS = {
    "rewards/chosen",
    "rewards/rejected",
    "rewards/margins",
    "rewards/accuracies",
    "offset",
    "margin_abs",
    "saturated",
    "clipped",
    "log_ratio/chosen",
    "log_ratio/rejected",
    "gradient_factor",
}


def log_probs(rows: int = 5, *, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Chosen and rejected under the policy (leaves), then under the reference."""
    values = torch.randn(4, rows, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) - 2
    chosen, rejected, chosen_reference, rejected_reference = values
    return chosen.requires_grad_(), rejected.requires_grad_(), chosen_reference, rejected_reference


class TestEntropyWeights:
    @pytest.mark.parametrize(
        ("beta", "gamma", "convention", "policy_weight"),
        [
            (0.1, 0.0, "relative", 0.1),
            (0.1, 0.0, "absolute", 0.1),
            (0.1, 3.0, "relative", 0.4),
            (0.1, 0.3, "absolute", 0.4),
            (2000.0, 1e-3, "relative", 2002.0),
            (10.0, -0.5, "relative", 5.0),
            (10.0, -0.5, "absolute", 9.5),
        ],
    )
    def test_values(self, beta: float, gamma: float, convention: Any, policy_weight: float) -> None:
        assert entropy_weights(beta, gamma, convention=convention) == (pytest.approx(policy_weight, rel=1e-12), beta)

    @pytest.mark.parametrize("convention", ["relative", "absolute"])
    @pytest.mark.parametrize("beta", [0.1, 0.3, 7.7, 5000.0])
    def test_gamma_0_gives_equal_weights(self, beta: float, convention: Any) -> None:
        assert entropy_weights(beta, 0.0, convention=convention) == (beta, beta)

    @pytest.mark.parametrize(
        ("beta", "gamma", "convention", "message"),
        [
            (0.0, 0.0, "relative", "beta = 0.0 .* above 0"),
            (-1.0, 0.0, "relative", "beta = -1.0 .* above 0"),
            (math.nan, 0.0, "relative", "beta = nan"),
            (math.inf, 0.0, "absolute", "beta = inf"),
            (0.1, math.nan, "relative", "gamma = nan"),
            (0.1, math.inf, "absolute", "gamma = inf"),
            (0.1, -1.0, "relative", "gamma = -1.0 .* raise gamma above -1"),
            (0.1, -2.0, "relative", "gamma = -2.0 .* raise gamma above -1"),
            (0.5, -0.5, "absolute", "gamma = -0.5 .* raise gamma above -0.5"),
            (1e300, 1e300, "relative", "infinite policy weight"),
            (0.1, 0.0, "other", "entropy_convention = 'other' .* 'relative' or 'absolute'"),
        ],
    )
    def test_refused(self, beta: float, gamma: float, convention: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message) as caught:
            entropy_weights(beta, gamma, convention=convention)
        assert "\n" not in str(caught.value)


class TestClipLogRatio:
    def test_equals_the_published_form_where_that_is_finite(self) -> None:
        ratio = torch.linspace(-0.5, 0.5, 101, dtype=torch.float64)
        published = torch.log(torch.clamp(torch.exp(ratio), 0.9, 1.1))
        clipped = clip_log_ratio(ratio - 3, torch.full_like(ratio, -3.0), clip_range=0.1)
        torch.testing.assert_close(clipped, published, rtol=1e-12, atol=1e-14)

    def test_gradient_is_one_inside_and_zero_outside(self) -> None:
        policy = torch.tensor([-1e4, -100.0, -0.2, -0.05, 0.0, 0.05, 0.2, 100.0, 1e4], requires_grad=True)
        clip_log_ratio(policy, torch.zeros(9), clip_range=0.1).sum().backward()
        assert policy.grad is not None
        assert policy.grad.tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 0]

    def test_no_range_does_not_clip(self) -> None:
        policy = torch.tensor([-1e4, 0.0, 1e4])
        assert torch.equal(clip_log_ratio(policy, torch.ones(3), clip_range=None), policy - 1)

    @pytest.mark.parametrize("clip_range", [0.0, 1.0, -0.1, 2.0, math.nan])
    def test_refused_ranges(self, clip_range: float) -> None:
        with pytest.raises(ValueError, match=r"clip_range = .* must lie between 0 and 1"):
            clip_log_ratio(torch.zeros(1), torch.zeros(1), clip_range=clip_range)


class TestImplicitReward:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_is_a_log_policy_minus_b_log_reference(self, dtype: torch.dtype) -> None:
        policy, _, reference, _ = (value.detach().to(dtype) for value in log_probs())
        reward = implicit_reward(policy, reference, policy_weight=0.7, reference_weight=0.2)
        assert reward.dtype == dtype
        torch.testing.assert_close(reward, 0.7 * policy - 0.2 * reference)

    def test_small_differences_of_large_log_probs_survive_in_float32(self) -> None:
        reference = torch.tensor([-23456.0])
        reward = implicit_reward(reference + 2**-9, reference, policy_weight=0.3, reference_weight=0.3)
        assert reward.item() == pytest.approx(0.3 * 2**-9, rel=1e-6)

    def test_only_the_ratio_is_clipped(self) -> None:
        policy, reference = torch.tensor([5.0], requires_grad=True), torch.tensor([-2.0], requires_grad=True)
        reward = implicit_reward(policy, reference, policy_weight=0.4, reference_weight=0.1, clip_range=0.1)
        reward.sum().backward()
        assert reward.item() == pytest.approx(0.4 * math.log(1.1) + 0.3 * -2.0)
        assert policy.grad is not None
        assert policy.grad.item() == 0
        assert reference.grad is None

    def test_the_reference_gets_no_gradient(self) -> None:
        policy, reference = torch.zeros(1, requires_grad=True), torch.ones(1, requires_grad=True)
        implicit_reward(policy, reference, policy_weight=0.4, reference_weight=0.1).sum().backward()
        assert policy.grad is not None
        assert policy.grad.item() == pytest.approx(0.4)
        assert reference.grad is None


class TestSeeLoss:
    @pytest.mark.parametrize("rows", [1, 5])
    def test_one_loss_and_one_value_of_each_metric_per_pair(self, rows: int) -> None:
        output = see_loss(*log_probs(rows), policy_weight=0.4, reference_weight=0.1, clip_range=0.1)
        assert output.losses.shape == (rows,)
        assert output.losses.requires_grad
        assert set(output.metrics) == METRICS
        assert output.spreads == ("offset",)
        for value in output.metrics.values():
            assert value.shape == (rows,)
            assert not value.requires_grad

    def test_is_the_paper_equation(self) -> None:
        chosen, rejected, chosen_reference, rejected_reference = log_probs()
        output = see_loss(
            chosen, rejected, chosen_reference, rejected_reference, policy_weight=0.4, reference_weight=0.1
        )
        margin = 0.4 * (chosen - rejected) - 0.1 * (chosen_reference - rejected_reference)
        torch.testing.assert_close(output.losses, -logsigmoid(margin))

    def test_is_the_preference_loss_of_the_implicit_rewards(self) -> None:
        chosen, rejected, chosen_reference, rejected_reference = log_probs()
        weights: dict[str, Any] = {"policy_weight": 0.4, "reference_weight": 0.1, "clip_range": 0.2}
        output = see_loss(chosen, rejected, chosen_reference, rejected_reference, **weights)
        expected = preference_loss(
            implicit_reward(chosen, chosen_reference, **weights),
            implicit_reward(rejected, rejected_reference, **weights),
        )
        assert torch.equal(output.losses, expected)

    def test_metrics(self) -> None:
        output = see_loss(
            torch.tensor([0.05, 30.0]),
            torch.tensor([0.0, -30.0]),
            torch.tensor([0.0, -1.0]),
            torch.tensor([-2.0, -1.0]),
            policy_weight=0.5,
            reference_weight=0.25,
            clip_range=0.1,
        )
        low, high = math.log(0.9), math.log(1.1)
        expected = {
            "rewards/chosen": [0.5 * 0.05, 0.5 * high - 0.25],
            "rewards/rejected": [0.5 * high - 0.5, 0.5 * low - 0.25],
            "rewards/margins": [0.025 - 0.5 * high + 0.5, 0.5 * (high - low)],
            "rewards/accuracies": [1.0, 1.0],
            "offset": [0.5, 0.0],
            "margin_abs": [0.525 - 0.5 * high, 0.5 * (high - low)],
            "saturated": [0.0, 0.0],
            "clipped": [0.5, 1.0],
            "log_ratio/chosen": [0.05, 31.0],
            "log_ratio/rejected": [2.0, -29.0],
        }
        for name, values in expected.items():
            torch.testing.assert_close(
                output.metrics[name], torch.tensor(values), msg=lambda text, n=name: f"{n}: {text}"
            )

    def test_saturated_and_accuracy_follow_the_margin(self) -> None:
        margins = torch.tensor([-7.0, -5.9, 0.0, 5.9, 7.0])
        zeros = torch.zeros(5)
        metrics = see_loss(margins, zeros, zeros, zeros, policy_weight=1.0, reference_weight=1.0).metrics
        assert metrics["saturated"].tolist() == [1, 0, 0, 0, 1]
        assert metrics["rewards/accuracies"].tolist() == [0, 0, 0, 1, 1]
        assert metrics["clipped"].tolist() == [0] * 5
        assert torch.sigmoid(torch.tensor(-SATURATION_MARGIN)).item() < 0.0025

    @pytest.mark.parametrize("clip_range", [None, 0.4])
    def test_gradcheck(self, clip_range: float | None) -> None:
        chosen, rejected, chosen_reference, rejected_reference = log_probs()

        def losses(chosen: Tensor, rejected: Tensor) -> Tensor:
            return see_loss(
                chosen,
                rejected,
                chosen_reference,
                rejected_reference,
                policy_weight=0.9,
                reference_weight=0.3,
                clip_range=clip_range,
            ).losses

        assert torch.autograd.gradcheck(losses, (chosen, rejected))

    def test_gradient_in_closed_form(self) -> None:
        """dL/dtheta = -a sigma(-m) (grad log pi(chosen) - grad log pi(rejected)) for a softmax policy."""
        generator = torch.Generator().manual_seed(3)
        logits = torch.randn(6, dtype=torch.float64, generator=generator).requires_grad_()
        reference = torch.randn(6, dtype=torch.float64, generator=generator).log_softmax(0)
        policy = logits.log_softmax(0)
        output = see_loss(
            policy[[2]], policy[[4]], reference[[2]], reference[[4]], policy_weight=0.8, reference_weight=0.5
        )
        (gradient,) = torch.autograd.grad(output.losses.sum(), logits)
        scores = torch.eye(6, dtype=torch.float64) - policy.detach().exp()  # row i: grad of log pi(i)
        expected = -0.8 * torch.sigmoid(-output.metrics["rewards/margins"]) * (scores[2] - scores[4])
        torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-14)


class TestChosenProbability:
    """Labels that are no certainty: L = -p log sigma(m) - (1 - p) log sigma(-m)."""

    MARGINS = torch.tensor([-40.0, -3.0, -0.1, 0.0, 0.1, 3.0, 40.0], dtype=torch.float64)

    @pytest.mark.parametrize("probability", [0.0, 0.25, 0.5, 0.9, 1.0])
    def test_is_the_closed_form(self, probability: float) -> None:
        given = torch.full((7,), probability)
        losses = preference_loss(self.MARGINS, torch.zeros(7, dtype=torch.float64), given)
        assert losses.dtype == torch.float64
        likely = float(given[0])  # 0.9 in float32
        expected = [
            likely * math.log1p(math.exp(-margin)) + (1 - likely) * math.log1p(math.exp(margin))
            for margin in self.MARGINS.tolist()
        ]
        torch.testing.assert_close(losses, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-15)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_certainty_is_no_probability_bit_for_bit(self, dtype: torch.dtype) -> None:
        results = []
        for probability in (None, torch.ones(7)):
            margins = self.MARGINS.clone().to(dtype).requires_grad_()
            losses = preference_loss(margins, torch.zeros(7, dtype=dtype), probability)
            losses.sum().backward()
            results.append((losses, margins.grad))
        assert torch.equal(results[0][0], results[1][0])
        assert results[0][0].dtype == results[1][0].dtype == dtype
        assert results[0][1] is not None
        assert results[1][1] is not None
        assert torch.equal(results[0][1], results[1][1])

    def test_a_pair_the_other_way_round_is_the_same_pair(self) -> None:
        probability, zeros = torch.linspace(0, 1, 7), torch.zeros(7, dtype=torch.float64)
        torch.testing.assert_close(
            preference_loss(self.MARGINS, zeros, probability),
            preference_loss(zeros, self.MARGINS, 1 - probability.double()),
        )

    def test_gradient_is_sigma_of_the_margin_less_the_probability(self) -> None:
        margins = self.MARGINS.clone().requires_grad_()
        probability = torch.tensor([0.5, 0.5, 1.0, 0.5, 0.0, 0.75, 0.5], dtype=torch.float64)
        preference_loss(margins, torch.zeros(7, dtype=torch.float64), probability).sum().backward()
        torch.testing.assert_close(margins.grad, torch.sigmoid(self.MARGINS) - probability, rtol=1e-12, atol=1e-15)

    @pytest.mark.parametrize("margin", [-1e4, 1e4])
    @pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
    def test_is_finite_at_extremes(self, margin: float, probability: float) -> None:
        margins = torch.tensor([margin], requires_grad=True)
        losses = preference_loss(margins, torch.zeros(1), torch.tensor([probability]))
        losses.sum().backward()
        assert margins.grad is not None
        assert torch.isfinite(losses).all()
        assert torch.isfinite(margins.grad).all()

    def test_reaches_the_loss_with_an_entropy_term_and_clipping(self) -> None:
        probability = torch.tensor([1.0, 0.5, 0.0, 0.5, 1.0])
        weights: dict[str, Any] = {"policy_weight": 0.9, "reference_weight": 0.3, "clip_range": 0.4}
        output = see_loss(*log_probs(), **weights, chosen_probability=probability)
        certain = see_loss(*log_probs(), **weights)
        margin = certain.metrics["rewards/margins"]
        torch.testing.assert_close(
            output.losses, -probability * logsigmoid(margin) - (1 - probability) * logsigmoid(-margin)
        )
        for name, value in certain.metrics.items():
            if name not in ("rewards/accuracies", "gradient_factor"):
                assert torch.equal(output.metrics[name], value), name

    def test_accuracy_is_the_chance_that_a_person_agrees(self) -> None:
        """A tie counts half whatever the margin; a certain pair counts as ever, at a margin of 0 too."""
        margins = torch.tensor([-1.0, 0.0, 1.0])
        zeros = torch.zeros(3)
        expected = {None: [0, 0, 1], 1.0: [0, 0, 1], 0.5: [0.5, 0.5, 0.5], 0.0: [1, 1, 0], 0.75: [0.25, 0.25, 0.75]}
        for probability, values in expected.items():
            given = None if probability is None else torch.full((3,), probability)
            output = see_loss(
                margins, zeros, zeros, zeros, policy_weight=1.0, reference_weight=1.0, chosen_probability=given
            )
            assert output.metrics["rewards/accuracies"].tolist() == values
