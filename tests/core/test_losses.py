from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from seedpo.core.losses import LOSSES, PreferenceLoss, clipped_loss
from seedpo.core.objectives import preference_loss, see_loss
from seedpo.errors import ConfigError
from seedpo.training.configuration import resolve_config
from seedpo.training.run import build_method

BETA = 0.4
MARGINS = torch.tensor([-30.0, -2.0, -0.3, 0.0, 0.2, 0.7, 3.0, 30.0], dtype=torch.float64)
SLOPES: dict[str, Any] = {
    "sigmoid": lambda m: -1 / (1 + np.exp(m)),
    "ipo": lambda m: 2 * (m - 0.5) / BETA**2,
    "hinge": lambda m: -(m < 1).astype(float),
}
EVERY = pytest.mark.parametrize("loss", LOSSES)


def losses_of(margins: Tensor, loss: str, probability: Tensor | None = None) -> Tensor:
    return preference_loss(margins, torch.zeros_like(margins), probability, loss=loss, beta=BETA)


@EVERY
def test_gradient_in_closed_form(loss: str) -> None:
    margins = MARGINS.clone().requires_grad_()
    losses_of(margins, loss).sum().backward()
    np.testing.assert_allclose(margins.grad, SLOPES[loss](MARGINS.numpy()), rtol=1e-10, atol=1e-12)
    assert torch.autograd.gradcheck(lambda values: losses_of(values, loss), (margins,))


@EVERY
def test_one_number_is_the_tensor(loss: str) -> None:
    expected = [LOSSES[loss].value(margin, BETA) for margin in MARGINS.tolist()]
    torch.testing.assert_close(losses_of(MARGINS, loss), torch.tensor(expected, dtype=torch.float64))


@EVERY
@pytest.mark.parametrize("bound", [0.02, 0.6, 5.0])
def test_bounds_are_the_extremes(loss: str, bound: float) -> None:
    grid = torch.linspace(-bound, bound, 20001, dtype=torch.float64)
    losses = losses_of(grid, loss)
    low, high = LOSSES[loss].bounds(bound, BETA)
    assert (low, high) == pytest.approx((float(losses.min()), float(losses.max())), rel=1e-6, abs=1e-6)
    assert LOSSES[loss].start_value(BETA) == pytest.approx(float(losses[10000]))
    assert (
        clipped_loss(BETA, 0.1, loss=loss)[0] < LOSSES[loss].start_value(BETA) < clipped_loss(BETA, 0.1, loss=loss)[1]
    )


@EVERY
@pytest.mark.parametrize(("probability", "least"), [(1.0, None), (0.5, 0.0)])
def test_where_it_is_least(loss: str, probability: float, least: float | None) -> None:
    """A win draws the margin to the loss's best one, a tie to 0 (the hinge is flat within [-1, 1])."""
    grid = torch.linspace(-4, 4, 8001, dtype=torch.float64)
    losses = losses_of(grid, loss, torch.full_like(grid, probability))
    best = min(LOSSES[loss].best_margin, 4.0) if least is None else least
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


@pytest.mark.parametrize("method", ["diffusion-dpo", "spo"])
def test_a_loss_is_one_function_and_a_row(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    row = replace(LOSSES["hinge"], target="tests.core.test_losses:far")
    with pytest.raises(ConfigError, match="loss = 'far'"):
        resolve_config(method, {"loss": "far"})
    monkeypatch.setitem(LOSSES, "far", row)
    built: Any = build_method(resolve_config(method, {"loss": "far"}))
    assert losses_of(MARGINS, built.loss_name).tolist() == (2 - MARGINS).clamp(min=0).tolist()
    assert isinstance(row, PreferenceLoss)


def far(margin: Tensor, beta: float) -> Tensor:
    return (2 - margin).clamp(min=0)
