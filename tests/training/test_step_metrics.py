from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from seedpo.core.types import LossOutput
from seedpo.training.step_metrics import (
    ProcessRows,
    check_output,
    count_pairs,
    mean_by_name,
    process_rows,
    rows_not_finite,
    step_figures,
    total_weight,
)


def output(*losses: float, offset: list[float] | None = None) -> LossOutput:
    values = torch.tensor(losses)
    metrics = {"margin": -values, "offset": torch.tensor(offset) if offset else values}
    return LossOutput(losses=values, metrics=metrics, spreads=("offset",))


def rows(*outputs: LossOutput) -> ProcessRows:
    return process_rows(outputs, stop=False)


def test_every_pair_weighs_the_same_in_unequal_batches_and_processes() -> None:
    processes = [rows(output(1.0, 2.0, 3.0), output(10.0)), rows(output(4.0))]
    figures = step_figures(processes)
    assert count_pairs(processes) == 5
    assert figures["loss"] == figures["offset/mean"] == 4.0
    assert figures["margin"] == -4.0
    assert "offset" not in figures
    assert "margin/std" not in figures


def test_the_mean_loss_is_weighted_by_what_the_method_says() -> None:
    light = output(3.0, 6.0)
    weighted = LossOutput(losses=light.losses, metrics=light.metrics, weights=torch.tensor([0.25, 0.75]))
    processes = [rows(weighted), rows(output(9.0))]
    assert total_weight(processes) == 2.0
    assert step_figures(processes)["loss"] == pytest.approx((0.25 * 3 + 0.75 * 6 + 9) / 2)
    assert step_figures(processes)["margin"] == -6.0
    with pytest.raises(ValueError, match="weights have shape"):
        check_output(LossOutput(losses=light.losses, metrics={}, weights=torch.ones(3)))


def test_spread_is_the_populations_over_all_pairs() -> None:
    processes = [rows(output(0, 0, offset=[1.0, 5.0])), rows(output(0, 0, offset=[2.0, 9.0]))]
    assert step_figures(processes)["offset/std"] == pytest.approx(np.std([1, 5, 2, 9], ddof=0))
    assert step_figures([rows(output(3.0))])["offset/std"] == 0.0


def test_a_metric_that_is_not_finite_does_no_harm() -> None:
    figures = step_figures([rows(output(1.0, 1.0, offset=[math.inf, 0.0]))])
    assert math.isinf(figures["offset/mean"])
    assert math.isnan(figures["offset/std"])


def test_rows_that_are_not_finite_are_named() -> None:
    processes = [rows(output(1.0), output(2.0, math.nan, math.inf)), rows(output(1.0), output(-math.inf, 0.0))]
    assert rows_not_finite(processes) == [
        "process 0, micro-batch 1, rows [1, 2]",
        "process 1, micro-batch 1, rows [0]",
    ]
    assert rows_not_finite([rows(output(1.0))]) == []


def test_means_over_processes_leave_out_those_without_a_figure() -> None:
    assert mean_by_name([{"a": 1.0, "b": 4.0}, {"a": 3.0}]) == {"a": 2.0, "b": 4.0}
    assert mean_by_name([{}, {}]) == {}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (LossOutput(losses=torch.tensor(1.0), metrics={}), r"shape \(\); there must be one loss per pair"),
        (LossOutput(losses=torch.zeros(0), metrics={}), r"shape \(0,\)"),
        (LossOutput(losses=torch.zeros(2, 1), metrics={}), r"shape \(2, 1\)"),
        (LossOutput(losses=torch.zeros(2), metrics={"a": torch.zeros(())}), r"metric 'a' has shape \(\)"),
        (LossOutput(losses=torch.zeros(2), metrics={}, spreads=("a",)), r"spread of \['a'\]"),
    ],
)
def test_an_output_of_another_shape_is_refused(wrong: LossOutput, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_output(wrong)
