"""What an evaluation says: each figure with its interval, and each pair of targets compared on the same latents."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seedpo.core.stats.bootstrap import Interval, mean_interval, paired_difference, win_rate
from seedpo.evaluation.folder import FORMAT, MEND, EvaluationFolder
from seedpo.evaluation.measuring import scores_by_prompt
from seedpo.evaluation.tables import Table
from seedpo.files import write_text, writing

Place = tuple[str, int | None]
"""A target and a training step; no step: the target as it is."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What is known of a reward or metric besides its values.

    Attributes:
        name: as users write it.
        kind: ``reward``, ``metric`` or ``set metric``.
        unit: of its values.
        direction: which values are better.
        finish: applied to means over prompts; `None` for nothing.
        tie_width: differences of rewards of at most this size are ties.
    """

    name: str
    kind: str
    unit: str = ""
    direction: str = "higher"
    finish: Callable[[float], float] | None = None
    tie_width: float = 0.0


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
    """Two targets compared: ``target`` less ``other``; win, tie, loss and rate are known for rewards only."""

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
    """All that an evaluation says.

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
    prompts: int,
    images: int,
    seed: int,
    more: Sequence[Figure] = (),
) -> Summary:
    """Means with intervals, and pairs of targets: with training steps each step against the first of its target.

    Args:
        tables: scores and metrics, each with what is measured in it.
        settings: of the evaluation.
        prompts: how many there are.
        images: of each prompt.
        seed: of the resampling.
        more: figures that are no means over prompts.
    """
    figures: list[Figure] = []
    pairs: list[Pair] = []
    targets: dict[str, None] = {}
    for table, measured in tables:
        places = list(dict.fromkeys(sorted({key[:2] for key in table.items}, key=_by_target(table))))
        targets |= dict.fromkeys(target for target, _ in places)
        for what in measured:
            count = images if what.kind == "reward" else 1
            values = {
                place: scores_by_prompt(table, what.name, *place, prompts=prompts, images=count) for place in places
            }
            known = {place: found for place, found in values.items() if not np.isnan(found).all()}
            figures += [_figure(place, what, found, seed=seed) for place, found in known.items()]
            pairs += [
                _pair(one, other, what, known[one], known[other], seed=seed) for one, other in _compared(list(known))
            ]
    return Summary(settings=settings, targets=list(targets), figures=[*figures, *more], pairs=pairs)


def _by_target(table: Table) -> Callable[[Place], tuple[int, int]]:
    order = {target: row for row, target in enumerate(dict.fromkeys(key[0] for key in table.items))}
    return lambda place: (order[place[0]], -1 if place[1] is None else place[1])


def _compared(places: Sequence[Place]) -> list[tuple[Place, Place]]:
    """Each later target against each earlier one; each step against the first step of its target."""
    plain = [place for place in places if place[1] is None]
    steps = [place for place in places if place[1] is not None]
    first: dict[str, Place] = {}
    for place in steps:
        first.setdefault(place[0], place)
    over_training = [(place, first[place[0]]) for place in steps if place != first[place[0]]]
    return [(later, earlier) for earlier, later in combinations(plain, 2)] + over_training


