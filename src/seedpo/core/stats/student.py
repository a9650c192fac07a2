"""Student's t interval of a mean."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

QUANTILES = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
"""0.975 quantiles of Student's t with 1, 2, ... degrees of freedom; beyond them 2.042 is kept, a little too wide."""


def student_interval(values: ArrayLike) -> tuple[float, float]:
    """The 95 % interval of the mean of (N,) values that are independent and about normal; NaN with fewer than two."""
    row = np.asarray(values, dtype=np.float64)
    if len(row) < 2:
        return math.nan, math.nan
    half = QUANTILES[min(len(row) - 1, len(QUANTILES)) - 1] * float(row.std(ddof=1)) / math.sqrt(len(row))
    middle = float(row.mean())
    return middle - half, middle + half
