"""Which panels a figure has: the functions that make the charts of the page, for the figures that a user names."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from seedpo.errors import ConfigError, RunFolderError
from seedpo.pages.figures import Line, Panel
from seedpo.pages.wording import listing
from seedpo.reports.ablations import ablations
from seedpo.reports.charts import ACCURACIES, curve_panels, frontier_panels, quantities, training_panel
from seedpo.reports.families import Family
from seedpo.reports.names import figure_name, of_kind

PAIRS = "pairs"
"""Name of the x axis that counts pairs of images instead of optimiser steps."""

Row = Mapping[str, str | float]
"""One line of the table beside a figure."""


def curves(families: Sequence[Family], metrics: Sequence[str], x: str) -> list[Panel]:
    """Figures over the steps, or over the pairs seen; by default the proxy, the judge and the diversities.

    Raises:
        ConfigError: if ``x`` is neither ``step`` nor ``pairs``, or a figure was not measured.
    """
    if x not in ("step", PAIRS):
        raise ConfigError(f"--x {x}: curves stand over `step` or `{PAIRS}`; for a figure use `seedpo figure tradeoff`")
    panels = []
    for family in families:
        keys = _keys(families, family, metrics) or _default_keys(family)
        own = curve_panels(family, keys)
        panels += _titled(families, family, own if x == "step" else [_over_pairs(family, panel) for panel in own])
    return panels


def tradeoff(families: Sequence[Family], metrics: Sequence[str], x: str) -> list[Panel]:
    """Figures against the proxy, or against ``x``; by default the judge and the first diversity.

    Raises:
        ConfigError: if a figure was not measured.
    """
    panels = []
    for family in families:
        across = _keys(families, family, [x] if x else []) or [family.proxy]
        keys = _keys(families, family, metrics)
        panels += _titled(families, family, frontier_panels(family, x=across[0], keys=keys or None))
    return panels


def ablation(families: Sequence[Family], metrics: Sequence[str], *, best: bool) -> list[Panel]:
    """Figures against gamma and against beta with the controls; by default the proxy and the judge.

    Raises:
        RunFolderError: if neither gamma nor beta takes three values while the other is held.
        ConfigError: if a figure was not measured.
    """
    panels = []
    for family in families:
        keys = _keys(families, family, metrics) or [key for key in (family.proxy, family.judge) if key]
        for part in ablations(family, keys, bests=(best,)):
            panels += _titled(families, family, [replace(panel, title=part.title) for panel in part.panels])
    if not panels:
        raise RunFolderError(
            "no weight takes three values while the other is held; name the runs of a sweep, for example of "
            "`seedpo sweep spo --vary gamma=0,1,3 --controls`"
        )
    return panels


def accuracy(families: Sequence[Family], metrics: Sequence[str], parts: int | None = None) -> list[Panel]:
    """Accuracy over the steps: on held-out pairs where the runs have them, else on training pairs.

    Args:
        families: whose runs are drawn.
        metrics: the accuracies; the first that was logged if none are named.
        parts: equal parts of the training over which it is averaged; `None` for as many as the page has.

    Raises:
        RunFolderError: if no run logged it.
        ConfigError: if another figure than an accuracy is named.
    """
    unknown = [key for key in metrics if key not in ACCURACIES]
    if unknown:
        raise ConfigError(f"--metric {unknown[0]}: the accuracies are {listing(list(ACCURACIES))}")
    panels = []
    for family in families:
        for key in metrics or ACCURACIES:
            panel = training_panel(family, key, points=parts)
            if panel is not None:
                panels += _titled(families, family, [replace(panel, lines=_over_seeds(panel.lines))])
                if not metrics:
                    break
    if not panels:
        raise RunFolderError(f"these runs logged no {listing(list(metrics or ACCURACIES))}")
    return panels


def _over_seeds(lines: Sequence[Line]) -> list[Line]:
    """One line per label: the mean of its seeds and their range, at the places that all of them have."""
    alike: dict[str, list[Line]] = {}
    for line in lines:
        alike.setdefault(line.label, []).append(line)
    return [members[0] if len(members) == 1 else _mean_line(members) for members in alike.values()]


def _mean_line(lines: Sequence[Line]) -> Line:
    values = [dict(zip(line.x, line.y, strict=True)) for line in lines]
    places = [x for x in lines[0].x if all(x in own for own in values)]
    columns = [[own[x] for own in values] for x in places]
    means = [fmean(column) for column in columns]
    return replace(lines[0], x=places, y=means, low=list(map(min, columns)), high=list(map(max, columns)), steps=())


def rows_of(panels: Sequence[Panel]) -> Iterator[Row]:
    """Every point that is drawn: panel, line, place, value and the ends of its interval."""
    for panel in panels:
        for line in panel.lines:
            for index, (x, y) in enumerate(zip(line.x, line.y, strict=True)):
                yield {
                    "panel": panel.title,
                    "line": line.label,
                    "x_label": panel.x_label,
                    "x": _place(panel, x),
                    "y_label": panel.y_label,
                    "y": y,
                    "low": _end(line.low, index),
                    "high": _end(line.high, index),
                    "step": line.steps[index] if index < len(line.steps) else "",
                }


def _end(ends: Sequence[float], index: int) -> str | float:
    return ends[index] if index < len(ends) and math.isfinite(ends[index]) else ""


def _place(panel: Panel, x: float) -> str | float:
    """The value at a place of the x axis; on an axis of names that of the nearest tick."""
    return min(panel.x_ticks, key=lambda tick: abs(tick[0] - x))[1] if panel.x_ticks else x


def _keys(families: Sequence[Family], family: Family, metrics: Sequence[str]) -> list[str]:
    """The measured keys among those that are named, of which at least one family must have each."""
    measured = {key for one in families for key in one.figures}
    named = [_full_name(key, measured) for key in metrics]
    for metric, key in zip(metrics, named, strict=True):
        if key not in measured:
            raise ConfigError(f"{metric} was not measured; these runs have {listing(sorted(measured)) or 'nothing'}")
    return [key for key in named if key in family.figures]


def _full_name(key: str, measured: set[str]) -> str:
    return key if key in measured else f"reward/{key}"


def _default_keys(family: Family) -> list[str]:
    keys = dict.fromkeys((family.proxy, family.judge, *of_kind("diversity", family.figures)))
    return [key for key in keys if key in quantities(family)]


def _titled(families: Sequence[Family], family: Family, panels: Sequence[Panel]) -> list[Panel]:
    """The panels with what sets their family apart in the title, where there are several: the method, or the proxy."""
    if len(families) == 1:
        return list(panels)
    proxies = {one.proxy for one in families}
    apart = figure_name(family.proxy) if len(proxies) == len(families) else family.title
    return [replace(panel, title=f"{panel.title}, {apart}") for panel in panels]


def _over_pairs(family: Family, panel: Panel) -> Panel:
    """The panel with pairs seen in place of steps, by the training log of each setting's first run."""
    seen = {setting.legend: _pairs_at(setting.runs[0].train) for setting in family.settings if setting.runs}

    def moved(line: Line) -> Line:
        pairs = seen[line.label]
        return replace(line, x=[pairs.get(int(step), math.nan) for step in line.x])

    return replace(panel, x_label="pairs seen", lines=[moved(line) for line in panel.lines])


def _pairs_at(train: Sequence[Mapping[str, float]]) -> dict[int, float]:
    return {0: 0.0} | {int(record["step"]): record["pairs_seen"] for record in train if "pairs_seen" in record}
