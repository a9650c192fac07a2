from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from seedpo.core.losses import LOSSES, LossConstants, PreferenceLoss, clipped_loss
from seedpo.core.objectives import margin_slope, preference_loss, see_loss
from seedpo.errors import ConfigError
from seedpo.training.configuration import resolve_config
from seedpo.training.run import build_method

BETA = 0.4
CONSTANTS = LossConstants(beta=BETA, linear_floor=0.05, dmpo_smoothing=0.02)
MARGINS = torch.tensor([-30.0, -2.0, -0.3, 0.0, 0.2, 0.7, 3.0, 30.0], dtype=torch.float64)
SLOPES: dict[str, Any] = {
    "sigmoid": lambda m: -1 / (1 + np.exp(m)),
    "ipo": lambda m: 2 * (m - 0.5) / BETA**2,
    "hinge": lambda m: -(m < 1).astype(float),
    "linear": lambda m: -np.clip(0.5 - 0.4 * m, 0.05, 0.95),
    "dmpo": lambda m: (m - np.log(0.98 / 0.02)) / ((1 + np.exp(m)) * (1 + np.exp(-m))),
}
EVERY = pytest.mark.parametrize("loss", LOSSES)


def losses_of(margins: Tensor, loss: str, probability: Tensor | None = None) -> Tensor:
    return preference_loss(margins, torch.zeros_like(margins), probability, loss=loss, constants=CONSTANTS)


@EVERY
def test_gradient_in_closed_form(loss: str) -> None:
    margins = MARGINS.clone().requires_grad_()
    losses_of(margins, loss).sum().backward()
    np.testing.assert_allclose(margins.grad, SLOPES[loss](MARGINS.numpy()), rtol=1e-10, atol=1e-12)
    assert torch.autograd.gradcheck(lambda values: losses_of(values, loss), (margins,))


@EVERY
@pytest.mark.parametrize("probability", [None, 1.0, 0.5, 0.3])
def test_the_slope_is_the_gradient(loss: str, probability: float | None) -> None:
    margins = MARGINS.clone().requires_grad_()
    likely = None if probability is None else torch.full_like(MARGINS, probability)
    losses_of(margins, loss, likely).sum().backward()
    assert margins.grad is not None
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            slope = margin_slope(MARGINS, likely, loss=loss, constants=CONSTANTS)
        assert torch.equal(slope, margins.grad)
        assert not slope.requires_grad


@EVERY
def test_one_number_is_the_tensor(loss: str) -> None:
    expected = [LOSSES[loss].value(margin, CONSTANTS) for margin in MARGINS.tolist()]
    torch.testing.assert_close(losses_of(MARGINS, loss), torch.tensor(expected, dtype=torch.float64))


@EVERY
@pytest.mark.parametrize("bound", [0.02, 0.6, 5.0])
def test_bounds_are_the_extremes(loss: str, bound: float) -> None:
    grid = torch.linspace(-bound, bound, 20001, dtype=torch.float64)
    losses = losses_of(grid, loss)
    low, high = LOSSES[loss].bounds(bound, CONSTANTS)
    assert (low, high) == pytest.approx((float(losses.min()), float(losses.max())), rel=1e-6, abs=1e-6)
    assert LOSSES[loss].start_value(CONSTANTS) == pytest.approx(float(losses[10000]))
    least, greatest = clipped_loss(BETA, 0.1, loss=loss, constants=CONSTANTS)
    assert least < LOSSES[loss].start_value(CONSTANTS) < greatest


@EVERY
@pytest.mark.parametrize(("probability", "least"), [(1.0, None), (0.5, 0.0)])
def test_where_it_is_least(loss: str, probability: float, least: float | None) -> None:
    """A win draws the margin to the loss's best one, a tie to 0 (the hinge is flat within [-1, 1])."""
    grid = torch.linspace(-4, 4, 8001, dtype=torch.float64)
    losses = losses_of(grid, loss, torch.full_like(grid, probability))
    best = min(LOSSES[loss].best_margin(CONSTANTS), 4.0) if least is None else least
    assert (
        losses_of(torch.tensor([best], dtype=torch.float64), loss, torch.tensor([probability])) <= losses.min() + 1e-12
    )


