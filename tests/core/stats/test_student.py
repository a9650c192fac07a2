from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from seedpo.core.stats.student import QUANTILES, student_interval


def test_the_quantiles() -> None:
    """Closed forms of 1 and 2 degrees of freedom: tan(0.475 pi), and (2 p - 1) / sqrt(2 p (1 - p)); scipy for all."""
    assert QUANTILES[0] == pytest.approx(math.tan(0.475 * math.pi), abs=5e-4)
    assert QUANTILES[1] == pytest.approx(0.95 / math.sqrt(2 * 0.975 * 0.025), abs=5e-4)
    assert pytest.approx(stats.t.ppf(0.975, np.arange(1, len(QUANTILES) + 1)), abs=5e-4) == QUANTILES


@pytest.mark.parametrize("count", [2, 5, 31])
def test_the_interval_of_a_mean_is_that_of_scipy(count: int) -> None:
    values = np.random.default_rng(count).normal(3.0, 2.0, count)
    wanted = stats.t.interval(0.95, count - 1, values.mean(), stats.sem(values))
    assert student_interval(values) == pytest.approx(wanted, abs=1e-3)


def test_beyond_the_table_the_interval_is_a_little_too_wide() -> None:
    values = np.random.default_rng(0).normal(size=200)
    low, high = student_interval(values)
    least, most = stats.t.interval(0.95, 199, values.mean(), stats.sem(values))
    assert low < least < most < high
    assert (high - low) / (most - least) < 1.05


@pytest.mark.parametrize("values", [[], [1.0]])
def test_one_value_has_no_interval(values: list[float]) -> None:
    assert all(map(math.isnan, student_interval(values)))
