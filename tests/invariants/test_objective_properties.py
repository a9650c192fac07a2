"""Properties that hold for every log-probability, weight and clip range."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import logsigmoid

from seedpo.core.objectives import entropy_weights, see_loss
from seedpo.core.types import LossOutput

properties = settings(derandomize=True, deadline=None, max_examples=100)
log_prob = st.floats(-1e4, 1e3, width=32)
four_log_probs = st.tuples(log_prob, log_prob, log_prob, log_prob)
moderate = st.tuples(*[st.floats(-5, 5)] * 4)
betas = st.floats(1e-3, 1e4)
gammas = st.floats(-0.9, 10)
clip_ranges = st.none() | st.floats(0.01, 0.9)
conventions = st.sampled_from(["relative", "absolute"])
dtypes = st.sampled_from([torch.float32, torch.float64])


def losses(values: tuple[float, ...], a: float, b: float, *, dtype: torch.dtype, clip: float | None) -> LossOutput:
    """One pair: chosen, rejected, chosen under the reference, rejected under the reference."""
    tensors = (torch.tensor([value], dtype=dtype) for value in values)
    return see_loss(*tensors, policy_weight=a, reference_weight=b, clip_range=clip)


@properties
@given(four_log_probs, betas, clip_ranges, conventions, dtypes)
def test_gamma_0_is_the_base_method_bit_for_bit(
    values: tuple[float, ...], beta: float, clip: float | None, convention: Any, dtype: torch.dtype
) -> None:
    chosen, rejected, chosen_reference, rejected_reference = (torch.tensor([value], dtype=dtype) for value in values)

    def ratio(policy: Tensor, reference: Tensor) -> Tensor:
        difference = policy - reference
        return difference if clip is None else difference.clamp(math.log1p(-clip), math.log1p(clip))

    base = -logsigmoid(beta * ratio(chosen, chosen_reference) - beta * ratio(rejected, rejected_reference))
    a, b = entropy_weights(beta, 0.0, convention=convention)
    assert torch.equal(losses(values, a, b, dtype=dtype, clip=clip).losses, base)


@properties
@given(moderate, st.floats(0.01, 2), gammas, st.none() | st.floats(0.01, 0.9))
def test_swapping_a_pair_negates_its_margin(
    values: tuple[float, ...], beta: float, gamma: float, clip: float | None
) -> None:
    """L(swapped) = L + m, so that exp(-L) + exp(-L(swapped)) = 1: the two are the probabilities of the two labels."""
    a, b = entropy_weights(beta, gamma, convention="relative")
    swapped = (values[1], values[0], values[3], values[2])
    here = losses(values, a, b, dtype=torch.float64, clip=clip)
    there = losses(swapped, a, b, dtype=torch.float64, clip=clip)
    assert torch.equal(there.metrics["rewards/margins"], -here.metrics["rewards/margins"])
    torch.testing.assert_close(there.losses, here.losses + here.metrics["rewards/margins"], rtol=1e-9, atol=1e-9)
    total = (-here.losses).exp() + (-there.losses).exp()
    torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-12, atol=0)


@properties
@given(log_prob, log_prob, betas, clip_ranges, dtypes)
def test_log_2_where_the_policy_is_the_reference(
    chosen: float, rejected: float, beta: float, clip: float | None, dtype: torch.dtype
) -> None:
    output = losses((chosen, rejected, chosen, rejected), beta, beta, dtype=dtype, clip=clip)
    torch.testing.assert_close(output.losses, torch.full((1,), math.log(2), dtype=dtype), rtol=1e-7, atol=0)


@properties
@given(moderate, st.floats(0.01, 100), gammas, clip_ranges)
def test_where_the_policy_is_the_reference_the_margin_is_the_offset(
    values: tuple[float, ...], beta: float, gamma: float, clip: float | None
) -> None:
    a, b = entropy_weights(beta, gamma, convention="relative")
    metrics = losses((*values[:2], *values[:2]), a, b, dtype=torch.float64, clip=clip).metrics
    torch.testing.assert_close(metrics["rewards/margins"], metrics["offset"], rtol=1e-9, atol=1e-9)


@properties
@given(moderate, st.floats(0.01, 100), gammas, clip_ranges)
def test_the_conventions_agree_at_gamma_absolute_equal_beta_times_gamma_relative(
    values: tuple[float, ...], beta: float, gamma: float, clip: float | None
) -> None:
    relative = entropy_weights(beta, gamma, convention="relative")
    absolute = entropy_weights(beta, beta * gamma, convention="absolute")
    assert relative == pytest.approx(absolute, rel=1e-12)
    torch.testing.assert_close(
        losses(values, *relative, dtype=torch.float64, clip=clip).losses,
        losses(values, *absolute, dtype=torch.float64, clip=clip).losses,
        rtol=1e-9,
        atol=1e-9,
    )


@properties
@given(moderate, st.floats(-50, 50), st.floats(0.01, 10), gammas, clip_ranges)
def test_what_both_sides_share_cancels(
    values: tuple[float, ...], shift: float, beta: float, gamma: float, clip: float | None
) -> None:
    """A constant of the prompt, such as a normalisation, in all four log-probabilities changes nothing."""
    a, b = entropy_weights(beta, gamma, convention="relative")
    shifted = tuple(value + shift for value in values)
    torch.testing.assert_close(
        losses(shifted, a, b, dtype=torch.float64, clip=clip).losses,
        losses(values, a, b, dtype=torch.float64, clip=clip).losses,
        rtol=1e-7,
        atol=1e-7,
    )


@pytest.mark.parametrize("gamma", [0.0, 3.0])
@pytest.mark.parametrize("clip", [None, 0.1])
@pytest.mark.parametrize("ratio", [-1e4, -110.0, -100.0, 0.0, 100.0, 1e4])
def test_extreme_ratios_give_finite_losses_and_gradients(ratio: float, clip: float | None, gamma: float) -> None:
    """log(clamp(exp(d))) has NaN gradients at d = 100, and log(sigmoid(z)) is infinite at z = -110."""
    chosen = torch.tensor([ratio], dtype=torch.float32, requires_grad=True)
    rejected = torch.tensor([-ratio], dtype=torch.float32, requires_grad=True)
    a, b = entropy_weights(1.0, gamma, convention="relative")
    output = see_loss(
        chosen,
        rejected,
        torch.tensor([-3.0]),
        torch.tensor([50.0]),
        policy_weight=a,
        reference_weight=b,
        clip_range=clip,
    )
    output.losses.sum().backward()
    for value in (output.losses, chosen.grad, rejected.grad, *output.metrics.values()):
        assert value is not None
        assert value.isfinite().all()


@pytest.mark.parametrize(("margin", "slope"), [(-110.0, -1.0), (-1e4, -1.0), (110.0, 0.0), (1e4, 0.0)])
def test_the_limits_of_the_gradient(margin: float, slope: float) -> None:
    chosen = torch.tensor([margin], dtype=torch.float32, requires_grad=True)
    zero = torch.zeros(1)
    loss = see_loss(chosen, zero, zero, zero, policy_weight=1.0, reference_weight=1.0).losses
    loss.sum().backward()
    assert chosen.grad is not None
    assert chosen.grad.item() == pytest.approx(slope, abs=1e-7)
    assert loss.item() == pytest.approx(max(-margin, 0.0), abs=1e-7)


@properties
@given(four_log_probs, betas, gammas, clip_ranges, dtypes)
def test_losses_and_gradients_are_finite_everywhere(
    values: tuple[float, ...], beta: float, gamma: float, clip: float | None, dtype: torch.dtype
) -> None:
    a, b = entropy_weights(beta, gamma, convention="relative")
    tensors = [torch.tensor([value], dtype=dtype, requires_grad=True) for value in values]
    output = see_loss(*tensors, policy_weight=a, reference_weight=b, clip_range=clip)
    output.losses.sum().backward()
    gradients = [tensor.grad for tensor in tensors]
    assert gradients[2] is None
    assert gradients[3] is None
    for value in (output.losses, *gradients[:2]):
        assert value is not None
        assert value.isfinite().all()
