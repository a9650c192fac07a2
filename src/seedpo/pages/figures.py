"""Line charts as inline SVG: the geometry in Python, the marks in a template, the colours in the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from seedpo.pages.wording import MINUS

MARKERS = {
    "base": "M-3.4 0a3.4 3.4 0 1 0 6.8 0a3.4 3.4 0 1 0 -6.8 0Z",
    "see": "M0 -4.4L4.4 0L0 4.4L-4.4 0Z",
    "control": "M0 -4.2L4 3.2L-4 3.2Z",
    "term": "M0 4.2L4 -3.2L-4 -3.2Z",
    "free": "M-2.6 -2.6H2.6V2.6H-2.6Z",
}
"""One marker per role, to tell them apart in grey prints: disc, diamond, triangles; a small square for the rest."""

STYLES = ("base", "see", "control")
"""Styles of curves that have no role, in turn."""

ASIDE = {
    "base": (7, -5, "start"),
    "see": (-7, -5, "end"),
    "control": (6, 13, "start"),
    "term": (-7, 13, "end"),
    "free": (6, 13, "start"),
}
"""Where a step is written beside a marker of each role, to keep the numbers of close curves apart."""

LEFT, RIGHT, TOP, BOTTOM = 40.0, 14.0, 12.0, 40.0
"""Margins around the plot in SVG units; the left one grows with the labels of the y axis."""

LETTER = 6.4
"""Width of a digit in SVG units."""

MOST_BANDS = 3
"""With more bands than this they would hide each other: thin bars at the points take their place."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One curve.

    Attributes:
        label: name in tooltips.
        role: chooses colour and marker.
        order: chooses the dash pattern among the curves of a role.
        x, y: its points.
        low, high: ends of its band; empty without one.
        steps: evaluation step of each point; without them no markers are drawn.
        named: indices of the points whose step is written beside the marker.
        points: names of the points for tooltips, where they are not steps; markers are drawn too.
        bars: whether ``low`` and ``high`` are drawn as a bar at each point instead of a band.
        joined: whether the points are joined by a line.
        ringed: indices of the points that stand in a ring.
        faint: whether the line that joins them is thin.
        listed: whether the legend of a chart that is a file names it.
    """

    label: str
    role: str
    x: Sequence[float]
    y: Sequence[float]
    order: int = 0
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    steps: Sequence[int] = ()
    named: Sequence[int] = ()
    points: Sequence[str] = ()
    bars: bool = False
    joined: bool = True
    ringed: Sequence[int] = ()
    faint: bool = False
    listed: bool = True


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One chart.

    Attributes:
        title: heading above it.
        note: one line below it.
        x_label, y_label: axes.
        lines: curves.
        marks: horizontal reference lines and their labels.
        by_step: whether the x axis is the step, into which the page draws the chosen one.
        x_ticks: places and labels on the x axis, where they are no round numbers.
        width, height: size in SVG units.
    """

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    note: str = ""
    marks: Sequence[tuple[float, str]] = ()
    by_step: bool = True
    x_ticks: Sequence[tuple[float, str]] = ()
    width: float = 340.0
    height: float = 220.0


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A linear map from values to SVG units."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Position of a value."""
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 2)


def style(index: int) -> tuple[str, int]:
    """Style and dash pattern of the curve with a number, for curves that have no role."""
    return STYLES[index % len(STYLES)], index // len(STYLES)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers within [low, high], at most ``most`` + 1 of them."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def tick_label(value: float, spacing: float) -> str:
    """A tick in as many decimals as its spacing needs."""
    if spacing >= 10000:
        return f"{value / 1000:g}k".replace("-", MINUS)
    decimals = next((digits for digits in range(7) if abs(round(spacing, digits) - spacing) < spacing * 1e-6), 7)
    return f"{value if abs(value) > spacing * 1e-6 else 0.0:.{decimals}f}".replace("-", MINUS)


def value_range(panel: Panel) -> tuple[float, float]:
    """Range of the y axis: all curves, bands and reference lines with some air."""
    values = [value for line in panel.lines for part in (line.y, line.low, line.high) for value in part]
    values = [value for value in (*values, *(value for value, _ in panel.marks)) if math.isfinite(value)]
    return _padded(min(values, default=0.0), max(values, default=1.0))


def _padded(low: float, high: float) -> tuple[float, float]:
    air = 0.06 * (high - low) or 0.1 * abs(high) or 0.5
    return low - air, high + air


