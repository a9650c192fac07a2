"""Ablation charts: a figure against gamma at fixed beta, and against beta at fixed gamma, with the control drawn in.

As Fig. 5 of SEE-DPO (arXiv 2411.04712), for any measured figure, at the end of training and at its best evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from seedpo.pages.figures import Line, Panel
from seedpo.pages.wording import sentence, setting
from seedpo.reports.charts import quantities
from seedpo.reports.curves import Curves, Point
from seedpo.reports.families import Family, Setting

LEAST_VALUES = 3
"""A weight that takes fewer values is no ablation: the table of differences says as much."""

DODGE = 0.07
"""Distance between the bars of two lines at one value, as a share of that between two values."""

GAMMA, BETA = "\N{GREEK SMALL LETTER GAMMA}", "\N{GREEK SMALL LETTER BETA}"


@dataclass(frozen=True, kw_only=True)
class Axis:
    """The weight that varies, and the one that is held.

    Attributes:
        name: of the weight on the x axis.
        value: that weight of a setting.
        held_name: of the other one.
        held: that weight of a setting.
    """

    name: str
    value: Callable[[Setting], float]
    held_name: str
    held: Callable[[Setting], float]


AXES = (
    Axis(name=GAMMA, value=lambda one: one.gamma, held_name=BETA, held=lambda one: one.beta),
    Axis(name=BETA, value=lambda one: one.beta, held_name=GAMMA, held=lambda one: one.gamma),
)


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """The charts of one weight.

    Attributes:
        title: what varies.
        legend: label, role and dash pattern of every line.
        panels: one per figure, at the last and at the best evaluation.
    """

    title: str
    legend: tuple[tuple[str, str, int], ...]
    panels: tuple[Panel, ...]


def ablations(family: Family) -> tuple[Ablation, ...]:
    """Charts for each weight that takes three values or more while the other one is held."""
    return tuple(found for axis in AXES if (found := _ablation(family, axis)) is not None)


def _ablation(family: Family, axis: Axis) -> Ablation | None:
    rows = [row for row in _rows(family, axis) if len(row) >= LEAST_VALUES]
    if not rows:
        return None
    ticks = sorted({axis.value(one) for row in rows for one in row})
    panels = [
        panel
        for key, name in quantities(family).items()
        for best in (False, True)
        if not (best and key not in (family.proxy, family.judge))
        if (panel := _panel(family, axis, rows, ticks, key, name, best)) is not None
    ]
    lines = {line.label: (line.label, line.role, line.order) for panel in panels for line in panel.lines}
    title = f"{axis.name} varied at fixed {axis.held_name}"
    return Ablation(title=title, legend=tuple(lines.values()), panels=tuple(panels)) if panels else None


def _rows(family: Family, axis: Axis) -> list[list[Setting]]:
    """Evaluated settings with one held weight each, by the weight that varies; twins keep the one trained longest."""
    rows: dict[float, dict[float, Setting]] = {}
    for one in sorted((one for one in family.settings if one.curves), key=_reach):
        rows.setdefault(float(f"{axis.held(one):.6g}"), {})[float(f"{axis.value(one):.6g}")] = one
    return [[row[value] for value in sorted(row)] for _, row in sorted(rows.items())]


def _reach(one: Setting) -> int:
    return max((step for curve in one.curves.values() for step in curve.steps), default=-1)


def _panel(
    family: Family,
    axis: Axis,
    rows: Sequence[Sequence[Setting]],
    ticks: Sequence[float],
    key: str,
    name: str,
    best: bool,
) -> Panel | None:
    lines = []
    for order, row in enumerate(rows):
        held = setting(axis.held(row[0]))
        places = [(_place(axis.value(one), ticks), one) for one in row]
        role = "base" if axis.held_name == GAMMA and axis.held(row[0]) == 0 else "see"
        lines += _line(f"{axis.held_name} = {held}", role, order, places, key, best)
        controls = [
            (place, control)
            for place, one in places
            if one.gamma != 0 and (control := family.control_of(one)) is not None and control.curves
        ]
        lines += _line(f"control {BETA}\N{PRIME} = a, {axis.held_name} = {held}", "control", order, controls, key, best)
    if not lines:
        return None
    lines = [_beside(line, (index - (len(lines) - 1) / 2) * DODGE) for index, line in enumerate(lines)]
    return Panel(
        title=f"{sentence(name)}, {'best evaluation' if best else 'last evaluation'}",
        x_label=axis.name,
        y_label=name,
        lines=lines,
        by_step=False,
        x_ticks=tuple((float(index), setting(value)) for index, value in enumerate(ticks)),
    )


def _beside(line: Line, shift: float) -> Line:
    """The line moved a little, so that bars at one value do not hide each other."""
    return replace(line, x=[place + shift for place in line.x])


def _place(value: float, ticks: Sequence[float]) -> float:
    return float(min(range(len(ticks)), key=lambda index: abs(ticks[index] - value)))


def _line(
    label: str, role: str, order: int, places: Iterable[tuple[float, Setting]], key: str, best: bool
) -> list[Line]:
    found = [(place, one, figure) for place, one in places if (figure := value_of(one, key, best=best)) is not None]
    if not found:
        return []
    line = Line(
        label=label,
        role=role,
        order=order,
        x=[place for place, _, _ in found],
        y=[figure.value for _, _, figure in found],
        low=[figure.low for _, _, figure in found],
        high=[figure.high for _, _, figure in found],
        points=[one.name for _, one, _ in found],
        bars=True,
    )
    return [line]


def value_of(one: Setting, key: str, *, best: bool) -> Point | None:
    """A setting's figure at the last evaluation that all its seeds have, or at each seed's own best one.

    The interval is the range over seeds; of a single seed it is its own interval over prompts.
    """
    if not best:
        curve = one.curves.get(key)
        return curve.points[-1] if curve is not None and curve.steps else None
    peaks = [point for curves in one.by_seed if (point := _peak(curves, key)) is not None]
    if len(peaks) < 2:
        return peaks[0] if peaks else None
    values = [point.value for point in peaks]
    return Point(value=sum(values) / len(values), low=min(values), high=max(values))


def _peak(curves: Curves, key: str) -> Point | None:
    curve = curves.get(key)
    points = [point for point in curve.points if math.isfinite(point.value)] if curve is not None else []
    return max(points, key=lambda point: point.value, default=None)
