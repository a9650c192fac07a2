"""The tables of a page of frontiers, and its sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from seedpo.core.verdicts import Difference, Outcome
from seedpo.pages.figures import style
from seedpo.pages.tables import DASH, Badge, Cell, Table
from seedpo.pages.wording import count, interval, listing, number
from seedpo.reports.curves import Curves, Point
from seedpo.reports.findings import DIFFERENCE_TONES
from seedpo.reports.frontier.comparisons import Comparison, evidence
from seedpo.reports.frontier.courses import figure_word
from seedpo.reports.frontier.results import FREE, Results, Stop, Trained
from seedpo.reports.frontier.series import Series, drawn
from seedpo.reports.verdict_cells import fall_cell, mean_text, outcome_badge, rise_cell, value_cell

MOST_NAMED = 3
"""Of more settings with one verdict the headline gives the number."""

ROWS = 5
"""Proxies at which a frontier is written."""

MEANINGS: Mapping[Outcome, str] = {
    Outcome.LEARNING: "a held-out figure ends clearly above its start, and none has clearly fallen",
    Outcome.HACKING: "a held-out figure fell clearly from its peak while the proxy rose or held its level",
    Outcome.COLLAPSE: "a held-out figure and the proxy fell clearly: the run is unstable",
    Outcome.HEALTHY: "no held-out figure falls, and none rises clearly: nothing is shown to be gained",
    Outcome.UNCLEAR: "too few evaluations, a fall within its interval, or a proxy that never changes: nothing is shown",
    Outcome.NOT_MEASURED: "no held-out figure was measured twice beside the proxy",
}
"""What each verdict says."""


def headline(results: Results) -> str:
    """The verdicts in one sentence."""
    by_outcome: dict[Outcome, list[str]] = {}
    for one in results.trained:
        by_outcome.setdefault(one.outcome, []).append(one.series.label)
    named = {
        outcome: listing(labels) if len(labels) <= MOST_NAMED else count(len(labels), "setting")
        for outcome, labels in by_outcome.items()
    }
    return "; ".join(f"{labels}: {outcome}" for outcome, labels in named.items()) + "."


def verdict_table(results: Results) -> Table:
    """One row per setting: its verdict and the figures that it rests on."""
    header = ("setting", "verdict", "by", "first", "peak", "last", "fall", "rise", "proxy, first to peak to last")
    return Table.of(header, [_verdict_row(one, index) for index, one in enumerate(results.trained)])


def _verdict_row(one: Trained, index: int) -> Sequence[Cell | str]:
    name = Cell(text=one.series.label, role=style(index)[0])
    verdict = one.verdict
    badge = outcome_badge(one.outcome, list(one.verdicts.values()))
    if verdict.outcome is Outcome.NOT_MEASURED:
        return (name, Cell(badge=badge), *[DASH] * 7)
    own = [row for row in one.verdicts.values() if row.judge == verdict.judge]
    return (
        name,
        Cell(badge=badge),
        figure_word(verdict.judge),
        *(value_cell(own, when) for when in ("first", "peak", "last")),
        fall_cell(own),
        rise_cell(own),
        " to ".join(mean_text(own, f"proxy_{when}") for when in ("first", "peak", "last")),
    )


def stop_table(results: Results) -> Table:
    """Where to stop each setting: the best evaluation by each held-out figure, and how the training went on."""
    header = (
        "setting",
        "held-out figure",
        "stop at",
        "its value there",
        "proxy there",
        "at the end",
        "proxy at the end",
    )
    return Table.of(header, map(_stop_row, results.stops))


def _stop_row(stop: Stop) -> Sequence[Cell | str]:
    at_end = stop.step == stop.last_step
    return (
        stop.label,
        figure_word(stop.key),
        f"step {stop.step}{', the last' if at_end else ''}",
        point_text(stop.value),
        point_text(stop.proxy),
        DASH if at_end else point_text(stop.last_value),
        DASH if at_end else point_text(stop.last_proxy),
    )


def point_text(point: Point) -> str:
    """A value with its interval."""
    return " ".join(part for part in (number(point.value), interval(point.low, point.high)) if part)


def comparison_table(results: Results) -> Table:
    """One row per comparison at equal proxy."""
    header = ("setting", "against", "figure", "at equal proxy", "evidence")
    return Table.of(header, map(_comparison_row, results.comparisons))


def _comparison_row(row: Comparison) -> Sequence[Cell | str]:
    return (
        row.left,
        row.right,
        figure_word(row.key),
        Cell(badge=Badge(text=row.verdict, tone=DIFFERENCE_TONES.get(row.verdict, "open"))),
        evidence(row),
    )


def answers(results: Results) -> list[str]:
    """What the comparisons show, a sentence each; nothing of those that show nothing."""
    words = {Difference.HIGHER: "more", Difference.LOWER: "less"}
    groups: dict[tuple[str, str, str], list[str]] = {}
    for row in results.comparisons:
        if row.verdict in words:
            rival = f"all {FREE}" if row.right == FREE else row.right
            groups.setdefault((row.left, words[row.verdict], rival), []).append(figure_word(row.key))
    return [
        f"{left} gives {amount} {listing(figures)} than {rival} at equal proxy."
        for (left, amount, rival), figures in groups.items()
    ]


def frontier_table(pools: Mapping[str, Sequence[Series]], names: Mapping[str, str]) -> Table:
    """Frontiers of pools at proxies that all seeds of all of them reach; without rows if there are none.

    Args:
        pools: settings by the name of their pool.
        names: figures by key, in words.
    """
    header = ("best value, mean [band]", "proxy at least", *pools)
    return Table.of(header, _frontier_rows(pools, names))


def _frontier_rows(pools: Mapping[str, Sequence[Series]], names: Mapping[str, str]) -> Iterator[Sequence[str]]:
    for key, name in names.items():
        lines = [line for members in pools.values() if (line := drawn(members, key)) is not None]
        low = max((line.proxy[0] for line in lines), default=math.inf)
        high = min((line.proxy[-1] for line in lines), default=-math.inf)
        if len(lines) < len(pools) or high <= low:
            continue
        levels = [low + (high - low) * row / (ROWS - 1) for row in range(ROWS)]
        there = [line for members in pools.values() if (line := drawn(members, key, at=levels)) is not None]
        for index, level in enumerate(levels):
            values = [f"{number(line.mean[index])} {interval(line.low[index], line.high[index])}" for line in there]
            yield (name, f"{level:.4g}", *values)


def point_table(results: Results) -> Table:
    """Every evaluation of every setting and every point of the free baselines, mean over the seeds."""
    keys = [results.figures.proxy, *results.figures.wanted]
    rows = [
        (one.series.label, f"step {step}", *_cells(one.curves, keys, step))
        for one in results.trained
        for step in _steps_of(one.curves, results.figures.proxy)
    ]
    rows += [
        (one.series.label, one.names[step], *_cells(one.series.mean, keys, step))
        for one in results.free
        for step in _steps_of(one.series.mean, results.figures.proxy)
    ]
    return Table.of(("setting", "at", *map(figure_word, keys)), rows)


def _steps_of(curves: Curves, key: str) -> tuple[int, ...]:
    """Where a figure was measured; nowhere if the seeds share no step."""
    return curves[key].steps if key in curves else ()


def _cells(curves: Curves, keys: Sequence[str], step: int) -> list[str]:
    return [point_text(curves[key][step]) if key in curves and step in curves[key].steps else DASH for key in keys]
