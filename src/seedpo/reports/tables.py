"""Tables of a report: the results of every run, what differs between them, and how to run them again."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import yaml

from seedpo.pages.tables import DASH, Cell, Table
from seedpo.pages.wording import compact, count, duration, interval, number, written
from seedpo.reports.curves import Curve, Curves, Point, read_curves
from seedpo.reports.families import Family, Setting, differing_keys
from seedpo.reports.names import figure_name, less_is_better, of_kind
from seedpo.reports.runs import Run
from seedpo.settings import dotted

GAMMA, BETA = "\N{GREEK SMALL LETTER GAMMA}", "\N{GREEK SMALL LETTER BETA}"


@dataclass(frozen=True, kw_only=True)
class Column:
    """A measured column.

    Attributes:
        which: ``first``, ``best`` or ``last`` evaluation.
        key: figure.
        name: the figure in words.
    """

    which: str
    key: str
    name: str

    @property
    def title(self) -> str:
        """Heading."""
        return f"{self.name} {self.which}"

    def pick(self, curve: Curve) -> int:
        """Index of the evaluation that is shown."""
        if self.which != "best":
            return {"first": 0, "last": len(curve.steps) - 1}[self.which]
        return curve.values.index(self.best_of(curve.values))

    def best_of(self, values: Sequence[float]) -> float:
        """The best of some values of the figure."""
        return min(values) if less_is_better(self.key) else max(values)


def columns(family: Family) -> tuple[Column, ...]:
    """First, best and last value of proxy and judge, first and last of a diversity, and the last of a quality."""
    shown = [
        Column(which=which, key=key, name=name)
        for key, name in ((family.proxy, "proxy"), (family.judge, family.judge_name))
        for which in ("first", "best", "last")
    ]
    for kind, whiches in (("diversity", ("first", "last")), ("quality", ("last",))):
        for key in of_kind(kind, family.figures):
            if key != family.judge:
                shown += [Column(which=which, key=key, name=figure_name(key)) for which in whiches]
    return tuple(shown)


def result_table(family: Family) -> Table:
    """One row per run with the best of each column marked, and the mean of every setting with several seeds."""
    shown = columns(family)
    curves = {run.folder: read_curves(run.evaluations) for setting in family.settings for run in setting.runs}
    bests = [_best(column, list(curves.values())) for column in shown]
    rows: list[tuple[Cell, ...]] = []
    means: set[int] = set()
    for setting in family.settings:
        for run in setting.runs:
            cells = [_cell(column, curves[run.folder], best) for column, best in zip(shown, bests, strict=True)]
            steps = f"{run.last_step}{'' if run.finished else ' (unfinished)'}"
            time = duration(seconds(run)) if math.isfinite(seconds(run)) else DASH
            rows.append(_row(setting, run.name, str(run.seed), steps, cells, time))
        if setting.several_seeds:
            means.add(len(rows))
            cells = [_cell(column, setting.curves, math.nan) for column in shown]
            steps = ", ".join(sorted({str(run.last_step) for run in setting.runs}))
            rows.append(_row(setting, "mean and range", count(len(setting.runs), "seed"), steps, cells, ""))
    header = ("run", GAMMA, BETA, "a", "seed", "steps", *(column.title for column in shown), "wall time")
    return Table(header=header, rows=tuple(rows), summaries=frozenset(means))


def _row(setting: Setting, name: str, seed: str, steps: str, cells: Sequence[Cell], time: str) -> tuple[Cell, ...]:
    plain = (compact(setting.gamma), compact(setting.beta), compact(setting.policy_weight), seed, steps)
    first = Cell(text=name, small=(setting.name,), role=setting.role)
    return (first, *(Cell(text=text) for text in plain), *cells, Cell(text=time))


def seconds(run: Run) -> float:
    """Wall time of a finished run; NaN if it is not known."""
    value = run.finished.get("seconds", math.nan) if run.finished else math.nan
    return float(value) if isinstance(value, int | float) else math.nan


def _point(column: Column, curves: Curves) -> tuple[int, Point] | None:
    curve = curves.get(column.key)
    if curve is None or not curve.steps:
        return None
    index = column.pick(curve)
    return curve.steps[index], curve.points[index]


def _best(column: Column, all_curves: Sequence[Curves]) -> float:
    """The best value of a column; NaN where there is nothing to choose. Before training there is no best."""
    values = [entry[1].value for curves in all_curves if (entry := _point(column, curves))]
    return column.best_of(values) if column.which != "first" and len(set(values)) > 1 else math.nan


def _cell(column: Column, curves: Curves, best: float) -> Cell:
    entry = _point(column, curves)
    if entry is None:
        return Cell(text=DASH)
    step, point = entry
    ends = interval(point.low, point.high) if column.which != "first" else ""
    small = tuple(part for part in (ends, f"step {step}" if column.which == "best" else "") if part)
    return Cell(text=number(point.value), small=small, best=point.value == best)


def configuration_differences(runs: Sequence[Run]) -> Table | None:
    """Keys that are not the same in all runs, and each run's values of them; ``None`` if there are none."""
    configs = [dotted(run.config) for run in runs]
    keys = differing_keys(configs)
    rows = [(run.name, *(written(config.get(key)) for key in keys)) for run, config in zip(runs, configs, strict=True)]
    return Table.of(("run", *keys), rows) if keys else None


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to run a family again: one recipe, and a command per run with what differs from it."""

    file: str
    yaml: str
    commands: tuple[str, ...]


def recipe(family: Family, file: str) -> Recipe:
    """The first run's configuration as a recipe and the command line of every run of the family."""
    runs = [run for setting in family.settings for run in setting.runs]
    shared = dotted(runs[0].config)
    return Recipe(
        file=file,
        yaml=yaml.safe_dump(dict(runs[0].config), sort_keys=False, allow_unicode=True),
        commands=tuple(_command(run, shared, file) for run in runs),
    )


def _command(run: Run, shared: Mapping[str, Any], file: str) -> str:
    own = dotted(run.config)
    changes = [f"--set {shlex.quote(f'{key}={written(own[key])}')}" for key in own if own[key] != shared.get(key)]
    return " ".join(["seedpo train", shlex.quote(file), *changes, "--out", shlex.quote(f"runs/{run.name}")])


ENTRIES = 500
"""Entries of environments that are shown at most; a run writes about thirty."""


def environments(runs: Sequence[Run]) -> Table | None:
    """The entries of the environments; where runs differ, each value with the runs that have it."""
    known = [(run.name, dotted(run.environment)) for run in runs if run.environment]
    rows = []
    for key in islice({key: None for _, environment in known for key in environment}, ENTRIES):
        values: dict[str, list[str]] = {}
        for name, environment in known:
            values.setdefault(written(environment.get(key, "")), []).append(name)
        texts = values if len(values) == 1 else [f"{value} ({', '.join(names)})" for value, names in values.items()]
        rows.append((key, "; ".join(texts)))
    return Table.of(("what", "value"), rows) if rows else None
