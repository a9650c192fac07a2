"""The interval of a share of independent cases."""

from __future__ import annotations

import math


def wilson_interval(successes: float, count: int, *, z: float = 1.959964) -> tuple[float, float]:
    """Ends of Wilson's score interval of a share, by default at 95 % (Wilson 1927).

    Args:
        successes: from 0 to ``count``; equal scores count for a half.
        count: at least 1.
        z: quantile of the normal distribution.
    """
    share, weight = successes / count, z * z / count
    middle = (share + weight / 2.0) / (1.0 + weight)
    half = z / (1.0 + weight) * math.sqrt(share * (1.0 - share) / count + weight / (4.0 * count))
    return max(0.0, middle - half), min(1.0, middle + half)
