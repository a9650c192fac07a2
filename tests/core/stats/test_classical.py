from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from seedpo.core.stats.classical import holm, student_interval, wilson_interval


def test_wilson_known_values() -> None:
    """The textbook's (Brown, Cai and DasGupta 2001: 0 of 10, and symmetry)."""
    assert wilson_interval(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    low, high = wilson_interval(77, 100)
    assert (low, high) == pytest.approx((0.6785, 0.8416), abs=1e-3)
    assert wilson_interval(23, 100) == pytest.approx((1 - high, 1 - low))


def test_wilson_ends_solve_the_score_equation() -> None:
    """At each end the observed share lies z standard errors of that end away."""
    z = 1.959964
    for successes, count in ((3, 10), (50.5, 99), (1, 2)):
        for end in wilson_interval(successes, count, z=z):
            assert (successes / count - end) ** 2 == pytest.approx(z * z * end * (1 - end) / count)


def test_wilson_none_and_all() -> None:
    assert wilson_interval(0, 5)[0] == pytest.approx(0.0, abs=1e-15)
    assert wilson_interval(5, 5)[1] == pytest.approx(1.0)


def test_student_interval_of_a_mean_is_that_of_scipy() -> None:
    for count in (2, 5, 31, 200):
        values = np.random.default_rng(count).normal(3.0, 2.0, count)
        wanted = stats.t.interval(0.95, count - 1, values.mean(), stats.sem(values))
        assert student_interval(values) == pytest.approx(wanted, rel=1e-9)


def test_student_one_value_has_no_interval() -> None:
    assert all(map(math.isnan, (*student_interval([]), *student_interval([1.0]))))


def test_holm_by_hand() -> None:
    """Four sorted values times 4, 3, 2, 1, never falling: the third would fall to 0.06 < 0.06... and stays."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])
    assert holm([0.02]) == pytest.approx([0.02])
    assert len(holm([])) == 0


def test_holm_rejects_what_the_step_down_procedure_rejects() -> None:
    generator = np.random.default_rng(3)
    for _ in range(50):
        values = generator.random(7) ** 3
        rejected = set()
        for rank, index in enumerate(np.argsort(values)):
            if values[index] > 0.05 / (7 - rank):
                break
            rejected.add(int(index))
        assert set(np.nonzero(holm(values) <= 0.05)[0].tolist()) == rejected


def test_holm_refuses_what_is_not_a_probability() -> None:
    for values in ([1.2], [-0.1, 0.5], [[0.1]], [math.nan]):
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            holm(values)
