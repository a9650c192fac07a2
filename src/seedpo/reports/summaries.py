"""What an evaluation says of itself: ``summary.json``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seedpo.core.stats.bootstrap import Interval, WinRate
from seedpo.reports.settings import Point


@dataclass(frozen=True, kw_only=True, order=True)
class Target:
    """One model, at one training step where it was evaluated over its training.

    Attributes:
        label: name of the model.
        step: optimiser steps; -1 where it is not a step of a training.
    """

    label: str
    step: int = -1

    @property
    def name(self) -> str:
        """Label and step."""
        return self.label if self.step < 0 else f"{self.label}, step {self.step}"


Pair = tuple[Target, Target, str]
"""Two models and the figure by which they are compared."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The figures and pairs of a summary.

    Attributes:
        points: figures with their intervals.
        directions: ``higher``, ``lower`` or ``neither``, by figure.
        differences: paired differences, the first model less the second.
        wins: win rates of the first model.
        tie_widths: by reward, the size up to which differences are ties.
    """

    points: Mapping[tuple[Target, str], Point] = field(default_factory=dict)
    directions: Mapping[str, str] = field(default_factory=dict)
    differences: Mapping[Pair, Interval] = field(default_factory=dict)
    wins: Mapping[Pair, WinRate] = field(default_factory=dict)
    tie_widths: Mapping[str, float] = field(default_factory=dict)


def read_summary(path: Path) -> Summary | None:
    """Reads a summary; nothing if it is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        figures = [row for row in content["figures"] if row.get("mean") is not None]
        pairs = [row for row in content["pairs"] if row.get("difference") is not None]
        return Summary(
            points={(_target(row), str(row["figure"])): _point(row) for row in figures},
            directions={str(row["figure"]): str(row.get("direction", "higher")) for row in figures},
            differences={_pair(row): _difference(row) for row in pairs},
            wins={_pair(row): _wins(row) for row in pairs if row.get("rate") is not None},
            tie_widths={str(row["figure"]): number(row["tie_width"]) for row in pairs if row.get("tie_width")},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def number(value: Any) -> float:
    """The value if it is a finite number, else NaN."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if usable else math.nan


def _target(row: Mapping[str, Any], name: str = "target", step: str = "step") -> Target:
    return Target(label=str(row[name]), step=-1 if row.get(step) is None else int(row[step]))


def _pair(row: Mapping[str, Any]) -> Pair:
    return _target(row), _target(row, "other", "other_step"), str(row["figure"])


def _point(row: Mapping[str, Any]) -> Point:
    return Point(value=number(row["mean"]), low=number(row.get("low")), high=number(row.get("high")))


def _difference(row: Mapping[str, Any]) -> Interval:
    return Interval(
        mean=number(row["difference"]),
        low=number(row["difference_low"]),
        high=number(row["difference_high"]),
        count=int(row["count"]),
    )


def _wins(row: Mapping[str, Any]) -> WinRate:
    shares = {name: number(row[name]) for name in ("win", "tie", "loss", "low", "high")}
    return WinRate(**shares, count=int(row["count"]))
