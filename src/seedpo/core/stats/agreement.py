"""Agreement of raters beyond chance: Krippendorff's alpha, and how often a rater agrees with the others."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Scale = Literal["nominal", "ordinal"]


def coincidences(counts: ArrayLike) -> Array:
    """How often two raters of a unit gave each pair of values, unit by unit.

        o_u(c, k) = n_uc (n_uk - [c = k]) / (m_u - 1),   m_u = sum_c n_uc

    Units with fewer than two values carry no information and are 0. So missing answers need no special treatment.

    Args:
        counts: (U, K): how many raters gave each of K values to each unit.

    Returns:
        (U, K, K).

    Raises:
        ValueError: if the shape is wrong or a count is negative.
    """
    table = np.asarray(counts, dtype=np.float64)
    if table.ndim != 2 or (table < 0).any():
        raise ValueError("counts must be a table (units, values) of numbers of at least 0")
    values = table.sum(1)
    pairs = table[:, :, None] * table[:, None, :] - table[:, :, None] * np.eye(table.shape[1])
    share = np.where(values > 1, 1.0 / np.maximum(values - 1, 1.0), 0.0)
    return np.asarray(pairs * share[:, None, None])


def alpha_of(coincidence: Array, *, scale: Scale = "nominal") -> float:
    """Krippendorff's alpha of a table of coincidences (K, K).

    Alpha is 1 - observed / expected disagreement (Krippendorff 2011): 1 if all agree, 0 at chance, below 0 if raters
    disagree more than by chance. ``ordinal`` weights a disagreement by the squared number of values in between.

    Returns:
        alpha; NaN if no unit has two values, or if all values are the same, since chance agrees then too.
    """
    amounts = coincidence.sum(1)
    total = float(amounts.sum())
    distance = _distance(amounts, scale)
    expected = float((np.outer(amounts, amounts) * distance).sum())
    if total <= 1 or expected <= 0:
        return math.nan
    return 1.0 - (total - 1.0) * float((coincidence * distance).sum()) / expected


def agreement_with_others(same: ArrayLike, others: ArrayLike) -> float:
    """Mean over units of the share of other raters who gave the same answer.

    Args:
        same: (U,) other raters who gave the same answer.
        others: (U,) other raters who answered; units without any are left out.

    Returns:
        share in [0, 1]; NaN if no unit has another rater.
    """
    agreeing, answers = np.asarray(same, dtype=np.float64), np.asarray(others, dtype=np.float64)
    known = answers > 0
    return float((agreeing[known] / answers[known]).mean()) if known.any() else math.nan


def _distance(amounts: Array, scale: Scale) -> Array:
    size = len(amounts)
    if scale == "nominal":
        return np.asarray(1.0 - np.eye(size))
    # The values between c and k, both ends counted by half.
    middle = np.cumsum(amounts) - amounts / 2.0
    return np.asarray((middle[:, None] - middle[None, :]) ** 2)
