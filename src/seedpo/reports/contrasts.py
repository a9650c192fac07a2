"""Two settings compared at equal steps and at equal proxy: pure functions of their curves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from seedpo.core.stats.bootstrap import Interval, paired_difference
from seedpo.reports.runs import PerPrompt
from seedpo.reports.settings import Curve, Curves, Point, Setting

Verdict = Literal["higher", "lower", "unclear"]

LEAST_PROMPTS = 5
"""Fewer prompts make no bootstrap interval worth the name."""

NEGLIGIBLE = 0.02
"""Share of the range of both curves below which a difference without intervals counts as none."""


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """One quantity of a setting against another's.

    Attributes:
        left: the setting in question.
        right: the one that it is compared with.
        verdict: ``higher`` or ``lower`` if the paired interval leaves out 0 or the intervals do not overlap, else
            ``unclear``.
        judged: whether there were intervals to judge by.
        wins: seeds that both have in which the left one is higher, and the number of these seeds.
        paired: 95 % interval of the difference over the same prompts, where both are known prompt by prompt.
    """

    left: Point
    right: Point
    verdict: Verdict
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
    """Left less right over the same prompts with its 95 % bootstrap interval; nothing unless both are known by prompt.

    All evaluations draw the same latents, so that what makes a prompt hard cancels in the difference.
    """
    one, other = left.per_prompt, right.per_prompt
    if one is None or other is None or one.prompts != other.prompts:
        return None
    found = paired_difference(one.values, other.values)
    return found if found.count >= LEAST_PROMPTS else None


def apart(left: Point, right: Point) -> bool | None:
    """Whether two points differ beyond chance; nothing if that is unknown.

    That is, the paired interval leaves out 0, where there is one, or else the two intervals do not overlap.
    """
    difference = paired(left, right)
    if difference is not None:
        return difference.low > 0 or difference.high < 0
    if not (left.has_interval and right.has_interval):
        return None
    return left.low > right.high or left.high < right.low


def compare(left: Point, right: Point, *, scale: float, wins: tuple[int, int] = (0, 0)) -> Contrast:
    """Compares two points; without intervals a difference below 2 % of ``scale`` counts as none."""
    separate = apart(left, right)
    difference = left.value - right.value
    clear = abs(difference) > NEGLIGIBLE * scale if separate is None else separate
    verdict: Verdict = "unclear" if not clear or difference == 0 else "higher" if difference > 0 else "lower"
    return Contrast(
        left=left,
        right=right,
        verdict=verdict,
        judged=separate is not None,
        wins=wins,
        paired=paired(left, right),
    )


def at_step(curve: Curve, step: int) -> Point | None:
    """The point at a step, interpolated linearly between evaluations; nothing before the first or after the last."""
    if step in curve.steps:
        return curve[step]
    for before, after in pairwise(curve.steps):
        if before < step < after:
            return _between(curve[before], curve[after], (step - before) / (after - before))
    return None


def at_equal_steps(left: Setting, right: Setting, key: str) -> tuple[int, Contrast] | None:
    """Compares ``key`` at the last step that both settings reached; nothing if one was not trained yet."""
    one, other = left.curves.get(key), right.curves.get(key)
    if one is None or other is None or not (one.steps and other.steps):
        return None
    step = min(one.steps[-1], other.steps[-1])
    found, found_other = at_step(one, step), at_step(other, step)
    if step == 0 or found is None or found_other is None:
        return None
    pairs = []
    for a, b in _seed_pairs(left, right):
        mine, theirs = (at_step(curves[key], step) if key in curves else None for curves in (a, b))
        if mine is not None and theirs is not None:
            pairs.append((mine.value, theirs.value))
    return step, compare(found, found_other, scale=_scale(one, other), wins=_wins(pairs))


def at_equal_proxy(left: Setting, right: Setting, key: str, proxy: str) -> tuple[Level, Contrast] | None:
    """Compares ``key`` where both settings first reach the highest proxy that both reach.

    Curves are interpolated linearly between evaluations. Nothing if there is no such level above both starts.
    """
    one, other = left.curves, right.curves
    if any(name not in curves for curves in (one, other) for name in (key, proxy)):
        return None
    level = min(max(one[proxy].values, default=-math.inf), max(other[proxy].values, default=-math.inf))
    found, found_other = reach(one[proxy], one[key], level), reach(other[proxy], other[key], level)
    if found is None or found_other is None:
        return None
    pairs = []
    for a, b in _seed_pairs(left, right):
        if any(name not in curves for curves in (a, b) for name in (key, proxy)):
            continue
        mine, theirs = reach(a[proxy], a[key], level), reach(b[proxy], b[key], level)
        if mine is not None and theirs is not None:
            pairs.append((mine[1].value, theirs[1].value))
    contrast = compare(found[1], found_other[1], scale=_scale(one[key], other[key]), wins=_wins(pairs))
    return Level(proxy=level, left=found[0], right=found_other[0]), contrast


def reach(proxy: Curve, curve: Curve, level: float) -> tuple[float, Point] | None:
    """Step and interpolated point of ``curve`` where ``proxy`` first rises to ``level``; nothing if it never does."""
    steps = [step for step in proxy.steps if step in curve.steps]
    for before, after in pairwise(steps):
        low, high = proxy[before].value, proxy[after].value
        if low < level <= high:
            share = (level - low) / (high - low)
            return before + share * (after - before), _between(curve[before], curve[after], share)
    return None


def _between(before: Point, after: Point, share: float) -> Point:
    def mix(left: float, right: float) -> float:
        return right if share == 1 else (1 - share) * left + share * right

    both = before.per_prompt, after.per_prompt
    mixed = None
    if both[0] is not None and both[1] is not None and both[0].prompts == both[1].prompts:
        values = tuple(mix(one, other) for one, other in zip(both[0].values, both[1].values, strict=True))
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


def _wins(pairs: list[tuple[float, float]]) -> tuple[int, int]:
    return sum(mine > theirs for mine, theirs in pairs), len(pairs)
