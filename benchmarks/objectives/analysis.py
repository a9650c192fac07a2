"""What the comparison shows of each contender, at equal cost and at equal proxy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from benchmarks.objectives.contenders import CONTENDERS, Contender
from benchmarks.objectives.results import Results
from benchmarks.objectives.selection import by_truth, chosen
from seedpo.core.stats.classical import student_interval
from seedpo.core.stats.frontiers import GapInterval, Trail, gap_interval
from seedpo.core.verdicts import Difference, difference_of, matters

QUANTITIES = ("truth", "free_spread_right")
"""What is compared at equal proxy."""

BASE = "diffusion-dpo"
"""What every contender is held against at equal cost."""


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A mean over the seeds with its 95 % interval by Student's t."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean:
        """Of one value for each seed."""
        low, high = student_interval(values)
        return cls(value=fmean(values), low=low, high=high)


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """A contender less its rival in one quantity; ``difference`` says what is shown."""

    mean: float
    low: float
    high: float
    difference: Difference


@dataclass(frozen=True, kw_only=True)
class Row:
    """A contender in one world.

    Attributes:
        contender: what was trained.
        rate, second: values that the search chose.
        start: figures before training.
        ends: figures at the end of a run.
        units: counted cost of a run, mean over the seeds.
        seconds: processor time of training, the same.
        against: at equal cost, truth and spread of right images less those of Diffusion-DPO.
        at_proxy: at equal proxy, the same less those of the rival; empty without one.
        given_up: truth in the search of the trial with the most of it, less that of the chosen one.
        failures: trials of the search that diverged.
    """

    contender: Contender
    rate: float
    second: float | None
    start: dict[str, float]
    ends: dict[str, Mean]
    units: float
    seconds: float
    against: dict[str, Contrast]
    at_proxy: dict[str, Contrast]
    given_up: float
    failures: int


def rows(results: Results, world: str) -> list[Row]:
    """The contenders whose comparison is finished."""
    ready = [contender for name, contender in CONTENDERS.items() if _whole(results.comparison(world, name))]
    return [_row(results, world, contender) for contender in ready]


def _whole(runs: Sequence[dict[str, Any]]) -> bool:
    return bool(runs) and not any(run.get("failure") for run in runs)


def _row(results: Results, world: str, contender: Contender) -> Row:
    runs = results.comparison(world, contender.name)
    start, last = runs[0]["lines"][0], [run["lines"][-1] for run in runs]
    names = [name for name in start if name not in ("step", "units", "seconds")]
    searched = results.search(world, contender.twin or contender.name)
    best, most = chosen(searched), by_truth(searched)
    truths = [trial["lines"][-1]["truth"] for trial in searched]
    return Row(
        contender=contender,
        rate=runs[0]["rate"],
        second=runs[0]["second"],
        start={name: start[name] for name in names},
        ends={name: Mean.of([line[name] for line in last]) for name in names},
        units=fmean(line["units"] for line in last),
        seconds=fmean(line["seconds"] for line in last),
        against={} if contender.name == BASE else _at_equal_cost(results, world, contender.name),
        at_proxy=_at_equal_proxy(results, world, contender),
        given_up=math.nan if best is None or most is None else truths[most] - truths[best],
        failures=sum(bool(trial.get("failure")) for trial in searched),
    )


def scale_of(results: Results, world: str, key: str) -> float:
    """Range of a quantity over the evaluations of all runs of the comparison."""
    values = [
        line[key]
        for name in CONTENDERS
        for run in results.comparison(world, name)
        for line in run["lines"]
        if math.isfinite(line[key])
    ]
    return max(values) - min(values)


def _at_equal_cost(results: Results, world: str, name: str) -> dict[str, Contrast]:
    sides = [results.comparison(world, side) for side in (name, BASE)]
    if not all(map(_whole, sides)):
        return {}
    contrasts = {}
    for key in QUANTITIES:
        left, right = ([run["lines"][-1][key] for run in runs] for runs in sides)
        mean = Mean.of([a - b for a, b in zip(left, right, strict=True)])
        sign = int(mean.low > 0) - int(mean.high < 0)
        contrasts[key] = _contrast(mean.value, mean.low, mean.high, sign, scale_of(results, world, key))
    return contrasts


def _at_equal_proxy(results: Results, world: str, contender: Contender) -> dict[str, Contrast]:
    sides = [results.comparison(world, side) for side in (contender.name, contender.rival)]
    if not all(map(_whole, sides)):
        return {}
    contrasts = {}
    for key in QUANTITIES:
        gap = gap_interval(*(_pool(runs, key) for runs in sides))
        contrasts[key] = _of_gap(gap, scale_of(results, world, key))
    return contrasts


def _pool(runs: Sequence[dict[str, Any]], key: str) -> dict[int, list[Trail]]:
    trails = {}
    for seed, run in enumerate(runs):
        lines = [line for line in run["lines"] if math.isfinite(line[key])]
        trails[seed] = [Trail.of([line["proxy"] for line in lines], [line[key] for line in lines])]
    return trails


def _of_gap(gap: GapInterval, scale: float) -> Contrast:
    if len(gap.by_seed) < 3:
        return Contrast(mean=gap.mean, low=gap.t_low, high=gap.t_high, difference=Difference.NOT_COMPARABLE)
    return _contrast(gap.mean, gap.t_low, gap.t_high, gap.sign, scale)


def _contrast(mean: float, low: float, high: float, sign: int, scale: float) -> Contrast:
    shown = matters(abs(mean), scale=scale)
    return Contrast(mean=mean, low=low, high=high, difference=difference_of(sign, shown=shown))
