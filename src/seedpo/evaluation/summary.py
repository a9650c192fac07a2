"""The summary of an evaluation: each figure with its interval, and pairs of targets compared on the same latents."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from seedpo.core.stats.bootstrap import Interval, mean_interval, paired_difference, prompt_means, tie_width, win_rate
from seedpo.data.text import csv_text
from seedpo.evaluation.folder import FORMAT, EvaluationFolder
from seedpo.evaluation.tables import FIX, Place, Table, Values
from seedpo.files import write_text, writing
from seedpo.pages.tables import markdown_table, text_table


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What is known of a reward or metric besides its values.

    Attributes:
        name: as users write it.
        kind: ``reward``, ``metric`` or ``set metric``.
        unit: of its values.
        direction: which values are better.
        finish: applied to means over prompts; `None` for nothing.
        tie_width: differences of rewards of at most this size are ties; `None`: a tenth of the reward's spread over
            the latents of one prompt, under the model that is compared against.
    """

    name: str
    kind: str
    unit: str = ""
    direction: str = "higher"
    finish: Callable[[float], float] | None = None
    tie_width: float | None = None


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A mean over prompts with its 95 % interval."""

    target: str
    step: int | None
    figure: str
    kind: str
    mean: float
    low: float
    high: float
    count: int
    unit: str
    direction: str


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two targets compared: ``target`` minus ``other``; win, tie, loss and rate are known for rewards only."""

    target: str
    step: int | None
    other: str
    other_step: int | None
    figure: str
    kind: str
    count: int
    difference: float
    difference_low: float
    difference_high: float
    win: float | None = None
    tie: float | None = None
    loss: float | None = None
    rate: float | None = None
    low: float | None = None
    high: float | None = None
    tie_width: float | None = None


@dataclass(frozen=True, kw_only=True)
class Summary:
    """All results of an evaluation.

    Attributes:
        settings: of the evaluation.
        targets: labels.
        figures: of each target and step.
        pairs: of each two targets, or of each step and the first.
    """

    settings: Mapping[str, Any]
    targets: Sequence[str]
    figures: Sequence[Figure]
    pairs: Sequence[Pair]


def summarise(
    tables: Sequence[tuple[Table, Sequence[Measured]]],
    *,
    settings: Mapping[str, Any],
    seed: int,
    set_figures: Sequence[Figure] = (),
) -> Summary:
    """Means with intervals, and pairs of targets: with training steps each step against the first of its target.

    Args:
        tables: scores and metrics, each with what is measured in it.
        settings: of the evaluation.
        seed: of the resampling.
        set_figures: figures of all images together, which are added.
    """
    figures: list[Figure] = []
    pairs: list[Pair] = []
    targets: dict[str, None] = {}
    for table, measured in tables:
        places = table.ordered()
        targets |= dict.fromkeys(target for target, _ in places)
        for what in measured:
            column = table.values.get(what.name, {})
            known = {place: column[place] for place in places if place in column and not np.isnan(column[place]).all()}
            for place, values in known.items():
                interval = mean_interval(prompt_means(values), seed=seed, finish=what.finish)
                figures.append(figure_of(place, what, interval))
            pairs += [
                _pair(place, other, what, known[place], known[other], seed=seed)
                for place, other in _compared(list(known))
            ]
    return Summary(settings=settings, targets=list(targets), figures=[*figures, *set_figures], pairs=pairs)


def _compared(places: Sequence[Place]) -> list[tuple[Place, Place]]:
    """Each later target with each earlier one; each step with the first step of its target."""
    whole = [place for place in places if place[1] is None]
    steps = [place for place in places if place[1] is not None]
    first: dict[str, Place] = {}
    for place in steps:
        first.setdefault(place[0], place)
    over_training = [(place, first[place[0]]) for place in steps if place != first[place[0]]]
    return [(later, earlier) for earlier, later in combinations(whole, 2)] + over_training


def figure_of(place: Place, what: Measured, interval: Interval) -> Figure:
    """The figure of a target, from its interval."""
    return Figure(
        target=place[0],
        step=place[1],
        figure=what.name,
        kind=what.kind,
        mean=interval.mean,
        low=interval.low,
        high=interval.high,
        count=interval.count,
        unit=what.unit,
        direction=what.direction,
    )


