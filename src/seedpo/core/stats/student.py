"""Student's t distribution with any degrees of freedom, fractions included."""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

_TERMS, _PRECISION, _TINY = 10_000, 1e-15, 1e-300


def student_p(t: float, df: float) -> float:
    """Two-sided p-value: the probability that the absolute value of Student's t exceeds ``abs(t)``.

        p = I_x(df / 2, 1 / 2),   x = df / (df + t^2),   with the regularised incomplete beta function I

    Args:
        t: any number; infinite gives 0.
        df: degrees of freedom above 0; infinite gives the normal distribution.

    Raises:
        ValueError: if the degrees of freedom are not above 0.
    """
    if not df > 0:
        raise ValueError(f"df = {df} must be above 0")
    if math.isinf(t):
        return 0.0
    if math.isinf(df):
        return math.erfc(abs(t) / math.sqrt(2.0))
    square = t * t
    return _incomplete_beta(df / 2.0, 0.5, df / (df + square), square / (df + square))


@lru_cache(maxsize=4096)
def student_quantile(level: float, df: float) -> float:
    """The t >= 0 between whose negative and itself lies the share ``level``: 2.228 for 0.95 and 10.

    The tail is convex, so that Newton's method from the normal quantile, which is smaller, never overshoots.

    Args:
        level: between 0 and 1.
        df: degrees of freedom, at least 0.1; infinite gives the normal distribution.

    Raises:
        ValueError: if the level or the degrees of freedom are out of range.
    """
    if not (0.0 < level < 1.0 and df >= 0.1):
        raise ValueError(f"level = {level} must lie between 0 and 1, and df = {df} must be at least 0.1")
    t = NormalDist().inv_cdf((1.0 + level) / 2.0)
    if math.isinf(df):
        return t
    height = math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) / math.sqrt(df * math.pi)
    for _ in range(500):
        density = 2.0 * height * math.exp(-(df + 1) / 2 * math.log1p(t * t / df))
        step = (student_p(t, df) - (1.0 - level)) / density
        t += step
        if abs(step) <= 1e-13 * t:
            break
    return t


def _incomplete_beta(a: float, b: float, x: float, rest: float) -> float:
    """I_x(a, b) with ``rest`` = 1 - x, which keeps its digits where x is close to 1."""
    if x <= 0.0 or rest <= 0.0:
        return 0.0 if x <= 0.0 else 1.0
    scale = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(rest)
    )  # fmt: skip
    if x < (a + 1.0) / (a + b + 2.0):
        return scale * _fraction(a, b, x) / a
    return 1.0 - scale * _fraction(b, a, rest) / b


def _fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of the incomplete beta function by Lentz's method (DLMF 8.17.22)."""
    ratio, above = 1.0 / _away(1.0 - (a + b) * x / (a + 1.0)), 1.0
    value = ratio
    for m in range(1, _TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            ratio, above = 1.0 / _away(1.0 + term * ratio), _away(1.0 + term / above)
            value *= ratio * above
        if abs(ratio * above - 1.0) <= _PRECISION:
            break
    return value


def _away(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
