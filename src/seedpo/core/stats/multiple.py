"""Several tests at once: the exact sign test of one comparison, and Holm's correction over all of them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray


def sign_test(wins: int, losses: int) -> float:
    """Two-sided exact p-value of as many wins against losses if both were equally likely; ties are left out.

        p = min(1, 2 P[X <= min(wins, losses)]),   X ~ Binomial(wins + losses, 1/2)

    Exact only where the cases are independent of each other: hand it one case per prompt, not one per vote.

    Args:
        wins, losses: at least 0.

    Returns:
        p in (0, 1]; 1 without any case.

    Raises:
        ValueError: if a number is below 0.
    """
    if min(wins, losses) < 0:
        raise ValueError(f"wins = {wins} and losses = {losses} must be at least 0")
    count = wins + losses
    # Logarithms, since 2^-n underflows from n = 1075 on.
    whole = math.lgamma(count + 1) - count * math.log(2.0)
    terms = (math.exp(whole - math.lgamma(k + 1) - math.lgamma(count - k + 1)) for k in range(min(wins, losses) + 1))
    return min(1.0, 2.0 * math.fsum(terms))


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """p-values adjusted for all tests of a family by Holm's step-down procedure (Holm 1979).

    With the p-values sorted upwards, adjusted_(i) = max_{j <= i} min(1, (m - j + 1) p_(j)). Rejecting where the
    adjusted value is at most a keeps the chance of any false rejection below a, however the tests depend on each other.

    Args:
        p_values: (m,), in [0, 1].

    Returns:
        adjusted p-values (m,), in the order given.

    Raises:
        ValueError: if a value is no probability.
    """
    values = np.asarray(p_values, dtype=np.float64)
    if values.ndim != 1 or not ((values >= 0) & (values <= 1)).all():
        raise ValueError("p-values must be a row of numbers in [0, 1]")
    order = np.argsort(values, kind="stable")
    factors = len(values) - np.arange(len(values))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(values[order] * factors))
    return adjusted
