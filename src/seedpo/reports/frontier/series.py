"""What frontiers are made of: a setting with the evaluations of each of its seeds, and pools of settings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from seedpo.core.stats.frontiers import Trail, frontier, frontier_band
from seedpo.reports.curves import Curves, Point, mean_curve

LEVELS = 40
"""Proxies at which frontiers are drawn."""

Pool = Mapping[int, Sequence[Trail]]
"""The trails of each seed."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """One setting.

    Attributes:
        label: what it is called.
        proxy: key of the optimised reward.
        curves: the evaluations of each seed. Of a free baseline, the "steps" number its points.
    """

    label: str
    proxy: str
    curves: Mapping[int, Curves]

    @property
    def mean(self) -> Curves:
        """Mean over the seeds with their range, at steps that all have; of a single seed its own curves."""
        by_seed = list(self.curves.values())
        if len(by_seed) == 1:
            return by_seed[0]
        shared = [key for key in by_seed[0] if all(key in curves for curves in by_seed)]
        return {key: curve for key in shared if (curve := mean_curve([own[key] for own in by_seed])).steps}

    def trails(self, key: str, *, by_prompt: bool = False) -> dict[int, Trail]:
        """Proxy and value at each evaluation that has both, by seed; seeds without any are left out.

        Args:
            key: the quantity.
            by_prompt: every prompt by itself; see :meth:`has_prompts`.
        """
        number = _by_prompt if by_prompt else _mean
        return {
            seed: Trail.of([number(proxy) for proxy, _ in points], [number(value) for _, value in points])
            for seed, points in self._points(key).items()
        }

    def has_prompts(self, key: str) -> bool:
        """Whether proxy and value are known for every prompt at every evaluation, as means over the prompts are."""
        points = [point for row in self._points(key).values() for pair in row for point in pair]
        return bool(points) and not any(math.isnan(value) for point in points for value in _by_prompt(point))

    def last(self, key: str) -> dict[int, float]:
        """The last value of each seed that has one."""
        return {
            seed: curves[key].values[-1] for seed, curves in self.curves.items() if key in curves and curves[key].steps
        }

    def _points(self, key: str) -> dict[int, list[tuple[Point, Point]]]:
        """Proxy and value at each evaluation that has both, by seed."""
        points = {}
        for seed, curves in self.curves.items():
            proxy, value = curves.get(self.proxy), curves.get(key)
            if proxy and value and (steps := [step for step in proxy.steps if step in value.steps]):
                points[seed] = [(proxy[step], value[step]) for step in steps]
        return points


def _mean(point: Point) -> float:
    return point.value


def _by_prompt(point: Point) -> tuple[float, ...]:
    return point.per_prompt.values if point.per_prompt else (math.nan,)


@dataclass(frozen=True, kw_only=True)
class Frontier:
    """A frontier over the proxies that all its seeds reach.

    Attributes:
        proxy: where it is known.
        mean: mean over the seeds.
        low, high: range over the seeds; of one seed the interval of
            :func:`seedpo.core.stats.frontiers.frontier_band` over prompts, or NaN.
        seeds: how many there are.
    """

    proxy: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    seeds: int = 1


def pool(members: Iterable[Series], key: str, *, by_prompt: bool = False) -> Pool:
    """All trails of some settings, by seed."""
    trails: dict[int, list[Trail]] = {}
    for member in members:
        for seed, trail in member.trails(key, by_prompt=by_prompt).items():
            trails.setdefault(seed, []).append(trail)
    return trails


def drawn(members: Sequence[Series], key: str, *, at: Sequence[float] = ()) -> Frontier | None:
    """The frontier of a pool over the seeds, at given proxies or at :data:`LEVELS` that all seeds reach.

    Returns:
        The frontier; ``None`` if the seeds share no proxies.
    """
    seeds = list(pool(members, key).values())
    low = max((min(float(trail.proxy[0]) for trail in trails) for trails in seeds), default=math.inf)
    high = min((max(float(trail.proxy.max()) for trail in trails) for trails in seeds), default=-math.inf)
    if high < low:
        return None
    levels = np.array(at) if at else np.linspace(low, high, LEVELS)
    values = np.stack([frontier(trails, levels) for trails in seeds])
    ends = values.min(0), values.max(0)
    if len(seeds) == 1:
        by_prompt = all(member.has_prompts(key) for member in members if member.trails(key))
        (trails,) = pool(members, key, by_prompt=by_prompt).values()
        ends = frontier_band(trails, levels)
    return Frontier(
        proxy=tuple(levels.tolist()),
        mean=tuple(values.mean(0).tolist()),
        low=tuple(ends[0].tolist()),
        high=tuple(ends[1].tolist()),
        seeds=len(seeds),
    )


def spread_of(members: Iterable[Series], key: str) -> float:
    """Greatest minus least value of a quantity in all evaluations: the scale on which a gap is large or small."""
    values = [value for trails in pool(members, key).values() for trail in trails for value in trail.value.tolist()]
    return max(values) - min(values) if values else math.nan
