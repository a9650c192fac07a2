"""Tables of a report: the results of every run, what differs between them, and how to run them again."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from seedpo.pages.tables import DASH, Cell, Table
from seedpo.pages.wording import count, duration, interval, number, setting, written
from seedpo.reports.runs import Run
from seedpo.reports.settings import Curve, Curves, Family, Point, Setting, differing_keys, read_curves
from seedpo.settings import dotted

GAMMA, BETA = "\N{GREEK SMALL LETTER GAMMA}", "\N{GREEK SMALL LETTER BETA}"


@dataclass(frozen=True, kw_only=True)
class Column:
    """A measured column.

    Attributes:
        title: heading.
        key: figure.
        pick: index of the evaluation that is shown.
        show_step: whether its step is shown.
        marked: whether intervals are shown and the best run is marked.
    """

    title: str
    key: str
    pick: Callable[[Curve], int]
    show_step: bool = False
    marked: bool = True


def _first(curve: Curve) -> int:
    return 0


def _last(curve: Curve) -> int:
    return len(curve.steps) - 1


def _best(curve: Curve) -> int:
    return max(range(len(curve.steps)), key=lambda index: curve.values[index])


def columns(family: Family) -> tuple[Column, ...]:
    """The measured columns of a family: first, best and last value of proxy and judge, and the ends of the others."""
    measured = [
        column
        for name, key in (("proxy", family.proxy), (family.judge_name, family.judge))
        for column in (
            Column(title=f"{name} first", key=key, pick=_first, marked=False),
            Column(title=f"{name} best", key=key, pick=_best, show_step=True),
            Column(title=f"{name} last", key=key, pick=_last),
        )
    ]
    return (
        *measured,
        Column(title="attributes right, last", key="attribute_accuracy", pick=_last),
        Column(title="diversity first", key="pairwise_diversity", pick=_first, marked=False),
        Column(title="diversity last", key="pairwise_diversity", pick=_last),
    )


def result_table(family: Family) -> Table:
    """One row per run with the best of each column marked, and the mean of every setting with several seeds."""
    shown = columns(family)
    curves = {run.folder: read_curves(run.evaluations) for one in family.settings for run in one.runs}
    bests = [_highest(column, list(curves.values())) for column in shown]
    rows: list[tuple[Cell, ...]] = []
    means: set[int] = set()
    for one in family.settings:
        for run in one.runs:
            cells = [_cell(column, curves[run.folder], best) for column, best in zip(shown, bests, strict=True)]
            steps = f"{run.last_step}{'' if run.finished else ' (unfinished)'}"
            time = duration(seconds(run)) if math.isfinite(seconds(run)) else DASH
            rows.append(_row(one, run.name, str(run.seed), steps, cells, time))
        if one.several_seeds:
            means.add(len(rows))
            cells = [_cell(column, one.curves, math.nan) for column in shown]
            steps = ", ".join(sorted({str(run.last_step) for run in one.runs}))
            rows.append(_row(one, "mean and range", count(len(one.runs), "seed"), steps, cells, ""))
    header = ("run", GAMMA, BETA, "a", "seed", "steps", *(column.title for column in shown), "wall time")
    return Table(header=header, rows=tuple(rows), summaries=frozenset(means))


def _row(one: Setting, name: str, seed: str, steps: str, cells: Sequence[Cell], time: str) -> tuple[Cell, ...]:
    plain = (setting(one.gamma), setting(one.beta), setting(one.policy_weight), seed, steps)
    first = Cell(text=name, small=(one.name,), role=one.role)
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


def _highest(column: Column, all_curves: Sequence[Curves]) -> float:
    values = [entry[1].value for curves in all_curves if (entry := _point(column, curves))]
    return max(values) if column.marked and len(values) > 1 and max(values) > min(values) else math.nan


def _cell(column: Column, curves: Curves, best: float) -> Cell:
    entry = _point(column, curves)
    if entry is None:
        return Cell(text=DASH)
    step, point = entry
    ends = interval(point.low, point.high) if column.marked else ""
    small = tuple(part for part in (ends, f"step {step}" if column.show_step else "") if part)
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
    runs = [run for one in family.settings for run in one.runs]
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


def environments(runs: Sequence[Run]) -> Table | None:
    """Every entry of the environments; where runs differ, each value with the runs that have it."""
    known = [(run.name, dotted(run.environment)) for run in runs if run.environment]
    rows = []
    for key in {key: None for _, environment in known for key in environment}:
        values: dict[str, list[str]] = {}
        for name, environment in known:
            values.setdefault(written(environment.get(key, "")), []).append(name)
        texts = values if len(values) == 1 else [f"{value} ({', '.join(names)})" for value, names in values.items()]
        rows.append((key, "; ".join(texts)))
    return Table.of(("what", "value"), rows) if rows else None
