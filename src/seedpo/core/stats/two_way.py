"""Means of votes with intervals over raters and prompts at once, and tests that agree with them.

Votes depend on each other in two ways, by their rater and by their prompt. The variance of a mean is therefore taken
from sums over raters and over prompts: the two-way cluster-robust variance (Cameron, Gelbach and Miller 2011), here
without bias and with degrees of freedom for few raters.

Let psi_n be the influence of vote n on the figure: (y_n - mean) / N for a mean. Let S_g be the sum of psi over a
cluster g, and lambda the probability that two votes drawn at random are of one cluster, sum_g (n_g / N)^2:

    V_raters  = sum_r S_r^2 / (1 - lambda_r),   likewise V_prompts and V_cells (votes of one rater on one prompt)
    V_two_way = (sum_r S_r^2 + sum_p S_p^2 - sum_c S_c^2) / (1 - lambda_r - lambda_p + lambda_c)

The denominators are the shares of pairs of votes that have no rater (no prompt) in common. With them the variances are
free of bias in balanced designs: V_two_way is (MS_raters + MS_prompts - MS_rest) / N of the analysis of variance. The
variance V is the largest of the four, since no component can be below 0. Its degrees of freedom are Satterthwaite's
(1946), with df_g = 1 / lambda_g - 1, the number of clusters less one if all are equally large:

    df = V^2 / (V_raters^2 / df_r + V_prompts^2 / df_p + V_cells^2 / df_c)

They are few where there are few raters, also if these happen to agree: agreement of a few may be chance.

A share's interval is Wilson's, with as many votes as would have this variance if they were independent, and with
Student's quantile. So it stays within 0 and 1, and its test rejects exactly the shares outside of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seedpo.core.stats.classical import wilson_interval
from seedpo.core.stats.student import student_p, student_quantile

Array = NDArray[np.float64]
Index = NDArray[np.int64]

LEAST_RATERS = 5
"""Raters below which no verdict is given: tests at 5 % err more often than that (docs/study-statistics.md)."""

LEAST_PROMPTS = 5
"""Prompts below which no verdict is given; raters and prompts enter in the same way."""


_ROUNDING = 1e-20


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How far a figure may be off.

    Attributes:
        variance: of the figure over raters and prompts, at least 0.
        df: degrees of freedom of that variance, at least 1.
        cells: number of (rater, prompt) cells, as if all had equally many votes.
    """

    variance: float
    df: float
    cells: float


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A share with its interval and test.

    Attributes:
        mean: the share.
        error: its standard error over raters and prompts.
        df: degrees of freedom of the interval and the test.
        low, high: ends of the interval.
        p: two-sided p-value against ``null``: below 1 - level exactly if the interval does not hold it.
    """

    mean: float
    error: float
    df: float
    low: float
    high: float
    p: float


def two_way_spread(influences: ArrayLike, raters: ArrayLike, prompts: ArrayLike) -> Spread:
    """The variance of a figure whose error is the sum of the influences of its votes.

    Args:
        influences: (N,), with sum 0.
        raters, prompts: whose and of what each vote is (N,), any whole numbers. With a single rater (prompt) only the
            other side counts: nothing is known then about other raters (prompts).

    Raises:
        ValueError: if there is no vote, or the lengths differ.
    """
    values = np.asarray(influences, dtype=np.float64)
    by_rater, by_prompt = (np.unique(np.asarray(codes), return_inverse=True)[1] for codes in (raters, prompts))
    if values.ndim != 1 or not len(values) or not values.shape == by_rater.shape == by_prompt.shape:
        raise ValueError("influences, raters and prompts must be rows of one length, of at least one vote")
    cells = np.unique(by_rater * (int(by_prompt.max()) + 1) + by_prompt, return_inverse=True)[1]
    sides = [_side(values, codes) for codes in (by_rater, by_prompt, cells)]
    known = [side for side in sides if side.df > 0.0]
    variances = [side.variance for side in known]
    if len(known) == len(sides):
        in_common = sides[0].shared + sides[1].shared - sides[2].shared
        variances.append((sides[0].square + sides[1].square - sides[2].square) / (1.0 - in_common))
    variance = max(variances, default=0.0)
    if variance > _ROUNDING * float((values**2).sum()):
        df = variance**2 / sum(side.variance**2 / side.df for side in known)
    else:
        variance, df = 0.0, min((side.df for side in known), default=1.0)
    return Spread(variance=variance, df=max(df, 1.0), cells=1.0 / sides[2].shared)


def two_way_rate(
    points: ArrayLike, raters: ArrayLike, prompts: ArrayLike, *, level: float = 0.95, null: float = 0.5
) -> Rate:
    """A share of votes with its interval over raters and prompts, and the test against ``null``.

    Where all votes agree, they show no variance. The interval is then Wilson's for independent votes, one per cell.

    Args:
        points: of each vote (N,), from 0 to 1.
        raters, prompts: see :func:`two_way_spread`.
        level: of the interval.
        null: share that is tested, between 0 and 1.

    Raises:
        ValueError: if there is no vote, points are outside of [0, 1], lengths differ, or ``null`` is 0 or 1.
    """
    values = np.asarray(points, dtype=np.float64)
    if not len(values) or not ((values >= 0.0) & (values <= 1.0)).all():
        raise ValueError("there must be votes, and their points must lie between 0 and 1")
    mean = float(values.mean())
    return rate_of(mean, (values - mean) / len(values), raters, prompts, level=level, null=null)


def rate_of(
    mean: float,
    influences: ArrayLike,
    raters: ArrayLike,
    prompts: ArrayLike,
    *,
    level: float = 0.95,
    null: float = 0.5,
) -> Rate:
    """Any figure from 0 to 1 with its interval and test, from the influences of the votes on it.

    Args:
        mean: the figure.
        influences, raters, prompts: see :func:`two_way_spread`.
        level: of the interval.
        null: value that is tested, between 0 and 1.

    Raises:
        ValueError: if there is no vote, lengths differ, or ``null`` is 0 or 1.
    """
    if not 0.0 < null < 1.0:
        raise ValueError(f"null = {null} must lie between 0 and 1")
    spread = two_way_spread(influences, raters, prompts)
    size = mean * (1.0 - mean) / spread.variance if spread.variance > 0.0 else spread.cells
    low, high = wilson_interval(mean * size, size, z=student_quantile(level, spread.df))
    return Rate(
        mean=mean,
        error=math.sqrt(spread.variance),
        df=spread.df,
        low=low,
        high=high,
        p=student_p((mean - null) / math.sqrt(null * (1.0 - null) / size), spread.df),
    )


@dataclass(frozen=True)
class _Side:
    """Sums over the clusters of one side.

    Attributes:
        square: sum of the squared sums of influences.
        shared: probability that two votes are of one cluster.
    """

    square: float
    shared: float

    @property
    def df(self) -> float:
        """Number of clusters less one, as if all were equally large."""
        return 1.0 / self.shared - 1.0

    @property
    def variance(self) -> float:
        """Of the figure, if votes of different clusters are independent."""
        return self.square / (1.0 - self.shared)


def _side(values: Array, codes: Index) -> _Side:
    sums, shares = np.bincount(codes, weights=values), np.bincount(codes) / len(codes)
    # One cluster holds all votes: exactly 1, whatever the rounding.
    return _Side(float((sums**2).sum()), float((shares**2).sum()) if len(shares) > 1 else 1.0)
