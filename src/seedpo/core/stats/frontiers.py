"""Frontiers of what is wanted against the proxy that is optimised, and the gap between two of them.

A frontier asks: of all that was trained, what is the most truth (or diversity) at a proxy reward of at least x? Two
methods are compared by the mean vertical gap between their frontiers over the proxies that both reach.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seedpo.core.stats.classical import student_interval

Array = NDArray[np.float64]

CELLS = 400
"""Parts into which the common range of proxies is divided; a jump of a frontier is off by at most half a part."""


@dataclass(frozen=True, eq=False)
class Trail:
    """One training run: where it stood at each of its evaluations.

    Attributes:
        proxy: the optimised reward, (N,) in the order of the steps, or (N, P) with one column per prompt.
        value: what is wanted, higher is better, of the same shape.
    """

    proxy: Array
    value: Array

    @classmethod
    def of(cls, proxy: ArrayLike, value: ArrayLike) -> Trail:
        """Checks and converts.

        Raises:
            ValueError: if there is no point, the shapes differ, or a number is not finite.
        """
        across, up = np.asarray(proxy, dtype=np.float64), np.asarray(value, dtype=np.float64)
        if across.shape != up.shape or across.ndim not in (1, 2) or not across.size:
            raise ValueError(f"proxy {across.shape} and value {up.shape} must both be (N,) or both (N, P), N >= 1")
        if not (np.isfinite(across).all() and np.isfinite(up).all()):
            raise ValueError("proxies and values must be finite; leave evaluations without a number out")
        return cls(across, up)

    def mean(self, prompts: NDArray[np.int64] | None = None) -> Trail:
        """The path of the means over prompts, all of them or those drawn."""
        if self.proxy.ndim == 1:
            return self
        columns = slice(None) if prompts is None else prompts
        return Trail(self.proxy[:, columns].mean(1), self.value[:, columns].mean(1))


@dataclass(frozen=True, kw_only=True)
class Gap:
    """The mean gap between the frontiers of one seed.

    Attributes:
        mean: mean of left minus right over the common range, in units of the value.
        low, high: the common range of proxies.
    """

    mean: float
    low: float
    high: float

    @property
    def area(self) -> float:
        """Area between the frontiers, in units of proxy times value; negative where the right one is higher."""
        return self.mean * (self.high - self.low)


@dataclass(frozen=True, kw_only=True)
class GapInterval:
    """The gap over several seeds.

    Attributes:
        mean: mean over the seeds, in units of the value; NaN if no seed has a common range.
        low, high: 95 % percentile bootstrap interval over seeds, and prompts where there are values per prompt; NaN
            with one seed. Without seeds in the resampling: over prompts alone.
        t_low, t_high: 95 % interval of Student's t over seeds; NaN with one seed, or if no seeds are drawn.
        by_seed: the gap of each seed that has a common range.
        without: seeds without a common range of proxies.
    """

    mean: float
    low: float
    high: float
    t_low: float
    t_high: float
    by_seed: Mapping[int, Gap]
    without: tuple[int, ...] = ()

    @property
    def sign(self) -> int:
        """1 or -1 if all intervals that there are lie above or below 0, else 0.

        Both of seeds, since a percentile bootstrap of three seeds is no wider than their range, which three seeds of
        no effect leave on one side of 0 once in four times.
        """
        if math.isnan(self.low):
            return 0
        drawn_seeds = not math.isnan(self.t_low)
        if self.low > 0 and (self.t_low > 0 or not drawn_seeds):
            return 1
        return -1 if self.high < 0 and (self.t_high < 0 or not drawn_seeds) else 0


def frontier(paths: Sequence[Trail], at: ArrayLike) -> Array:
    """The best value at a proxy of at least x, over all points of all paths, interpolated between evaluations.

        F(x) = max { value : proxy >= x },   which never rises with x.

    Args:
        paths: the runs that are pooled, with one value per evaluation.
        at: proxies x, (G,).

    Returns:
        F, (G,); NaN where no path reaches x.
    """
    levels = np.atleast_1d(np.asarray(at, dtype=np.float64))[:, None]
    best = np.full(levels.shape[0], -np.inf)
    for path in paths:
        proxy, value = path.proxy, path.value
        best = np.maximum(best, np.where(proxy >= levels, value, -np.inf).max(1))
        before, after = proxy[:-1], proxy[1:]
        crossed = (np.minimum(before, after) < levels) & (levels < np.maximum(before, after))
        if crossed.any():
            rise = np.where(before == after, 1.0, after - before)
            between = value[:-1] + (levels - before) / rise * (value[1:] - value[:-1])
            best = np.maximum(best, np.where(crossed, between, -np.inf).max(1))
    return np.where(np.isfinite(best), best, np.nan)


def frontier_band(
    paths: Sequence[Trail], at: ArrayLike, *, seed: int = 0, resamples: int = 400, level: float = 0.95
) -> tuple[Array, Array]:
    """Ends of the percentile bootstrap interval of a frontier over prompts, (G,) each, from where its paths begin.

    Prompts are drawn with replacement, the same ones for all paths; proxies and values both move with them. Of every
    path, the first evaluation of each prompt is moved to the mean of all prompts, and the later ones with it: what
    makes a prompt hard does not count, only how differently prompts change. So the interval has no width at a start.

    Args:
        paths: the runs that are pooled, with one column per prompt.
        at: proxies x, (G,).
        seed: of the resampling.
        resamples: how many are drawn.
        level: of the interval.

    Returns:
        The ends; NaN where less than half of the resamples reach x, and everywhere without values per prompt.
    """
    levels = np.atleast_1d(np.asarray(at, dtype=np.float64))
    shapes = {path.proxy.shape[1:] for path in paths}
    if len(shapes) != 1 or shapes == {()}:
        return np.full(levels.shape, np.nan), np.full(levels.shape, np.nan)
    ((amount,),) = shapes
    generator = np.random.default_rng(seed)
    centred = [Trail(_from_one_start(path.proxy), _from_one_start(path.value)) for path in paths]
    rows = np.stack(
        [
            frontier([path.mean(columns) for path in centred], levels)
            for columns in generator.integers(amount, size=(resamples, amount))
        ]
    )
    rows[:, np.isfinite(rows).sum(0) < resamples / 2] = np.nan
    known = np.where(np.isnan(rows).all(0), 0.0, rows)  # a column without any number has no quantile
    low, high = np.nanquantile(known, [(1 - level) / 2, (1 + level) / 2], axis=0)
    unknown = np.isnan(rows).all(0)
    return np.where(unknown, np.nan, low), np.where(unknown, np.nan, high)


def _from_one_start(values: Array) -> Array:
    """Values (N, P), moved prompt by prompt so that all begin at the mean of the first row."""
    moved: Array = values - values[0] + values[0].mean()
    return moved


def first_reached(paths: Sequence[Trail], at: ArrayLike) -> Array:
    """The value where the proxy first reaches x, straight between evaluations; of several paths the best.

    It takes no best of many noisy evaluations, as :func:`frontier` does. That one favours a run that only goes slower:
    it has more evaluations at the proxies that both reach.

    Args:
        paths: the runs that are pooled, with one value per evaluation.
        at: proxies x, (G,).

    Returns:
        Values, (G,): where a path begins at x or above, that of its start; NaN where no path reaches x.
    """
    levels = np.atleast_1d(np.asarray(at, dtype=np.float64))
    best = np.full(levels.shape, -np.inf)
    for path in paths:
        tops = np.maximum.accumulate(path.proxy)
        place = np.searchsorted(tops, levels)
        reached = place < len(tops)
        after, before = place[reached], np.maximum(place[reached] - 1, 0)
        rise = np.where(after == before, 1.0, path.proxy[after] - path.proxy[before])
        share = np.where(after == before, 0.0, (levels[reached] - path.proxy[before]) / rise)
        value = path.value[before] + share * (path.value[after] - path.value[before])
        best[reached] = np.maximum(best[reached], value)
    return np.where(np.isfinite(best), best, np.nan)


Height = Callable[[Sequence[Trail], ArrayLike], Array]
"""What is compared at a proxy: :func:`frontier` or :func:`first_reached`."""


def common_range(left: Sequence[Trail], right: Sequence[Trail]) -> tuple[float, float] | None:
    """Proxies from the higher of the two starts to the lower of the two peaks; `None` if there are none.

    The start of a pool is the lowest proxy at which one of its paths begins: a run that falls below where it began
    adds nothing to the range, since its frontier is flat there.
    """
    if not (left and right):
        return None
    low = max(min(float(path.proxy[0]) for path in pool) for pool in (left, right))
    high = min(max(float(path.proxy.max()) for path in pool) for pool in (left, right))
    return (low, high) if high > low else None


def gap(left: Sequence[Trail], right: Sequence[Trail], *, height: Height = frontier) -> Gap | None:
    """Mean of the left frontier minus the right one over the proxies that both reach; `None` if there are none.

    The integral is a midpoint sum over :data:`CELLS` parts.

    Args:
        left, right: the paths of both sides.
        height: what is compared at each proxy.
    """
    shared = common_range(left, right)
    if shared is None:
        return None
    low, high = shared
    at = low + (np.arange(CELLS) + 0.5) / CELLS * (high - low)
    return Gap(mean=float((height(left, at) - height(right, at)).mean()), low=low, high=high)


def gap_interval(
    left: Mapping[int, Sequence[Trail]],
    right: Mapping[int, Sequence[Trail]],
    *,
    seed: int = 0,
    resamples: int = 1000,
    level: float = 0.95,
    over_seeds: bool = True,
    height: Height = frontier,
) -> GapInterval:
    """The gap between two pools of runs, compared within each seed that both have, with intervals.

    Args:
        left, right: paths of each seed.
        seed: of the resampling.
        resamples: bootstrap resamples. Seeds are drawn with replacement; where the paths hold values per prompt,
            prompts are too, the same ones for all runs of a resample.
        level: of the bootstrap interval; Student's is for 0.95.
        over_seeds: whether seeds are drawn. Without, the interval says how the gap of these very runs would vary with
            other prompts; it needs values per prompt, and one seed suffices.
        height: what is compared at each proxy.
    """
    shared = sorted(set(left) & set(right))
    means = {number: [[path.mean() for path in pool[number]] for pool in (left, right)] for number in shared}
    by_seed = {number: value for number, pools in means.items() if (value := gap(*pools, height=height)) is not None}
    without = tuple(number for number in shared if number not in by_seed)
    values = np.array([value.mean for value in by_seed.values()])
    middle = float(values.mean()) if len(values) else math.nan
    if not len(values) or (len(values) < 2 if over_seeds else not _have_prompts(left, right, by_seed)):
        nan = math.nan
        return GapInterval(mean=middle, low=nan, high=nan, t_low=nan, t_high=nan, by_seed=by_seed, without=without)
    drawn = _resampled(left, right, by_seed, seed=seed, resamples=resamples, over_seeds=over_seeds, height=height)
    low, high = np.nanquantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    t_low, t_high = student_interval(values) if over_seeds else (math.nan, math.nan)
    return GapInterval(
        mean=middle,
        low=float(low),
        high=float(high),
        t_low=t_low,
        t_high=t_high,
        by_seed=by_seed,
        without=without,
    )


def _have_prompts(
    left: Mapping[int, Sequence[Trail]], right: Mapping[int, Sequence[Trail]], by_seed: Mapping[int, Gap]
) -> bool:
    return all(path.proxy.ndim == 2 for number in by_seed for pool in (left, right) for path in pool[number])


def _resampled(
    left: Mapping[int, Sequence[Trail]],
    right: Mapping[int, Sequence[Trail]],
    by_seed: Mapping[int, Gap],
    *,
    seed: int,
    resamples: int,
    over_seeds: bool,
    height: Height,
) -> Array:
    """The mean gap of every resample."""
    generator, seeds = np.random.default_rng(seed), sorted(by_seed)
    prompts = {path.proxy.shape[1:] for number in seeds for pool in (left, right) for path in pool[number]}
    if prompts == {()}:
        values = np.array([by_seed[number].mean for number in seeds])
        return np.asarray(values[generator.integers(len(seeds), size=(resamples, len(seeds)))].mean(1))
    if len(prompts) > 1:
        raise ValueError(f"all paths must have the same prompts, but there are {sorted(prompts)}")
    (amount,) = prompts.pop()
    drawn = np.full(resamples, np.nan)
    for index in range(resamples):
        columns: NDArray[np.int64] = np.asarray(generator.integers(amount, size=amount))
        chosen = [seeds[place] for place in generator.integers(len(seeds), size=len(seeds))] if over_seeds else seeds
        pools = [[[path.mean(columns) for path in pool[number]] for pool in (left, right)] for number in chosen]
        gaps = [value.mean for pool in pools if (value := gap(*pool, height=height)) is not None]
        drawn[index] = np.mean(gaps) if gaps else np.nan
    return drawn
