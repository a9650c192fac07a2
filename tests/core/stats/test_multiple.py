from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from seedpo.core.stats.multiple import holm, sign_test


@pytest.mark.parametrize(
    ("wins", "losses"), [(0, 1), (5, 0), (7, 3), (3, 7), (10, 10), (11, 10), (140, 90), (1500, 1400)]
)
def test_sign_test_is_scipys_binomial_test(wins: int, losses: int) -> None:
    assert sign_test(wins, losses) == pytest.approx(stats.binomtest(wins, wins + losses).pvalue, rel=1e-9)


def test_sign_test_without_cases_and_with_impossible_ones() -> None:
    assert sign_test(0, 0) == 1.0
    with pytest.raises(ValueError, match="at least 0"):
        sign_test(-1, 3)


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


@pytest.mark.parametrize("values", [[1.2], [-0.1, 0.5], [[0.1]], [float("nan")]])
def test_holm_refuses_what_is_no_probability(values: list[float]) -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        holm(values)
