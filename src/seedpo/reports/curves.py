"""What was measured over the evaluations of a run: curves of points with intervals and values by prompt."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from seedpo.core.verdicts import Evaluation, Reading, deviation_of, is_mean_of
from seedpo.pages.wording import is_interval
from seedpo.reports.runs import PerPrompt, Record

NAN = math.nan


def as_number(value: Any) -> float:
    """The value if it is a finite number, else NaN."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if usable else NAN


@dataclass(frozen=True, kw_only=True)
class Point:
    """A value with its interval; the ends are NaN where none is known.

    Attributes:
        value: mean over prompts, or over seeds.
        low, high: ends of the interval.
        per_prompt: the values of which it is the mean, where they are known.
        seeds: the points of which it is the mean; empty for the point of a single run.
    """

    value: float
    low: float = NAN
    high: float = NAN
    per_prompt: PerPrompt | None = field(default=None, repr=False)
    seeds: tuple[Point, ...] = field(default=(), repr=False)

    @property
    def has_interval(self) -> bool:
        """Whether both ends are known and lie apart: an interval without width is no evidence."""
        return is_interval(self.low, self.high)

    @property
    def deviation(self) -> float:
        """Standard deviation over prompts, mean over seeds; NaN if it is not known."""
        points = self.seeds or (self,)
        return deviation_of(*(point.per_prompt.values for point in points if point.per_prompt))

    @property
    def reading(self) -> Reading:
        """The point as the verdict of a run reads it."""
        half = (self.high - self.low) / 2 if self.has_interval else None
        return Reading(value=self.value, half=half, by_prompt=self.per_prompt.values if self.per_prompt else ())


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A quantity over the evaluations, by ascending step."""

    steps: tuple[int, ...]
    points: tuple[Point, ...]

    def __getitem__(self, step: int) -> Point:
        return self.points[self.steps.index(step)]

    @property
    def values(self) -> tuple[float, ...]:
        """The values without their intervals."""
        return tuple(point.value for point in self.points)


Curves = Mapping[str, Curve]


def read_curves(
    records: Sequence[Record], per_prompt: Mapping[int, Mapping[str, PerPrompt]] = MappingProxyType({})
) -> Curves:
    """Every quantity of a run's evaluations with its interval (``<key>/low``, ``<key>/high``) and values by prompt."""
    keys = {key: None for record in records for key in record if key != "step" and not key.endswith(("/low", "/high"))}
    curves = {}
    for key in keys:
        lines = [record for record in records if key in record]
        points = [
            Point(
                value=record[key],
                low=record.get(f"{key}/low", NAN),
                high=record.get(f"{key}/high", NAN),
                per_prompt=_mean_of(per_prompt.get(int(record["step"]), {}).get(key), record[key]),
            )
            for record in lines
        ]
        curves[key] = Curve(steps=tuple(int(record["step"]) for record in lines), points=tuple(points))
    return curves


def _mean_of(values: PerPrompt | None, mean: float) -> PerPrompt | None:
    return values if values is not None and is_mean_of(mean, values.values) else None


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """Mean over seeds with their range, at the steps that all of them have."""
    steps = [step for step in curves[0].steps if all(step in curve.steps for curve in curves)]
    points = [mean_point([curve[step] for curve in curves]) for step in steps]
    return Curve(steps=tuple(steps), points=tuple(points))


def mean_point(points: Sequence[Point]) -> Point:
    """Mean over seeds with their range; where all are equal, as before training, the interval of the first one."""
    values = [point.value for point in points]
    low, high = min(values), max(values)
    if not is_interval(low, high):
        return replace(points[0], seeds=tuple(points))
    return Point(value=sum(values) / len(values), low=low, high=high, seeds=tuple(points))


def evaluations_of(curves: Curves) -> list[Evaluation]:
    """The evaluations of a run, by ascending step."""
    steps = sorted({step for curve in curves.values() for step in curve.steps})
    return [
        Evaluation(
            step=step,
            figures={key: curve[step].reading for key, curve in curves.items() if step in curve.steps},
        )
        for step in steps
    ]