def geometry(panel: Panel) -> dict[str, Any]:
    """Everything that the SVG template draws, in SVG units."""
    across = [value for line in panel.lines for value in line.x if math.isfinite(value)]
    across += [value for value, _ in panel.x_ticks]
    left, right = min(across, default=0.0), max(across, default=1.0)
    if panel.by_step:
        left, right = min(left, 0.0), right if right > min(left, 0.0) else left + 1.0
    else:
        left, right = _padded(left, right)
    bottom, top = value_range(panel)
    y = Axis(low=bottom, high=top, start=panel.height - BOTTOM, end=TOP)
    y_ticks = _ticks(y, most=4)
    letters = max((len(tick["label"]) for tick in y_ticks), default=0)
    margin = max(LEFT, 12.0 + LETTER * letters + (0.0 if panel.by_step else 14.0))
    x = Axis(low=left, high=right, start=margin, end=panel.width - RIGHT)
    crowded = sum(len(line.low) > 1 for line in panel.lines) > MOST_BANDS
    middle = (len(panel.lines) - 1) / 2
    return {
        "panel": panel,
        "plot": {"left": margin, "right": x.end, "top": TOP, "bottom": y.start},
        "x_range": (left, right),
        "x_ticks": [{"at": x(value), "label": label} for value, label in panel.x_ticks]
        or _ticks(x, most=max(3, int(panel.width / 70))),
        "y_ticks": y_ticks,
        "marks": [{"y": y(value), "label": label} for value, label in panel.marks],
        "lines": [
            _line(replace(line, bars=line.bars or crowded), x, y, panel, shift=2.0 * (index - middle) * crowded)
            for index, line in enumerate(panel.lines)
        ],
    }


def _ticks(axis: Axis, most: int) -> list[dict[str, Any]]:
    values = ticks(axis.low, axis.high, most)
    spacing = values[1] - values[0] if len(values) > 1 else abs(values[0]) or 1.0 if values else 1.0
    return [{"at": axis(value), "label": tick_label(value, spacing)} for value in values]


def _line(line: Line, x: Axis, y: Axis, panel: Panel, *, shift: float = 0.0) -> dict[str, Any]:
    """What is drawn of a curve; ``shift`` moves its bars sideways, so that they stand beside those of others."""
    points = [(x(a), y(b)) for a, b in zip(line.x, line.y, strict=True)]
    ends = [
        (x(a) + (0.0 if line.points else shift), y(low), y(high))
        for a, low, high in zip(line.x, line.low, line.high, strict=False)
        if math.isfinite(low) and math.isfinite(high)
    ]
    band = [(a, high) for a, _, high in ends] + [(a, low) for a, low, _ in reversed(ends)]
    called: Sequence[str] = line.points or [f"step {step}" for step in line.steps]
    markers = [
        {
            "x": a,
            "y": b,
            "step": line.steps[index] if line.steps else None,
            "tip": f"{line.label}, {name}: {_values(panel, line.x[index], line.y[index])}",
            "name": str(line.steps[index]) if index in line.named else "",
            "ringed": index in line.ringed,
        }
        for index, ((a, b), name) in enumerate(zip(points, called, strict=False))
    ]
    bars = "".join(f"M{a:g} {low:g}V{high:g}M{a - 3:g} {low:g}h6M{a - 3:g} {high:g}h6" for a, low, high in ends)
    return {
        "style": f"{line.role} o{line.order % 4}",
        "stroke": _path(points) if line.joined else "",
        "faint": line.faint,
        "band": f"{_path(band)}Z" if len(ends) > 1 and not line.bars else "",
        "bars": bars if line.bars else "",
        "marker": MARKERS[line.role],
        "aside": ASIDE[line.role],
        "markers": markers,
    }


def _values(panel: Panel, x: float, y: float) -> str:
    own = f"{panel.y_label} {y:.4g}"
    return own if panel.by_step or panel.x_ticks else f"{panel.x_label} {x:.4g}, {own}"


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "".join(f"{'L' if index else 'M'}{a:g} {b:g}" for index, (a, b) in enumerate(points))


def description(panel: Panel) -> str:
    """The chart in words, for screen readers."""
    parts = [f"{line.label} from {line.y[0]:.3g} to {line.y[-1]:.3g}" for line in panel.lines if len(line.y)]
    return f"{panel.title}, {panel.y_label} against {panel.x_label}. {'; '.join(parts)}."
