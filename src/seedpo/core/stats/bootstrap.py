"""Intervals by the percentile bootstrap (Efron 1979): means, paired differences, win rates.

Prompts are resampled, each with all of its images: images of one prompt resemble each other, so that resampling images
would give intervals that are too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seedpo.core.stats.classical import wilson_interval

RESAMPLES = 1000
"""Resamples behind each interval by default."""

TIE_SHARE = 0.1
"""Scores that differ by at most this share of their spread over latents are ties."""

_NUMBERS_AT_A_TIME = 2**22
"""Bound on the resampled values in memory at once."""

Finish = Callable[[float], float]

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A figure with its interval.

    Attributes:
        mean: the figure; NaN if there was no value.
        low: lower end of the interval.
        high: upper end of the interval.
        count: values (prompts) behind it.
        left_out: values that were NaN.
    """

    mean: float
    low: float
    high: float
    count: int
    left_out: int = 0


@dataclass(frozen=True, kw_only=True)
class WinRate:
    """How often one of two models has the higher score for the same prompt and latents.

    Attributes:
        win: share of images in which the first is better.
        tie: share of images that differ by no more than the tie's width.
        loss: share of images in which the second is better.
        low: lower end of the interval of :attr:`rate`.
        high: upper end of the interval of :attr:`rate`.
        count: prompts.
    """

    win: float
    tie: float
    loss: float
    low: float
    high: float
    count: int

    @property
    def rate(self) -> float:
        """Wins plus half of the ties; 0.5 if neither is better."""
        return self.win + 0.5 * self.tie


def mean_interval(
    values: ArrayLike, *, seed: int = 0, resamples: int = RESAMPLES, level: float = 0.95, finish: Finish | None = None
) -> Interval:
    """Mean of values with its percentile bootstrap interval.

    Args:
        values: one for each prompt, (P,); NaN where there is none.
        seed: seed of the resampling.
        resamples: how many are drawn.
        level: of the interval.
        finish: applied to each mean, for figures that are a function of one (a root mean square); `None` for nothing.
    """
    given = _row(values)
    known = given[~np.isnan(given)]
    left_out = len(given) - len(known)
    if not len(known):
        return Interval(mean=math.nan, low=math.nan, high=math.nan, count=0, left_out=left_out)
    means = resampled_means(known[:, None], seed=seed, resamples=resamples)[:, 0]
    figures = (float(known.mean()), *interval_ends(means, level=level))
    mean, low, high = figures if finish is None else map(finish, figures)
    return Interval(mean=mean, low=low, high=high, count=len(known), left_out=left_out)


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    finish: Finish | None = None,
) -> Interval:
    """Mean of ``a`` less mean of ``b``, each over the same prompts, with its interval.

    Both means are taken over the same resampled prompts, so prompts that are hard for both models cancel.

    Args:
        a: one value for each prompt, (P,); NaN where there is none.
        b: of the other model, in the same order; prompts without a value in one of the two are left out.
        seed: seed of the resampling.
        resamples: how many are drawn.
        level: of the interval.
        finish: applied to each mean before the difference is taken; `None` for nothing.

    Raises:
        ValueError: if the two have different lengths.
    """
    both = np.stack(_same_shape(_row(a), _row(b)), axis=1)
    known = both[~np.isnan(both).any(1)]
    left_out = len(both) - len(known)
    if not len(known):
        return Interval(mean=math.nan, low=math.nan, high=math.nan, count=0, left_out=left_out)
    if finish is None:
        known = known[:, :1] - known[:, 1:]
        differences = resampled_means(known, seed=seed, resamples=resamples)[:, 0]
        mean = float(known.mean())
    else:
        means = resampled_means(known, seed=seed, resamples=resamples)
        differences = np.array([finish(float(first)) - finish(float(second)) for first, second in means])
        first, second = known.mean(0)
        mean = finish(float(first)) - finish(float(second))
    low, high = interval_ends(differences, level=level)
    return Interval(mean=mean, low=low, high=high, count=len(known), left_out=left_out)


