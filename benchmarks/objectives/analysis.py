"""What the comparison shows of each contender, at equal cost and at equal proxy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Any

from benchmarks.objectives.contenders import CONTENDERS, Contender
from benchmarks.objectives.results import Results
from benchmarks.objectives.selection import by_truth, chosen
from seedpo.core.stats.classical import student_interval
from seedpo.core.verdicts import Difference, difference_of, matters

QUANTITIES = ("truth", "free_spread_right")
"""What is compared at equal proxy."""

LEAST_SEEDS = 3
"""With fewer seeds nothing is compared."""

Line = Mapping[str, float]
"""The figures of an evaluation."""

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
    differences = {
        key: [left["lines"][-1][key] - right["lines"][-1][key] for left, right in zip(*sides, strict=True)]
        for key in QUANTITIES
    }
    return {key: _contrast(values, scale_of(results, world, key)) for key, values in differences.items()}


def _at_equal_proxy(results: Results, world: str, contender: Contender) -> dict[str, Contrast]:
    sides = [results.comparison(world, side) for side in (contender.name, contender.rival)]
    if not all(map(_whole, sides)):
        return {}
    contrasts = {}
    for key in QUANTITIES:
        pairs = [
            difference_at_equal_proxy(left["lines"], right["lines"], key) for left, right in zip(*sides, strict=True)
        ]
        contrasts[key] = _contrast([value for value in pairs if value is not None], scale_of(results, world, key))
    return contrasts


def difference_at_equal_proxy(left: Sequence[Line], right: Sequence[Line], key: str) -> float | None:
    """Left less right where both first reach the highest proxy that both reach; `None` if one of them never rises."""
    level = min(max(line["proxy"] for line in lines) for lines in (left, right))
    if level <= max(lines[0]["proxy"] for lines in (left, right)):
        return None
    return value_at(left, key, level) - value_at(right, key, level)


def value_at(lines: Sequence[Line], key: str, level: float) -> float:
    """A figure where the proxy first reaches a level above its start, straight between evaluations."""
    for before, after in pairwise(lines):
        if after["proxy"] >= level:
            share = (level - before["proxy"]) / (after["proxy"] - before["proxy"])
            return before[key] + share * (after[key] - before[key])
    raise ValueError(f"the proxy never reaches {level}")


def _contrast(values: Sequence[float], scale: float) -> Contrast:
    if len(values) < LEAST_SEEDS:
        return Contrast(mean=math.nan, low=math.nan, high=math.nan, difference=Difference.NOT_COMPARABLE)
    mean = Mean.of(values)
    sign, shown = int(mean.low > 0) - int(mean.high < 0), matters(abs(mean.value), scale=scale)
    return Contrast(mean=mean.value, low=mean.low, high=mean.high, difference=difference_of(sign, shown=shown))
