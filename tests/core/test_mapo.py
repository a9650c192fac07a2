from __future__ import annotations

import math

import pytest
import torch

from seedpo.core.mapo import bounded_fit, mapo_losses, mapo_margin


def test_the_fit_is_the_published_one_where_that_is_finite() -> None:
    error = torch.linspace(1e-3, 50, 2000, dtype=torch.float64)
    torch.testing.assert_close(
        bounded_fit(error, scale=0.5), 0.5 * error / ((0.5 * error).exp() - 1), rtol=1e-9, atol=0
    )


def test_the_series_near_0_meets_the_quotient() -> None:
    """x / (exp(x) - 1) keeps all digits where exp(x) - 1 is computed as one; the series ends at x = 0.01."""
    scaled = torch.tensor([1e-6, 1e-3, 0.005, 0.0099999, 0.0100001], dtype=torch.float64)
    torch.testing.assert_close(bounded_fit(2 * scaled, scale=0.5), scaled / scaled.expm1(), rtol=1e-14, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_fit_falls_from_1_to_0_with_finite_gradients(dtype: torch.dtype) -> None:
    error = torch.tensor([0.0, 1e-15, 1e-9, 1e-3, 1.0, 10.0, 1e3, 1e6], dtype=dtype, requires_grad=True)
    fit = bounded_fit(error, scale=2.0)
    fit.sum().backward()
    assert fit[0].item() == pytest.approx(1.0, abs=1e-6)
    assert fit[-1].item() == 0.0
    assert (fit.diff() <= 0).all()
    assert error.grad is not None
    assert error.grad.isfinite().all()
    assert (error.grad <= 0).all()
    torch.testing.assert_close(error.grad[:3], torch.full((3,), -1.0, dtype=dtype), rtol=1e-5, atol=0)


def test_equal_errors_have_margin_0_and_a_swap_turns_the_sign() -> None:
    first, second = torch.tensor([0.2, 0.5, 3.0]).double(), torch.tensor([0.2, 0.9, 0.1]).double()
    margin = mapo_margin(first, second, scale=0.5, steps=1000.0)
    assert margin[0] == 0
    assert margin.sign().tolist() == [0.0, 1.0, -1.0]
    torch.testing.assert_close(mapo_margin(second, first, scale=0.5, steps=1000.0), -margin)


def test_the_loss_is_the_error_of_the_preferred_image_and_log_2_at_equal_errors() -> None:
    error = torch.tensor([0.3, 1.7]).double()
    losses = mapo_losses(error, torch.zeros(2).double(), beta=0.1)
    torch.testing.assert_close(losses, error + 0.1 * math.log(2))


def test_gradients_are_those_of_finite_differences() -> None:
    errors = torch.tensor([[0.2, 0.5, 3.0], [0.4, 0.5, 0.1]], dtype=torch.float64, requires_grad=True)

    def losses(errors: torch.Tensor) -> torch.Tensor:
        return mapo_losses(errors[0], mapo_margin(errors[0], errors[1], scale=0.5, steps=20.0), beta=0.3)

    assert torch.autograd.gradcheck(losses, (errors,))