def win_rate(
    a: ArrayLike,
    b: ArrayLike,
    *,
    tie_width: float = 0.0,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = 0.95,
) -> WinRate:
    """How often ``a`` beats ``b``, images being paired by prompt and latents.

    A share is the mean over prompts of the share among a prompt's images. Pairs with a NaN score are left out. Where
    all prompts have one rate, resampling knows no width; the interval is Wilson's, with prompts as cases.

    Args:
        a: scores (P, K) of K images for each of P prompts; higher is better.
        b: scores of the other model for the same prompts and latents.
        tie_width: differences of at most this size are ties.
        seed: seed of the resampling of prompts.
        resamples: how many are drawn.
        level: of the interval.

    Raises:
        ValueError: if the shapes differ or the width is below 0.
    """
    if not tie_width >= 0.0:
        raise ValueError(f"tie_width = {tie_width} must be at least 0")
    first, second = _same_shape(np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64))
    if first.ndim != 2:
        raise ValueError(f"scores must be (prompts, images), not of shape {first.shape}")
    difference = first - second
    known = ~np.isnan(difference)
    rows = known.any(1)
    difference, known = difference[rows], known[rows]
    if not len(difference):
        return WinRate(win=math.nan, tie=math.nan, loss=math.nan, low=math.nan, high=math.nan, count=0)
    images = known.sum(1)
    wins, losses = ((sign * difference > tie_width).sum(1) / images for sign in (1.0, -1.0))
    ties = 1.0 - wins - losses
    rates = wins + 0.5 * ties
    if np.ptp(rates) > 0.0:
        low, high = interval_ends(resampled_means(rates[:, None], seed=seed, resamples=resamples)[:, 0], level=level)
    else:
        low, high = wilson_interval(float(rates.sum()), len(rates), z=NormalDist().inv_cdf(0.5 + level / 2))
    win, loss = float(wins.mean()), float(losses.mean())
    return WinRate(win=win, tie=max(0.0, 1.0 - win - loss), loss=loss, low=low, high=high, count=len(images))


def tie_width(scores: ArrayLike) -> float:
    """The largest difference of two scores that says nothing: a tenth of their spread over latents of one prompt.

    The spread is the standard deviation among a prompt's images, pooled over prompts: what another latent changes
    while prompt and model stay the same. A tenth is the share below which an effect does not matter in
    :mod:`seedpo.core.verdicts`. Two images of one model from two latents tie in 6 % of the cases then, if scores are
    normal. The width follows the reward's scale, so that it needs no setting per reward. With one image per prompt the
    spread over prompts takes its place.

    Args:
        scores: of the model that is compared against, (P, K); NaN where there is none.

    Returns:
        At least 0; 0 where scores do not vary.
    """
    rows = np.asarray(scores, dtype=np.float64)
    known = [row[~np.isnan(row)] for row in (rows if rows.shape[1] > 1 else rows.T)]
    squares = sum(float(((row - row.mean()) ** 2).sum()) for row in known if len(row))
    freedom = sum(len(row) - 1 for row in known if len(row))
    return TIE_SHARE * math.sqrt(squares / freedom) if freedom else 0.0


def grouped_mean_ends(values: ArrayLike, groups: ArrayLike, *, seed: int = 0) -> tuple[float, float]:
    """Ends of the 95 % percentile bootstrap interval of a mean, where groups of values are resampled as a whole.

    Every value weighs the same, so that large groups weigh more.

    Args:
        values: (N,).
        groups: to which group each value belongs, (N,).
        seed: of the resampling.
    """
    labels = np.unique(np.asarray(groups), return_inverse=True)[1]
    sums, counts = np.bincount(labels, weights=_row(values)), np.bincount(labels)
    means = resampled_means(np.stack([sums, counts], axis=1), seed=seed)
    return interval_ends(means[:, 0] / means[:, 1])


def prompt_means(values: Array) -> Array:
    """Means (P,) over the images (P, K) that have a value; NaN where none has."""
    known = ~np.isnan(values)
    count = known.sum(1)
    return np.where(count > 0, np.where(known, values, 0.0).sum(1) / np.maximum(count, 1), math.nan)


def resampled_means(rows: Array, *, seed: int, resamples: int = RESAMPLES) -> Array:
    """Means (R, D) of R samples with replacement of the rows (P, D)."""
    count, width = rows.shape
    generator = np.random.default_rng(seed)
    block = max(1, _NUMBERS_AT_A_TIME // max(1, count * width))
    parts = []
    for start in range(0, resamples, block):
        drawn = generator.integers(count, size=(min(block, resamples - start), count))
        # Column by column and along the last axis, so that numpy adds in the same order as for a single column.
        parts.append(np.stack([column[drawn].mean(1) for column in rows.T], axis=1))
    return np.concatenate(parts)


def interval_ends(values: Array, *, level: float = 0.95) -> tuple[float, float]:
    """The quantiles between which the middle share ``level`` of the values lies."""
    if not 0.0 < level < 1.0:
        raise ValueError(f"level = {level} must lie between 0 and 1")
    outside = round((1.0 - level) / 2.0, 12)
    low, high = np.quantile(values, [outside, 1.0 - outside])
    return float(low), float(high)


def _row(values: ArrayLike) -> Array:
    row = np.asarray(values, dtype=np.float64)
    if row.ndim != 1:
        raise ValueError(f"there must be one value for each prompt, not the shape {row.shape}")
    return row


def _same_shape(a: Array, b: Array) -> tuple[Array, Array]:
    if a.shape != b.shape:
        raise ValueError(f"the two have different shapes: {a.shape} and {b.shape}")
    return a, b
