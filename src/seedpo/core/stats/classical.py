"""Intervals and tests in closed form: Wilson's interval, Student's interval and Holm's correction."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seedpo.core.stats.student import student_quantile


def wilson_interval(successes: float, count: float, *, z: float = 1.959964) -> tuple[float, float]:
    """Ends of Wilson's score interval of a share, by default at 95 % (Wilson 1927).

    Args:
        successes: from 0 to ``count``; equal scores count for a half.
        count: above 0; a fraction is an effective number of cases.
        z: quantile of the normal distribution.
    """
    share, weight = successes / count, z * z / count
    middle = (share + weight / 2.0) / (1.0 + weight)
    half = z / (1.0 + weight) * math.sqrt(share * (1.0 - share) / count + weight / (4.0 * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def student_interval(values: ArrayLike) -> tuple[float, float]:
    """The 95 % interval of the mean of (N,) values that are independent and about normal; NaN with fewer than two."""
    row = np.asarray(values, dtype=np.float64)
    if len(row) < 2:
        return math.nan, math.nan
    half = student_quantile(0.95, len(row) - 1) * float(row.std(ddof=1)) / math.sqrt(len(row))
    middle = float(row.mean())
    return middle - half, middle + half


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """p-values adjusted for all tests of a family by Holm's step-down procedure (Holm 1979).

    For ascending p-values, adjusted_(i) = max_{j <= i} min(1, (m - j + 1) p_(j)). Rejecting if the adjusted value is at
    most a keeps the probability of any false rejection below a, however the tests depend on each other.

    Args:
        p_values: (m,), in [0, 1].

    Returns:
        adjusted p-values (m,), in the order given.

    Raises:
        ValueError: if a value is not a probability.
    """
    values = np.asarray(p_values, dtype=np.float64)
    if values.ndim != 1 or not ((values >= 0) & (values <= 1)).all():
        raise ValueError("p-values must be a row of numbers in [0, 1]")
    order = np.argsort(values, kind="stable")
    factors = len(values) - np.arange(len(values))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(values[order] * factors))
    return adjusted