def _pair(place: Place, other: Place, what: Measured, a: Values, b: Values, *, seed: int) -> Pair:
    # Only images that both have: otherwise a mean would compare different latents.
    both = ~np.isnan(a) & ~np.isnan(b)
    a, b = np.where(both, a, math.nan), np.where(both, b, math.nan)
    difference = paired_difference(prompt_means(a), prompt_means(b), seed=seed, finish=what.finish)
    wins: dict[str, Any] = {}
    if what.kind == "reward":
        width = tie_width(b) if what.tie_width is None else what.tie_width
        rate = win_rate(a, b, tie_width=width, seed=seed)
        wins = asdict(rate) | {"rate": rate.rate, "tie_width": width}
        del wins["count"]
    return Pair(
        target=place[0],
        step=place[1],
        other=other[0],
        other_step=other[1],
        figure=what.name,
        kind=what.kind,
        count=difference.count,
        difference=difference.mean,
        difference_low=difference.low,
        difference_high=difference.high,
        **wins,
    )


def write_summary(folder: EvaluationFolder, summary: Summary) -> None:
    """Writes ``summary.json``, ``summary.csv`` and ``summary.md``."""
    content = {
        "format": FORMAT,
        "settings": dict(summary.settings),
        "targets": list(summary.targets),
        "figures": [without_nan(asdict(figure)) for figure in summary.figures],
        "pairs": [without_nan(asdict(pair)) for pair in summary.pairs],
    }
    with writing("the summary", folder.path, fix=FIX):
        write_text(folder.path / "summary.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        write_text(folder.path / "summary.csv", _csv(summary))
        write_text(folder.path / "summary.md", markdown(summary))


def without_nan(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row for JSON, which has no NaN and no infinity: they become null."""
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}


def _csv(summary: Summary) -> str:
    """Figures, then pairs: a row with an ``other`` is a pair, and its mean is a difference."""
    rows = [asdict(figure) for figure in summary.figures]
    for pair in map(asdict, summary.pairs):
        rate = {"rate_low": pair.pop("low"), "rate_high": pair.pop("high")}
        renamed = {"mean": "difference", "low": "difference_low", "high": "difference_high"}
        rows.append(pair | rate | {name: pair[key] for name, key in renamed.items()})
    columns = ["target", "step", "other", "other_step", "figure", "kind", "mean", "low", "high", "count", "unit"]
    columns += ["direction", "win", "tie", "loss", "rate", "rate_low", "rate_high", "tie_width"]
    return csv_text([columns, *([row.get(column) for column in columns] for row in rows)])


FIGURE_TITLES = ("target", "figure", "mean", "95 % interval", "prompts", "unit", "better")
PAIR_TITLES = (
    *("target", "against", "figure", "difference", "95 % interval"),
    *("win", "tie", "loss", "win + tie/2", "95 %"),
)


def figure_rows(summary: Summary) -> list[tuple[str, ...]]:
    """The figures as text, figure by figure."""
    return [
        (
            _name(row.target, row.step),
            row.figure,
            _number(row.mean),
            _range(row.low, row.high, _number),
            str(row.count),
            row.unit,
            row.direction,
        )
        for row in summary.figures
    ]


def pair_rows(summary: Summary) -> list[tuple[str, ...]]:
    """The pairs as text."""
    return [
        (
            _name(row.target, row.step),
            _name(row.other, row.other_step),
            row.figure,
            _number(row.difference),
            _range(row.difference_low, row.difference_high, _number),
            *(_share(value) for value in (row.win, row.tie, row.loss, row.rate)),
            _range(row.low, row.high, _share),
        )
        for row in summary.pairs
    ]


def _name(target: str, step: int | None) -> str:
    return target if step is None else f"{target} step {step}"


def _number(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.4g}"


def _share(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.1%}"


def _range(low: float | None, high: float | None, shown: Callable[[float | None], str]) -> str:
    return f"{shown(low)} to {shown(high)}" if shown(low) and shown(high) else ""


def text(summary: Summary) -> str:
    """Both tables for a terminal."""
    unit = FIGURE_TITLES.index("unit")  # too long for most terminals
    rows = [(*row[:unit], *row[unit + 1 :]) for row in (FIGURE_TITLES, *figure_rows(summary))]
    parts = [text_table(rows, rule=True)]
    if summary.pairs:
        parts.append(text_table([PAIR_TITLES, *pair_rows(summary)], rule=True))
    return "\n\n".join(parts)


def markdown(summary: Summary) -> str:
    """Both tables as Markdown."""
    parts = [markdown_table(FIGURE_TITLES, figure_rows(summary))]
    if summary.pairs:
        parts.append(markdown_table(PAIR_TITLES, pair_rows(summary)))
    note = "Intervals are 95 % percentile bootstrap intervals over prompts. Pairs share prompts and initial latents."
    return "\n\n".join([*parts, note]) + "\n"
