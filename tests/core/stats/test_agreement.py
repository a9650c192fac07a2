from __future__ import annotations

import math

import krippendorff
import numpy as np
import pytest

from seedpo.core.stats.agreement import Scale, agreement_with_others, alpha_of, coincidences


def alpha(counts: object, scale: Scale = "nominal") -> float:
    return alpha_of(coincidences(counts).sum(0), scale=scale)


@pytest.mark.parametrize("scale", ["nominal", "ordinal"])
@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_alpha_is_that_of_the_package_krippendorff(scale: str, missing: float) -> None:
    generator = np.random.default_rng(0)
    truth = generator.integers(4, size=25)
    data = np.where(generator.random((5, 25)) < 0.6, truth, generator.integers(4, size=(5, 25))).astype(float)
    data[generator.random(data.shape) < missing] = np.nan
    counts = np.stack([(data == value).sum(0) for value in range(4)], axis=1)
    expected = krippendorff.alpha(reliability_data=data, level_of_measurement=scale, value_domain=[0.0, 1.0, 2.0, 3.0])
    assert alpha(counts, scale=scale) == pytest.approx(expected, abs=1e-12)


def test_alpha_by_hand() -> None:
    """Two raters, (a, a), (a, b): o = 1 of 4 values disagreeing twice; n_a = 3, n_b = 1: 1 - 3 * 2 / (2 * 3) = 0."""
    assert alpha([[2, 0], [1, 1]]) == pytest.approx(0.0)
    assert alpha([[2, 0], [0, 2], [3, 0]]) == pytest.approx(1.0)
    assert alpha([[1, 1], [1, 1]]) == pytest.approx(1 - 3 * 4 / (2 * 4))


def test_alpha_knows_nothing_without_pairs_or_without_difference() -> None:
    assert math.isnan(alpha([[1, 0], [0, 1]]))
    assert math.isnan(alpha([[3, 0], [2, 0]]))
    assert math.isnan(alpha(np.zeros((0, 3))))


def test_units_of_one_value_change_nothing() -> None:
    counts = [[2, 1, 0], [0, 3, 0], [1, 0, 2]]
    assert alpha([*counts, [1, 0, 0], [0, 0, 0]]) == pytest.approx(alpha(counts))


def test_coincidences_add_up_over_units() -> None:
    counts = np.array([[2, 1, 0], [0, 3, 0], [1, 0, 2]])
    assert coincidences(counts).sum() == pytest.approx(9.0)
    twice = alpha_of(2 * coincidences(counts).sum(0))
    assert twice == pytest.approx(alpha(np.vstack([counts, counts])))


def test_agreement_with_others() -> None:
    assert agreement_with_others([1, 0, 2], [2, 1, 2]) == pytest.approx((0.5 + 0 + 1) / 3)
    assert agreement_with_others([1, 0], [2, 0]) == pytest.approx(0.5)
    assert math.isnan(agreement_with_others([0], [0]))


def test_bad_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="counts"):
        coincidences([[1, -1]])
