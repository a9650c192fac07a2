from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from seedpo.core.policy_gradient import clipped_policy_loss, is_clipped
from seedpo.core.transitions import Gaussian, gaussian_kl, gaussian_log_prob, squared_distance

CLIP = 0.2
RATIOS = [0.5, 1 - CLIP - 1e-6, 1 - CLIP + 1e-6, 1.0, 1 + CLIP - 1e-6, 1 + CLIP + 1e-6, 2.0]


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def loss_and_slope(ratio: float, advantage: float, clip_range: float | None) -> tuple[float, float]:
    """The loss at a ratio, and its derivative by log policy."""
    old = tensor(-3.0)
    log_prob = (old + math.log(ratio)).requires_grad_()
    loss = clipped_policy_loss(log_prob, old, tensor(advantage), clip_range=clip_range)
    (slope,) = torch.autograd.grad(loss.sum(), log_prob)
    return loss.item(), slope.item()


class TestClippedPolicyLoss:
    @pytest.mark.parametrize("ratio", RATIOS)
    @pytest.mark.parametrize("advantage", [1.5, -0.7, 0.0])
    def test_is_the_larger_of_two_losses(self, ratio: float, advantage: float) -> None:
        """As PPO writes it: max(-A rho, -A clip(rho))."""
        clipped = min(max(ratio, 1 - CLIP), 1 + CLIP)
        loss, _ = loss_and_slope(ratio, advantage, CLIP)
        assert loss == pytest.approx(max(-advantage * ratio, -advantage * clipped), rel=1e-9)

    @pytest.mark.parametrize("ratio", RATIOS)
    @pytest.mark.parametrize("advantage", [1.5, -0.7])
    def test_the_gradient_stops_on_the_side_that_the_advantage_pushes_to(self, ratio: float, advantage: float) -> None:
        stopped = ratio > 1 + CLIP if advantage > 0 else ratio < 1 - CLIP
        _, slope = loss_and_slope(ratio, advantage, CLIP)
        assert slope == pytest.approx(0.0 if stopped else -advantage * ratio, rel=1e-9)
        log_ratio = tensor(math.log(ratio))
        assert bool(is_clipped(log_ratio, tensor(advantage), clip_range=CLIP)) == stopped

    @given(ratio=st.floats(0.01, 100), advantage=st.floats(-5, 5))
    def test_without_a_clip_is_importance_sampling(self, ratio: float, advantage: float) -> None:
        loss, slope = loss_and_slope(ratio, advantage, None)
        assert loss == pytest.approx(-advantage * ratio, rel=1e-9, abs=1e-300)
        assert slope == pytest.approx(-advantage * ratio, rel=1e-9, abs=1e-300)

    def test_on_policy_is_reinforce(self) -> None:
        log_prob, advantage = tensor(-1.0, -2.0, -5.0).requires_grad_(), tensor(1.0, -0.5, 0.0)
        losses = clipped_policy_loss(log_prob, log_prob.detach(), advantage, clip_range=1e-4)
        assert losses.tolist() == (-advantage).tolist()
        (slope,) = torch.autograd.grad(losses.sum(), log_prob)
        assert slope.tolist() == (-advantage).tolist()

    def test_the_policy_that_drew_is_a_constant(self) -> None:
        drew = tensor(-1.0, -2.0).requires_grad_()
        assert not clipped_policy_loss(tensor(-1.0, -2.0), drew, tensor(1.0, -1.0), clip_range=None).requires_grad

    def test_a_huge_ratio_that_is_clipped_has_the_gradient_0(self) -> None:
        log_prob = tensor(2000.0, -2000.0).requires_grad_()
        losses = clipped_policy_loss(log_prob, tensor(0.0, 0.0), tensor(1.0, -1.0), clip_range=CLIP)
        (slope,) = torch.autograd.grad(losses.sum(), log_prob)
        assert slope.tolist() == [0.0, 0.0]
        torch.testing.assert_close(losses.detach(), tensor(-1 - CLIP, 1 - CLIP))

    @pytest.mark.parametrize("clip_range", [0.0, 1.0, -0.1, 2.0])
    def test_refuses_ranges_that_are_none(self, clip_range: float) -> None:
        with pytest.raises(ValueError, match="clip_range"):
            clipped_policy_loss(tensor(0.0), tensor(0.0), tensor(1.0), clip_range=clip_range)


class TestKL:
    def steps(self) -> tuple[Gaussian, Gaussian]:
        generator = torch.Generator().manual_seed(0)
        means = torch.randn(2, 4, 3, 5, generator=generator, dtype=torch.float64)
        std = tensor(0.1, 0.5, 1.0, 2.0)
        return Gaussian(mean=means[0], std=std), Gaussian(mean=means[1], std=std)

    def test_is_that_of_the_distributions(self) -> None:
        step, other = self.steps()
        std = step.std.view(-1, 1, 1)
        expected = kl_divergence(Normal(step.mean, std), Normal(other.mean, std))
        torch.testing.assert_close(gaussian_kl(step, other, reduction="sum"), expected.sum((1, 2)))
        torch.testing.assert_close(gaussian_kl(step, other, reduction="mean"), expected.mean((1, 2)))

    def test_is_the_mean_log_ratio_of_what_the_first_draws(self) -> None:
        step, other = (value[1:2] for value in self.steps())
        noise = torch.randn(200_000, 3, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        drawn, std = step.mean + 0.5 * noise, step.std.expand(len(noise))
        ratios = gaussian_log_prob(drawn, step.mean, std) - gaussian_log_prob(drawn, other.mean, std)
        error = float(ratios.std()) / math.sqrt(len(noise))
        assert float(ratios.mean()) == pytest.approx(float(gaussian_kl(step, other, reduction="sum")), abs=5 * error)

    def test_a_distance_of_the_means_is_without_the_deviations(self) -> None:
        step, other = self.steps()
        kl, distance = gaussian_kl(step, other, reduction="mean"), squared_distance(step.mean, other.mean)
        torch.testing.assert_close(kl, distance / (2 * step.std**2))

    def test_its_gradient_is_the_distance_in_deviations(self) -> None:
        step, other = self.steps()
        mean = step.mean.clone().requires_grad_()
        kl = gaussian_kl(Gaussian(mean=mean, std=step.std), other, reduction="mean")
        (gradient,) = torch.autograd.grad(kl.sum(), mean)
        torch.testing.assert_close(gradient, (mean.detach() - other.mean) / step.std.view(-1, 1, 1) ** 2 / 15)
