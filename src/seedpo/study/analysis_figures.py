"""Intervals as inline SVG: geometry here, marks in the template, colours in the style sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from seedpo.pages.figures import Axis, tick_label, ticks
from seedpo.study.analysis import QuestionResult
from seedpo.study.analysis_words import percent, percents

WIDTH, ROW, TOP, BOTTOM, SIDE = 340.0, 40.0, 6.0, 34.0, 12.0
"""Sizes in SVG units; each row has its label above its interval, so that the chart can be read on a phone."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One interval.

    Attributes:
        label: above it.
        value: of the point.
        low, high: ends of the interval, or none.
        inner: ends of a second, thicker one, or none.
        tone: ``good`` or ``open``.
        tip: for tooltips and screen readers.
    """

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    inner: tuple[float, float] | None = None
    tone: str = "open"
    tip: str = ""


def rate_rows(result: QuestionResult) -> list[Row]:
    """Win rates of a question."""
    return [
        Row(
            label=f"{one.left} against {one.right}",
            value=one.rate,
            low=one.interval[0],
            high=one.interval[1],
            inner=one.wilson,
            tone="open" if one.verdict == "open" else "good",
            tip=f"{one.left} against {one.right}: {percent(one.rate)}, interval {percents(one.interval)}",
        )
        for one in result.comparisons
    ]


def strength_rows(result: QuestionResult) -> list[Row]:
    """Strengths of a question."""
    return [
        Row(
            label=one.model,
            value=one.value,
            low=one.interval[0] if one.interval else None,
            high=one.interval[1] if one.interval else None,
            tip=f"{one.model}: {one.value:.2f}"
            + (f", interval {one.interval[0]:.2f} to {one.interval[1]:.2f}" if one.interval else ""),
        )
        for one in result.strengths.models
    ]


def chart(rows: Sequence[Row], *, title: str, x_label: str, shares: bool, reference: float) -> dict[str, Any]:
    """Everything that the template draws, in SVG units.

    Args:
        rows: from top to bottom.
        title: for screen readers.
        x_label: of the axis.
        shares: whether values are shares, shown from 0% to 100%.
        reference: where the dashed line stands.
    """
    ends = [part for row in rows for part in (row.value, row.low, row.high) if part is not None]
    low, high = (0.0, 1.0) if shares else _padded(min([*ends, reference]), max([*ends, reference]))
    x = Axis(low=low, high=high, start=SIDE, end=WIDTH - SIDE)
    bottom = TOP + ROW * len(rows)
    places = [0.0, 0.25, 0.5, 0.75, 1.0] if shares else ticks(low, high, 5)
    spacing = places[1] - places[0] if len(places) > 1 else 1.0
    return {
        "title": title,
        "x_label": x_label,
        "width": WIDTH,
        "height": bottom + BOTTOM,
        "top": TOP,
        "bottom": bottom,
        "reference": x(reference),
        "ticks": [(x(value), f"{value:.0%}" if shares else tick_label(value, spacing)) for value in places],
        "rows": [_placed(row, x, TOP + ROW * index) for index, row in enumerate(rows)],
        "words": f"{title}. {'; '.join(row.tip for row in rows)}.",
    }


def _placed(row: Row, x: Axis, top: float) -> dict[str, Any]:
    return {
        "label": row.label,
        "tip": row.tip,
        "tone": row.tone,
        "label_y": top + 14,
        "y": top + 27,
        "x": x(row.value),
        "ends": (x(row.low), x(row.high)) if row.low is not None and row.high is not None else None,
        "inner": (x(row.inner[0]), x(row.inner[1])) if row.inner else None,
    }


def _padded(low: float, high: float) -> tuple[float, float]:
    air = 0.05 * (high - low) or 0.5
    return low - air, high + air
