"""Frontiers as charts: what is wanted against the proxy, free baselines in grey, the best early stop in a ring."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from seedpo.pages.figures import Line, Panel, style
from seedpo.reports.frontier.courses import figure_word
from seedpo.reports.frontier.results import Free, Results, Trained
from seedpo.reports.frontier.series import Frontier, drawn

MOST_DETAILED = 3
"""With more settings than this, bands and evaluations would hide each other: frontiers and best stops are drawn."""

STEPS = 4
"""Steps of a setting that are written beside its points, about."""

FREE_ORDER = {"strength": 1, "mixing": 2, "best of n": 3}
"""Dash patterns of the free baselines by what is varied."""


def panels(results: Results) -> dict[str, Panel]:
    """One chart for each held-out figure and each diversity, by its key; those without a point are left out."""
    made = {}
    for key in results.figures.wanted:
        lines = [line for one in results.free for line in _free_lines(one, key)]
        detailed = len(results.trained) <= MOST_DETAILED
        for index, one in enumerate(results.trained):
            lines += _trained_lines(one, key, index, detailed=detailed, ringed=key in results.figures.held_out)
        if any(line.x for line in lines):
            proxy, value = figure_word(results.figures.proxy), figure_word(key)
            title = f"{value} against {proxy}"
            made[key] = panel(title, f"{proxy} (proxy)", value, _listed_once(lines))
    return made


def panel(title: str, x_label: str, y_label: str, lines: Sequence[Line]) -> Panel:
    """A large chart of one figure against the proxy."""
    return Panel(
        title=title,
        x_label=x_label,
        y_label=y_label,
        lines=lines,
        by_step=False,
        width=560.0,
        height=380.0,
    )


def frontier_line(line: Frontier, *, label: str, role: str, order: int = 0, band: bool = True) -> Line:
    """A frontier as a curve, with its band if it is known."""
    known = band and any(math.isfinite(value) for value in line.low)
    low, high = (line.low, line.high) if known else ((), ())
    return Line(label=label, role=role, order=order, x=line.proxy, y=line.mean, low=low, high=high)


def _trained_lines(one: Trained, key: str, index: int, *, detailed: bool, ringed: bool) -> list[Line]:
    """The frontier of a setting, and its evaluations, mean over the seeds, as points on a thin line.

    Args:
        one: the setting.
        key: figure.
        index: number of the setting.
        detailed: whether band and evaluations are drawn; else the best evaluation is.
        ringed: whether the best evaluation stands in a ring.
    """
    role, order = style(index)
    label = one.series.label
    lines = []
    front = drawn([one.series], key)
    if front is not None and front.proxy[-1] > front.proxy[0]:
        lines.append(frontier_line(front, label=label, role=role, order=order, band=detailed))
    across, up = one.curves.get(one.series.proxy), one.curves.get(key)
    steps = [step for step in up.steps if step in across.steps] if across and up else []
    if not (across and up and steps):
        return lines
    best = max(steps, key=lambda step: up[step].value)
    shown = steps if detailed or not lines else [best] if ringed else []
    stride = max(1, round((len(shown) - 1) / STEPS))
    named = {*range(len(shown) - 1, 0, -stride), *([shown.index(best)] if shown else [])}
    path = Line(
        label=label,
        role=role,
        order=order,
        x=[across[step].value for step in shown],
        y=[up[step].value for step in shown],
        steps=shown,
        named=sorted(named) if detailed else (),
        ringed=[shown.index(best)] if ringed and shown else (),
        faint=bool(lines),
        listed=not lines,
    )
    return [*lines, path] if shown else lines


def _free_lines(one: Free, key: str) -> list[Line]:
    """The points of a free baseline, mean over the seeds."""
    across, up = one.series.mean.get(one.series.proxy), one.series.mean.get(key)
    steps = [step for step in up.steps if step in across.steps] if across and up else []
    if not (across and up and steps):
        return []
    line = Line(
        label=f"free: {one.kind}",
        role="free",
        order=FREE_ORDER.get(one.kind, 0),
        x=[across[step].value for step in steps],
        y=[up[step].value for step in steps],
        points=[f"{one.series.label}, {one.names[step]}" for step in steps],
    )
    return [line]


def _listed_once(lines: Sequence[Line]) -> list[Line]:
    """The lines, of which each kind of free baseline stands in the legend once."""
    seen: set[str] = set()
    made = []
    for line in lines:
        again = line.role == "free" and line.label in seen
        seen.add(line.label)
        made.append(replace(line, listed=False) if again else line)
    return made
