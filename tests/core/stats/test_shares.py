from __future__ import annotations

import pytest

from seedpo.core.stats.shares import wilson_interval


def test_known_values() -> None:
    """The textbook's (Brown, Cai and DasGupta 2001: 0 of 10, and symmetry)."""
    assert wilson_interval(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    low, high = wilson_interval(77, 100)
    assert (low, high) == pytest.approx((0.6785, 0.8416), abs=1e-3)
    assert wilson_interval(23, 100) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize(("successes", "count"), [(3, 10), (50.5, 99), (1, 2)])
def test_ends_solve_the_score_equation(successes: float, count: int) -> None:
    """At each end the observed share lies z standard errors of that end away."""
    z = 1.959964
    for end in wilson_interval(successes, count, z=z):
        assert (successes / count - end) ** 2 == pytest.approx(z * z * end * (1 - end) / count)


def test_none_and_all() -> None:
    assert wilson_interval(0, 5)[0] == pytest.approx(0.0, abs=1e-15)
    assert wilson_interval(5, 5)[1] == pytest.approx(1.0)
