"""Two settings compared at equal steps and at equal proxy: pure functions of their curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from seedpo.core.stats.bootstrap import Interval, paired_difference
from seedpo.core.verdicts import LEAST_EVALUATIONS, LEAST_PROMPTS, Difference, difference_of, matters
from seedpo.pages.wording import is_interval
from seedpo.reports.curves import Curve, Curves, Point
from seedpo.reports.families import Setting
from seedpo.reports.runs import PerPrompt

CLOSE = 0.25
"""Evaluations that lie further apart than this share of all evaluated steps are not interpolated between."""


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """One quantity of a setting against another's.

    Attributes:
        left: the setting in question.
        right: the one that it is compared with.
        verdict: higher or lower if the difference matters, and the paired interval leaves out 0 or the intervals do not
            overlap.
        judged: whether there were intervals to judge by.
        wins: seeds that both have in which the left one is higher, and the number of these seeds.
        paired: 95 % interval of the difference over the same prompts, where both are known prompt by prompt.
    """

    left: Point
    right: Point
    verdict: Difference
    judged: bool
    wins: tuple[int, int] = (0, 0)
    paired: Interval | None = None

    @property
    def difference(self) -> float:
        """Left minus right."""
        return self.left.value - self.right.value


@dataclass(frozen=True, kw_only=True)
class Level:
    """Where two runs reach the same proxy.

    Attributes:
        proxy: the highest value that both reached.
        left: step (interpolated) at which the left setting first reached it.
        right: the same for the right one.
    """

    proxy: float
    left: float
    right: float


def paired(left: Point, right: Point) -> Interval | None:
    """Left less right over the same prompts with its 95 % bootstrap interval; ``None`` unless both are known by prompt.

    All evaluations draw the same latents, so what makes a prompt hard cancels in the difference.
    """
    first, second = left.per_prompt, right.per_prompt
    if first is None or second is None or first.prompts != second.prompts:
        return None
    difference = paired_difference(first.values, second.values)
    usable = difference.count >= LEAST_PROMPTS and is_interval(difference.low, difference.high)
    return difference if usable else None


def apart(left: Point, right: Point) -> bool | None:
    """Whether two points differ beyond chance; ``None`` if that is unknown.

    That is, the paired interval leaves out 0, where there is one, or else the two intervals do not overlap.
    """
    difference = paired(left, right)
    if difference is not None:
        return difference.low > 0 or difference.high < 0
    if not (left.has_interval and right.has_interval):
        return None
    return left.low > right.high or left.high < right.low


def compare(left: Point, right: Point, *, scale: float, wins: tuple[int, int] = (0, 0)) -> Contrast:
    """Compares two points; without intervals, or where the difference is too small to matter, none is shown.

    Args:
        left, right: the points.
        scale: range of the figure over all evaluations of both, see :func:`seedpo.core.verdicts.matters`.
        wins: seeds in which the left one is higher, and seeds that both have.
    """
    separate = apart(left, right)
    difference = left.value - right.value
    deviations = [deviation for point in (left, right) if math.isfinite(deviation := point.deviation)]
    deviation = fmean(deviations) if deviations else math.nan
    shown = bool(separate) and matters(abs(difference), scale=scale, deviation=deviation)
    return Contrast(
        left=left,
        right=right,
        verdict=difference_of(int(difference > 0) - int(difference < 0), shown=shown),
        judged=separate is not None,
        wins=wins,
        paired=paired(left, right),
    )


def at_step(curve: Curve, step: int) -> Point | None:
    """The point at a step, interpolated linearly between close evaluations; ``None`` if there are none around it."""
    if step in curve.steps:
        return curve[step]
    for before, after in pairwise(curve.steps):
        if before < step < after and _are_close(before, after, curve.steps):
            return _between(curve[before], curve[after], (step - before) / (after - before))
    return None


def at_equal_steps(left: Setting, right: Setting, key: str) -> tuple[int, Contrast] | None:
    """Compares ``key`` at the last step that both settings reached; ``None`` if one was not trained yet.

    Where a setting has no evaluation near that step, it is the last step at which both were evaluated.
    """
    first, second = left.curves.get(key), right.curves.get(key)
    if first is None or second is None or not (first.steps and second.steps):
        return None
    ends = [min(first.steps[-1], second.steps[-1]), *sorted({*first.steps} & {*second.steps}, reverse=True)]
    for step in ends:
        point, rival = at_step(first, step), at_step(second, step)
        if point is not None and rival is not None:
            break
    else:
        return None
    if step == 0:
        return None
    pairs = [
        tuple(at_step(curves[key], step) if key in curves else None for curves in pair)
        for pair in _seed_pairs(left, right)
    ]
    return step, compare(point, rival, scale=_scale(first, second), wins=_wins(pairs))


def at_equal_proxy(left: Setting, right: Setting, key: str, proxy: str) -> tuple[Level, Contrast] | None:
    """Compares ``key`` where both settings first reach the highest proxy that both reach.

    Curves are interpolated linearly between close evaluations. ``None`` if there is no such level above both starts, or
    if a setting has fewer than three evaluations: two make no trend.
    """
    first, second = left.curves, right.curves
    if any(len(_shared_steps(curves, key, proxy)) < LEAST_EVALUATIONS for curves in (first, second)):
        return None
    level = min(max(first[proxy].values, default=-math.inf), max(second[proxy].values, default=-math.inf))
    there, rival = _reach(first, key, proxy, level), _reach(second, key, proxy, level)
    if there is None or rival is None:
        return None
    pairs = [[_reach(curves, key, proxy, level) for curves in pair] for pair in _seed_pairs(left, right)]
    wins = _wins([[place[1] if place else None for place in pair] for pair in pairs])
    contrast = compare(there[1], rival[1], scale=_scale(first[key], second[key]), wins=wins)
    return Level(proxy=level, left=there[0], right=rival[0]), contrast


def _reach(curves: Curves, key: str, proxy: str, level: float) -> tuple[float, Point] | None:
    return reach(curves[proxy], curves[key], level) if key in curves and proxy in curves else None


def reach(proxy: Curve, curve: Curve, level: float) -> tuple[float, Point] | None:
    """Step and interpolated point of ``curve`` where ``proxy`` first rises to ``level``.

    ``None`` if it never does, or does so between evaluations that lie too far apart to interpolate.
    """
    steps = [step for step in proxy.steps if step in curve.steps]
    for before, after in pairwise(steps):
        low, high = proxy[before].value, proxy[after].value
        if low < level <= high:
            share = (level - low) / (high - low)
            if share < 1 and not _are_close(before, after, steps):
                return None
            return before + share * (after - before), _between(curve[before], curve[after], share)
    return None


def _shared_steps(curves: Curves, key: str, proxy: str) -> list[int]:
    return [step for step in curves[key].steps if step in curves[proxy].steps] if {key, proxy} <= curves.keys() else []


def _are_close(before: int, after: int, steps: Sequence[int]) -> bool:
    return after - before <= CLOSE * (steps[-1] - steps[0])


def _between(before: Point, after: Point, share: float) -> Point:
    def mix(left: float, right: float) -> float:
        return right if share == 1 else (1 - share) * left + share * right

    both = before.per_prompt, after.per_prompt
    mixed = None
    if both[0] is not None and both[1] is not None and both[0].prompts == both[1].prompts:
        values = tuple(mix(first, second) for first, second in zip(both[0].values, both[1].values, strict=True))
        mixed = PerPrompt(prompts=both[0].prompts, values=values)
    return Point(
        value=mix(before.value, after.value),
        low=mix(before.low, after.low),
        high=mix(before.high, after.high),
        per_prompt=mixed,
    )


def _scale(*curves: Curve) -> float:
    values = [value for curve in curves for value in curve.values]
    return max(values) - min(values)


def _seed_pairs(left: Setting, right: Setting) -> list[tuple[Curves, Curves]]:
    """Curves of the runs with the same seed."""
    ours: Mapping[int, Curves] = dict(zip(left.seeds, left.by_seed, strict=True))
    theirs: Mapping[int, Curves] = dict(zip(right.seeds, right.by_seed, strict=True))
    return [(ours[seed], theirs[seed]) for seed in sorted(set(ours) & set(theirs)) if ours[seed] and theirs[seed]]


def _wins(pairs: Sequence[Sequence[Point | None]]) -> tuple[int, int]:
    """Seeds in which the left point is higher, and seeds that have both points."""
    known = [(left.value, right.value) for left, right in pairs if left is not None and right is not None]
    return sum(left > right for left, right in known), len(known)
