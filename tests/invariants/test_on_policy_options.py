"""What equal noise lengths, and an offset without them, do to the margin of steps that the policy drew itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from seedpo.core.candidate_noise import CandidateNoise
from seedpo.core.objectives import entropy_weights, see_loss
from seedpo.core.sampling import drawn_log_prob, step_candidates
from seedpo.core.transitions import Transition, ddim_transition, gaussian_log_prob
from seedpo.core.types import LossOutput
from tests.core.denoisers import small_schedule

ROWS, SHAPE = 6, (2, 3, 3)
A, B = entropy_weights(0.7, 2.0, convention="relative")


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def step(*, moved: float = 0.0, predicted: Tensor | None = None, apart: bool = False) -> Transition:
    """The steps of a network at six noise levels, from one x_t per pair, or from the rejected sides' own."""
    timestep = torch.tensor([95, 80, 70, 50, 40, 25])
    latents = normal(ROWS, *SHAPE, seed=7 if apart else 0)
    prediction = normal(ROWS, *SHAPE, seed=1) if predicted is None else predicted
    prediction = prediction + moved * normal(ROWS, *SHAPE, seed=3 if apart else 2)
    return ddim_transition(prediction, latents, timestep, timestep - 20, small_schedule(torch.float64), eta=1.0)


def drawn(noise: CandidateNoise = "independent") -> Tensor:
    return step_candidates(step(), count=2, generator=torch.Generator().manual_seed(5), noise=noise)


def log_probs(of: Transition, candidates: Tensor) -> tuple[Tensor, Tensor]:
    chosen, rejected = (gaussian_log_prob(candidates[:, side], of.mean, of.std) for side in (0, 1))
    return chosen, rejected


def loss(policy: Transition, candidates: Tensor, *, a: float = A, b: float = B, **settings: Any) -> LossOutput:
    reference = log_probs(step(moved=0.3), candidates)
    return see_loss(*log_probs(policy, candidates), *reference, policy_weight=a, reference_weight=b, **settings)


def margin(*given: Any, **settings: Any) -> Tensor:
    return loss(*given, **settings).metrics["rewards/margins"]


def noise_lengths(candidates: Tensor) -> Tensor:
    """|e_w|^2 - |e_l|^2."""
    noise = (candidates - step().mean.unsqueeze(1)) / step().std.view(-1, 1, 1, 1, 1)
    squared = noise.square().sum((2, 3, 4))
    return squared[:, 0] - squared[:, 1]


@pytest.mark.parametrize("noise", ["equal_norm", "antithetic"])
def test_noise_of_one_length_leaves_the_base_method_s_margin(noise: CandidateNoise) -> None:
    """On policy m = b Delta eps . shift, whatever a is; with independent noise it is not."""
    candidates = drawn(noise)
    torch.testing.assert_close(
        margin(step(), candidates), margin(step(), candidates, a=B), rtol=1e-6, atol=(A - B) * 1e-5
    )
    independent = drawn()
    apart = margin(step(), independent) - margin(step(), independent, a=B)
    torch.testing.assert_close(apart, -(A - B) * noise_lengths(independent) / 2, rtol=1e-6, atol=1e-6)
    assert apart.abs().min() > 0.1


def test_antithetic_margin_in_closed_form() -> None:
    """m = 2 b eps . shift: both sides go the same way, apart or together."""
    candidates = drawn("antithetic")
    shift = (step().mean - step(moved=0.3).mean) / step().std.view(-1, 1, 1, 1)
    eps = (candidates[:, 0] - step().mean) / step().std.view(-1, 1, 1, 1)
    torch.testing.assert_close(margin(step(), candidates), 2 * B * (eps * shift).sum((1, 2, 3)), rtol=1e-6, atol=1e-6)