def prompt_means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means (P,) over the images (P, K) that are known; NaN where none is."""
    known = ~np.isnan(values)
    count = known.sum(1)
    return np.where(count > 0, np.where(known, values, 0.0).sum(1) / np.maximum(count, 1), math.nan)


def _figure(place: Place, what: Measured, values: NDArray[np.float64], *, seed: int) -> Figure:
    interval = mean_interval(prompt_means(values), seed=seed, finish=what.finish)
    return figure_of(place, what, interval)


def figure_of(place: Place, what: Measured, interval: Interval) -> Figure:
    """A figure of an interval."""
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


def _pair(
    one: Place, other: Place, what: Measured, a: NDArray[np.float64], b: NDArray[np.float64], *, seed: int
) -> Pair:
    # Only images that both have: otherwise a mean would compare different latents.
    both = ~np.isnan(a) & ~np.isnan(b)
    a, b = np.where(both, a, math.nan), np.where(both, b, math.nan)
    difference = paired_difference(prompt_means(a), prompt_means(b), seed=seed, finish=what.finish)
    wins: dict[str, Any] = {}
    if what.kind == "reward":
        rate = win_rate(a, b, tie_width=what.tie_width, seed=seed)
        wins = asdict(rate) | {"rate": rate.rate, "tie_width": what.tie_width}
        del wins["count"]
    return Pair(
        target=one[0],
        step=one[1],
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
        "figures": [_plain(asdict(figure)) for figure in summary.figures],
        "pairs": [_plain(asdict(pair)) for pair in summary.pairs],
    }
    with writing("the summary", folder.path, mend=MEND):
        write_text(folder.path / "summary.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        write_text(folder.path / "summary.csv", _csv(summary))
        write_text(folder.path / "summary.md", markdown(summary))


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers that JSON does not have become null."""
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}


def _csv(summary: Summary) -> str:
    """Figures, then pairs: a row with an ``other`` is a pair, and its mean is a difference."""
    rows = [asdict(figure) for figure in summary.figures]
    for pair in map(asdict, summary.pairs):
        rate = {"rate_low": pair.pop("low"), "rate_high": pair.pop("high")}
        named = {"mean": "difference", "low": "difference_low", "high": "difference_high"}
        rows.append(pair | rate | {name: pair[key] for name, key in named.items()})
    columns = ["target", "step", "other", "other_step", "figure", "kind", "mean", "low", "high", "count", "unit"]
    columns += ["direction", "win", "tie", "loss", "rate", "rate_low", "rate_high", "tie_width"]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: "" if value is None else value for key, value in row.items()} for row in rows)
    return text.getvalue()


FIGURE_TITLES = ("target", "figure", "mean", "95 % interval", "prompts", "unit", "better")
PAIR_TITLES = (
    "target",
    "against",
    "figure",
    "difference",
    "95 % interval",
    "win",
    "tie",
    "loss",
    "win + tie/2",
    "95 %",
)


def figure_rows(summary: Summary) -> list[tuple[str, ...]]:
    """The figures as text, figure by figure."""
    return [
        (
            _named(row.target, row.step),
            row.figure,
            _number(row.mean),
            _between(row.low, row.high),
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
            _named(row.target, row.step),
            _named(row.other, row.other_step),
            row.figure,
            _number(row.difference),
            _between(row.difference_low, row.difference_high),
            *(_share(value) for value in (row.win, row.tie, row.loss, row.rate)),
            "" if row.low is None or row.high is None else f"{_share(row.low)} to {_share(row.high)}",
        )
        for row in summary.pairs
    ]


def _named(target: str, step: int | None) -> str:
    return target if step is None else f"{target} step {step}"


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4g}"


def _between(low: float, high: float) -> str:
    return "" if math.isnan(low) else f"{low:.4g} to {high:.4g}"


def _share(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.1%}"


def text(summary: Summary) -> str:
    """Both tables for a terminal."""
    unit = FIGURE_TITLES.index("unit")  # too long for most terminals
    rows = [FIGURE_TITLES, *figure_rows(summary)]
    titles, *rows = [(*row[:unit], *row[unit + 1 :]) for row in rows]
    parts = [_aligned(titles, rows)]
    if summary.pairs:
        parts.append(_aligned(PAIR_TITLES, pair_rows(summary)))
    return "\n\n".join(parts)


def markdown(summary: Summary) -> str:
    """Both tables as Markdown."""
    parts = [_marked(FIGURE_TITLES, figure_rows(summary))]
    if summary.pairs:
        parts.append(_marked(PAIR_TITLES, pair_rows(summary)))
    note = "Intervals are 95 % percentile bootstrap intervals over prompts. Pairs share prompts and initial latents."
    return "\n\n".join([*parts, note]) + "\n"


def _aligned(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(cell) for cell in column) for column in zip(titles, *rows, strict=True)]
    lines = [titles, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _marked(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
