"""Student's t against scipy."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from seedpo.core.stats.student import student_p, student_quantile

FREEDOM = (0.3, 1.0, 1.5, 3.0, 9.7, 50.0, 1000.0, 1e5)


@pytest.mark.parametrize("df", FREEDOM)
def test_p_values_are_scipys(df: float) -> None:
    for t in (0.0, 1e-9, 0.1, 1.0, 2.5, 10.0, 200.0):
        expected = 2 * stats.t.sf(t, df)
        assert student_p(t, df) == pytest.approx(expected, rel=1e-9, abs=1e-300)
        assert student_p(-t, df) == student_p(t, df)


@pytest.mark.parametrize("df", FREEDOM)
def test_quantiles_are_scipys(df: float) -> None:
    for level in (0.1, 0.5, 0.9, 0.95, 0.999):
        assert student_quantile(level, df) == pytest.approx(stats.t.ppf(0.5 + level / 2, df), rel=1e-9)


def test_many_degrees_of_freedom_are_the_normal_distribution() -> None:
    assert student_quantile(0.95, math.inf) == pytest.approx(1.959964, abs=1e-6)
    assert student_p(1.959964, math.inf) == pytest.approx(0.05, abs=1e-7)
    assert student_p(math.inf, 3.0) == 0.0


def test_impossible_numbers_are_refused() -> None:
    for level, df in ((0.0, 3.0), (1.0, 3.0), (0.95, 0.01), (0.95, math.nan)):
        with pytest.raises(ValueError, match="must"):
            student_quantile(level, df)
    with pytest.raises(ValueError, match="above 0"):
        student_p(1.0, 0.0)