def test_ipo_is_the_published_loss_on_log_ratios() -> None:
    """arXiv 2310.12036, eq. 17, with tau = beta, at gamma = 0; and h regresses on 1 / (2 beta)."""
    generator = torch.Generator().manual_seed(0)
    chosen, rejected, chosen_reference, rejected_reference = torch.randn(4, 5, dtype=torch.float64, generator=generator)
    output = see_loss(
        chosen, rejected, chosen_reference, rejected_reference, policy_weight=BETA, reference_weight=BETA, loss="ipo"
    )
    h = (chosen - rejected) - (chosen_reference - rejected_reference)
    torch.testing.assert_close(output.losses, (h - 1 / (2 * BETA)).square())


def test_hinge_stops_at_margin_1() -> None:
    assert losses_of(torch.tensor([0.999, 1.0, 7.0]), "hinge").tolist() == pytest.approx([0.001, 0.0, 0.0], abs=1e-6)


@pytest.mark.parametrize("floor", [0.0, 0.001, 0.2])
def test_linear_has_the_gradient_of_the_published_code(floor: float) -> None:
    """arXiv 2605.21123: stop(clip(0.5 + 0.2 beta D, eta, 1 - eta)) (e_w - e_l), here times beta/2 as DPO's gradient."""
    beta, generator = 5.0, torch.Generator().manual_seed(1)
    errors = torch.rand(4, 50, dtype=torch.float64, generator=generator).requires_grad_()
    chosen, rejected, chosen_reference, rejected_reference = errors
    difference = (chosen - rejected) - (chosen_reference - rejected_reference)
    published = ((0.5 + 0.2 * beta * difference).clamp(floor, 1 - floor).detach() * (chosen - rejected)).sum()
    (expected,) = torch.autograd.grad(published, errors)
    output = see_loss(
        *(-0.5 * errors),
        policy_weight=beta,
        reference_weight=beta,
        loss="linear",
        constants=LossConstants(linear_floor=floor),
    )
    (gradient,) = torch.autograd.grad(output.losses.sum(), errors)
    torch.testing.assert_close(gradient, beta / 2 * expected)
    reached = output.metrics["gradient_factor"]
    assert float(reached.min()) >= floor
    assert float(reached.max()) <= 1 - floor
    torch.testing.assert_close(gradient[0], beta / 2 * reached)


def test_linear_is_flat_from_five_quarters_on_without_a_floor() -> None:
    constants = LossConstants(linear_floor=0.0)
    values = [LOSSES["linear"].value(margin, constants) for margin in (-3.25, 0.0, 1.25, 40.0)]
    assert values == pytest.approx([3.25, 0.3125, 0.0, 0.0])


def test_dmpo_is_the_divergence_from_the_smoothed_label() -> None:
    """arXiv 2507.07510: KL(p || q) of p = sigma(m) and q = 1 - alpha."""
    constants = LossConstants(dmpo_smoothing=0.01)
    likely = torch.linspace(0.01, 0.999, 50, dtype=torch.float64)
    losses = preference_loss(likely.logit(), torch.zeros_like(likely), loss="dmpo", constants=constants)
    expected = likely * (likely / 0.99).log() + (1 - likely) * ((1 - likely) / 0.01).log()
    torch.testing.assert_close(losses, expected)
    assert LOSSES["dmpo"].best_margin(constants) == pytest.approx(4.59512)


@EVERY
@pytest.mark.parametrize("margin", [-1e4, 1e4])
def test_finite_at_extremes(loss: str, margin: float) -> None:
    margins = torch.tensor([margin], requires_grad=True)
    losses = preference_loss(margins, torch.zeros(1), torch.tensor([0.5]), loss=loss)
    losses.sum().backward()
    assert margins.grad is not None
    assert bool(losses.isfinite().all() and margins.grad.isfinite().all())


@pytest.mark.parametrize("method", ["diffusion-dpo", "spo"])
def test_a_loss_is_one_function_and_a_row(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    row = replace(LOSSES["hinge"], target="tests.core.test_losses:far")
    with pytest.raises(ConfigError, match="loss = 'far'"):
        resolve_config(method, {"loss": "far"})
    monkeypatch.setitem(LOSSES, "far", row)
    built: Any = build_method(resolve_config(method, {"loss": "far"}))
    assert losses_of(MARGINS, built.loss_name).tolist() == (2 - MARGINS).clamp(min=0).tolist()
    assert isinstance(row, PreferenceLoss)


def far(margin: Tensor, constants: LossConstants) -> Tensor:
    return (2 - margin).clamp(min=0)
