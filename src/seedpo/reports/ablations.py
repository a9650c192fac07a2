"""Ablation charts: a figure against gamma at fixed beta, and against beta at fixed gamma, with the control drawn in.

As Fig. 5 of SEE-DPO (arXiv 2411.04712), for any measured figure, at the end of training and at its best evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from seedpo.pages.figures import Line, Panel
from seedpo.pages.wording import compact, sentence
from seedpo.reports.charts import quantities
from seedpo.reports.curves import Curves, Point
from seedpo.reports.families import Family, Setting
from seedpo.reports.names import figure_name
from seedpo.reports.tables import BETA, GAMMA

LEAST_VALUES = 3
"""A weight that takes fewer values is not an ablation: the table of differences says as much."""

DODGE = 0.07
"""Distance between the bars of two lines at one value, as a share of that between two values."""

AXES = {"gamma": (GAMMA, "beta", BETA), "beta": (BETA, "gamma", GAMMA)}
"""Weights that may vary: symbol, and name and symbol of the weight that is held."""


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


def ablations(
    family: Family, keys: Sequence[str] | None = None, *, bests: Sequence[bool] = (False, True)
) -> tuple[Ablation, ...]:
    """Charts for each weight that takes three values or more while the other one is held.

    Args:
        family: the runs.
        keys: figures; all that were measured if there are none, of which only proxy and judge at their best.
        bests: at the last (false) or at the best (true) evaluation, or at both.
    """
    names = quantities(family)
    figures = names if keys is None else {key: names.get(key, figure_name(key)) for key in keys}
    shown = [
        (key, name, best)
        for key, name in figures.items()
        for best in bests
        if not best or keys is not None or key in (family.proxy, family.judge)
    ]
    return tuple(ablation for axis in AXES if (ablation := _ablation(family, axis, shown)) is not None)


def _ablation(family: Family, axis: str, shown: Sequence[tuple[str, str, bool]]) -> Ablation | None:
    rows = [row for row in _rows(family, axis) if len(row) >= LEAST_VALUES]
    ticks = sorted({getattr(setting, axis) for row in rows for setting in row})
    panels = [
        replace(
            _panel(family, axis, rows, ticks, key, best=best),
            title=f"{sentence(name)}, {'best' if best else 'last'} evaluation",
            y_label=name,
        )
        for key, name, best in shown
    ]
    panels = [panel for panel in panels if panel.lines]
    if not panels:
        return None
    lines = {line.label: (line.label, line.role, line.order) for panel in panels for line in panel.lines}
    symbol, _, held = AXES[axis]
    return Ablation(title=f"{symbol} varied at fixed {held}", legend=tuple(lines.values()), panels=tuple(panels))


def _rows(family: Family, axis: str) -> list[list[Setting]]:
    """Evaluated settings with one held weight each, by the weight that varies; of twins the one trained longest."""
    held = AXES[axis][1]
    rows: dict[float, dict[float, Setting]] = {}
    for setting in sorted(
        (setting for setting in family.settings if setting.curves), key=lambda setting: setting.reach
    ):
        rows.setdefault(_rounded(getattr(setting, held)), {})[_rounded(getattr(setting, axis))] = setting
    return [[row[value] for value in sorted(row)] for _, row in sorted(rows.items())]


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _panel(
    family: Family, axis: str, rows: Sequence[Sequence[Setting]], ticks: Sequence[float], key: str, *, best: bool
) -> Panel:
    lines = [line for order, row in enumerate(rows) for line in _lines(family, axis, row, ticks, key, order, best)]
    middle = (len(lines) - 1) / 2  # lines stand beside each other, so that bars at one value do not hide each other
    return Panel(
        title="",
        x_label=AXES[axis][0],
        y_label="",
        lines=[
            replace(line, x=[place + (index - middle) * DODGE for place in line.x]) for index, line in enumerate(lines)
        ],
        by_step=False,
        x_ticks=tuple((float(index), compact(value)) for index, value in enumerate(ticks)),
    )


def _lines(
    family: Family, axis: str, row: Sequence[Setting], ticks: Sequence[float], key: str, order: int, best: bool
) -> Iterator[Line]:
    """The settings of one held weight, and their controls where the settings stand whose temperature they have."""
    _, held, symbol = AXES[axis]
    value = getattr(row[0], held)
    name = f"{symbol} = {compact(value)}"
    places = [
        (min(range(len(ticks)), key=lambda tick: abs(ticks[tick] - getattr(setting, axis))), setting) for setting in row
    ]
    controls = [
        (place, control) for place, setting in places if setting.gamma and (control := family.control_of(setting))
    ]
    role = "base" if held == "gamma" and value == 0 else "see"
    for label, line_role, members in (
        (name, role, places),
        (f"control {BETA}\N{PRIME} = a, {name}", "control", controls),
    ):
        points = [(place, setting, point) for place, setting in members if (point := value_of(setting, key, best=best))]
        if points:
            yield Line(
                label=label,
                role=line_role,
                order=order,
                x=[float(place) for place, _, _ in points],
                y=[point.value for _, _, point in points],
                low=[point.low for _, _, point in points],
                high=[point.high for _, _, point in points],
                points=[setting.name for _, setting, _ in points],
                bars=True,
            )


def value_of(setting: Setting, key: str, *, best: bool) -> Point | None:
    """A setting's figure at the last evaluation that all its seeds have, or at each seed's own best one.

    The interval is the range over seeds; of a single seed it is its own interval over prompts.
    """
    if not best:
        curve = setting.curves.get(key)
        return curve.points[-1] if curve is not None and curve.steps else None
    peaks = [point for curves in setting.by_seed if (point := _peak(curves, key)) is not None]
    if len(peaks) < 2:
        return peaks[0] if peaks else None
    values = [point.value for point in peaks]
    return Point(value=fmean(values), low=min(values), high=max(values))


def _peak(curves: Curves, key: str) -> Point | None:
    points = [point for point in curves[key].points if math.isfinite(point.value)] if key in curves else []
    return max(points, key=lambda point: point.value, default=None)