def test_the_noise_part_of_the_offset_is_what_the_policy_said_of_the_steps_it_drew() -> None:
    """Delta log pi_old = -Delta |e|^2 / 2, from the noises and from the densities that a roll-out keeps."""
    candidates = drawn()
    kept = drawn_log_prob(step(), candidates.flatten(0, 1)).view(-1, 2)
    torch.testing.assert_close(kept[:, 0] - kept[:, 1], -noise_lengths(candidates) / 2, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("moved", [0.0, 0.2])
def test_without_noise_norms_the_margin_is_two_anchors(moved: float) -> None:
    """m' = m + (a - b) Delta |e|^2 / 2 = b Delta log(pi / pi_ref) + (a - b) Delta log(pi / pi_old), off policy too."""
    candidates, policy = drawn(), step(moved=-moved)
    old = log_probs(step(), candidates)
    output = loss(policy, candidates, offset_baseline=old)
    found = output.metrics["rewards/margins"]
    torch.testing.assert_close(
        found, margin(policy, candidates) + (A - B) * noise_lengths(candidates) / 2, rtol=1e-9, atol=1e-9
    )
    now, reference = log_probs(policy, candidates), log_probs(step(moved=0.3), candidates)
    anchored = B * ((now[0] - reference[0]) - (now[1] - reference[1]))
    anchored = anchored + (A - B) * ((now[0] - old[0]) - (now[1] - old[1]))
    torch.testing.assert_close(found, anchored, rtol=1e-9, atol=1e-9)
    offset = -(A - B) * ((old[0] - reference[0]) - (old[1] - reference[1]))
    torch.testing.assert_close(output.metrics["offset"], offset, rtol=1e-9, atol=1e-9)


def test_without_noise_norms_the_offset_is_what_the_shift_between_the_means_makes() -> None:
    """-(a - b) Delta (e . shift + |shift|^2 / 2), where the sides start at different x_t too, as in D3PO."""
    candidates, offset = drawn(), torch.zeros(ROWS, dtype=torch.float64)
    old, reference = [], []
    for side, sign in ((0, 1.0), (1, -1.0)):
        policy, frozen = step(apart=side == 1), step(moved=0.3, apart=side == 1)
        sigma = policy.std.view(-1, 1, 1, 1)
        noise = (candidates[:, side] - step().mean) / sigma
        x = policy.mean + sigma * noise
        shift = (policy.mean - frozen.mean) / sigma
        offset = offset - sign * (A - B) * ((noise * shift).sum((1, 2, 3)) + shift.square().sum((1, 2, 3)) / 2)
        old.append(gaussian_log_prob(x, policy.mean, policy.std))
        reference.append(gaussian_log_prob(x, frozen.mean, frozen.std))
    output = see_loss(*old, *reference, policy_weight=A, reference_weight=B, offset_baseline=(old[0], old[1]))
    torch.testing.assert_close(output.metrics["offset"], offset, rtol=1e-9, atol=1e-9)
    assert offset.abs().min() > 1e-3


@pytest.mark.parametrize("entropy_offset", ["full", "without_noise_norms"])
def test_on_policy_the_gradient_is_a_over_b_of_the_base_method_s(entropy_offset: str) -> None:
    """Pair by pair: times sigma(-m) / sigma(-m_base) with the full offset, times 1 without the noise norms."""
    candidates = drawn()
    found = {}
    for name, a in (("see", A), ("base", B)):
        prediction = normal(ROWS, *SHAPE, seed=1).requires_grad_()
        baseline = log_probs(step(), candidates) if entropy_offset != "full" else None
        output = loss(step(predicted=prediction), candidates, a=a, offset_baseline=baseline)
        output.losses.sum().backward()
        found[name] = (prediction.grad, torch.sigmoid(-output.metrics["rewards/margins"]))
    (gradient, weight), (base_gradient, base_weight) = found["see"], found["base"]
    assert gradient is not None
    assert base_gradient is not None
    scale = (A / B * weight / base_weight).view(-1, 1, 1, 1)
    torch.testing.assert_close(gradient, scale * base_gradient, rtol=1e-9, atol=1e-12)
    if entropy_offset != "full":
        torch.testing.assert_close(weight, base_weight, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("moved", [0.0, 0.2])
@pytest.mark.parametrize("noise", ["equal_norm", "antithetic"])
def test_with_noise_of_one_length_both_offsets_are_one(noise: CandidateNoise, moved: float) -> None:
    candidates, policy = drawn(noise), step(moved=-moved)
    without = margin(policy, candidates, offset_baseline=log_probs(step(), candidates))
    torch.testing.assert_close(without, margin(policy, candidates), rtol=1e-6, atol=(A - B) * 1e-5)


def test_the_table_of_spreads() -> None:
    """The standard deviations 0.23, 1.1 and 54 are (a - b) / sqrt(D); at equal lengths there is no spread."""
    for beta, gamma, dimensions, expected in ((10, 3, 16384, 0.23), (10, 3, 768, 1.1), (500, 3, 768, 54)):
        a, b = entropy_weights(beta, gamma, convention="relative")
        assert (a - b) / dimensions**0.5 == pytest.approx(expected, rel=0.02)
    assert (noise_lengths(drawn("equal_norm")) / 2).abs().max() < 1e-4
