"""Tables and figure of docs/results.md and its appendix from the runs: ``python -m benchmarks.hacking.page``."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchmarks.hacking.analysis import (
    DIVERSITY,
    ENTRIES,
    LEVELS,
    TRUTH,
    Comparison,
    Entry,
    Pool,
    Row,
    chosen,
    entering,
    final_rows,
    outcome,
    pool,
)
from benchmarks.hacking.contenders import CONTENDERS, PHASES
from benchmarks.hacking.results import PUBLISHED, Line, Results
from benchmarks.hacking.worlds import WORLDS
from benchmarks.result_tables import APPENDIX_PAGE, DOCS, RESULTS_PAGE, WORDS, two, with_interval, write_blocks
from seedpo.core.stats.frontiers import first_reached
from seedpo.core.verdicts import Outcome
from seedpo.pages.rendering import COLOURS
from seedpo.pages.tables import DASH, markdown_table
from seedpo.pages.wording import MINUS, compact, listing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WORLDS_HEADER = (
    "world",
    "\N{GREEK SMALL LETTER BETA}",
    "proxy: start, where truth is highest, end",
    "truth: start, highest, end",
    "images right: start, end",
    "pairwise diversity: start, end",
    "runs",
    "of these: hacking, instability, learning, other",
)

RUNS_HEADER = (
    "contender",
    "role",
    "option",
    "proxy at the end",
    "truth at the end",
    "images right",
    "diversity at the end",
    "spread of right images",
    "runs that hack",
)

AGAINST_HEADER = (
    "world",
    "contender",
    "truth above base",
    "it has",
    "nearest control",
    "truth above it",
    "it has",
    "diversity above it",
    "it has",
    "controls that it is not shown above",
    "p",
    "passes",
)

GAINS_HEADER = ("world", "contender", "role", "gain of every option", "enters")


def worlds_table(results: Results) -> str:
    """What becomes of the base method at every beta, in every world: all its runs, of either phase."""
    lines = []
    for world, (name, option) in product(WORLDS, CONTENDERS["base"].options.items()):
        runs = [run for phase in PHASES for run in results.seeds(world, "base", name, phase).values()]
        trails = [[line for line in run["lines"] if "control" not in line] for run in runs]
        if not trails:
            continue
        peaks = [max(trail, key=lambda line: float(line[TRUTH])) for trail in trails]
        places = {"start": [trail[0] for trail in trails], "peak": peaks, "end": [trail[-1] for trail in trails]}
        outcomes = [outcome(run) for run in runs]
        counts = [outcomes.count(one) for one in (Outcome.HACKING, Outcome.COLLAPSE, Outcome.LEARNING)]
        lines.append(
            (
                f"`{world}`",
                compact(WORLDS[world].beta * option.beta),
                _means(places, "proxy", ("start", "peak", "end")),
                _means(places, TRUTH, ("start", "peak", "end")),
                _means(places, "attribute_accuracy", ("start", "end")),
                _means(places, DIVERSITY, ("start", "end"), digits=3),
                str(len(runs)),
                ", ".join(map(str, (*counts, len(runs) - sum(counts)))),
            )
        )
    return markdown_table(WORLDS_HEADER, lines)


def _means(places: Mapping[str, Sequence[Line]], key: str, at: Sequence[str], digits: int = 2) -> str:
    return ", ".join(two(fmean(float(line[key]) for line in places[place]), digits) for place in at)


def runs_table(rows: Sequence[Row]) -> str:
    """What was trained with which setting, and where it ended."""
    if not rows:
        return ""
    lines = [("before training", "", "", *_figures(rows[0].start), "")]
    lines += [
        (row.entry.name, row.entry.role, row.choice.option, *_figures(row.end), _share(row))
        for row in rows
        if not row.entry.sampling
    ]
    return markdown_table(RUNS_HEADER, lines)


def _figures(figures: Mapping[str, float]) -> tuple[str, ...]:
    truth, right, spread = (
        two(figures.get(name, math.nan)) for name in (TRUTH, "attribute_accuracy", "free_spread_right")
    )
    return f"{figures['proxy']:.3f}".replace("-", MINUS), truth, right, f"{figures[DIVERSITY]:.3f}", spread


def _share(row: Row) -> str:
    return f"{sum(outcome is Outcome.HACKING for outcome in row.outcomes.values())} of {len(row.outcomes)}"


def against_table(worlds: Mapping[str, Sequence[Row]]) -> str:
    """Every contender that is no control in every world, by rising p."""
    tested = [(world, row) for world, rows in worlds.items() for row in rows if row.entry.role != "control"]
    lines = []
    for world, row in sorted(tested, key=lambda pair: pair[1].adjusted):
        near, base = row.against.get(row.nearest, {}), row.against.get("base", {})
        lines.append(
            (
                f"`{world}`",
                f"{row.entry.name} ({row.choice.option})",
                *_cells(base.get(TRUTH)),
                row.nearest or DASH,
                *_cells(near.get(TRUTH)),
                *_cells(near.get(DIVERSITY), digits=3),
                listing(row.not_above) or DASH,
                f"{row.adjusted:.2g}",
                "yes" if row.passes else "no",
            )
        )
    return markdown_table(AGAINST_HEADER, lines)


def gains_table(results: Results) -> str:
    """The gain of every option on the development seeds, in units of truth, where more than the base method ran."""
    lines = []
    for world in WORLDS:
        members = entering(results, world)
        compared = any(entry.contender != "base" for entry in members)
        for entry in ENTRIES if compared else ():
            choice = chosen(results, world, entry)
            if choice is not None:
                gains = ", ".join(f"{option} {two(gain)}" for option, gain in choice.tried.items())
                lines.append((f"`{world}`", entry.name, entry.role, gains, "yes" if entry in members else "no"))
    return markdown_table(GAINS_HEADER, lines)


def _cells(comparison: Comparison | None, digits: int = 2) -> tuple[str, str]:
    if comparison is None:
        return DASH, DASH
    gap = comparison.gap
    numbers = with_interval(gap.mean, gap.t_low, gap.t_high, signed=True, digits=digits)
    return numbers, WORDS[comparison.difference]


def ends_tables(worlds: Mapping[str, Sequence[Row]]) -> str:
    """Where the runs end, a table for each world."""
    return "\n\n".join(f"`{world}`:\n\n{runs_table(rows)}" for world, rows in worlds.items() if rows)


ROLES: Mapping[str, tuple[str, str]] = {
    "control": ("controls", "control"),
    "rival": ("rivals", "base"),
    "own": ("terms of our own", "see"),
}
"""Of the figure: legend and colour by role."""


def draw(results: Results, phase: str, path: Path) -> None:
    """Truth by the proxy that is first reached, a panel for each world: mean of the seeds, over what all reach."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    from seedpo.reports.figures.drawing import STYLE

    shown = {world: pools for world in WORLDS if len(pools := _pools(results, world, phase)) > 1}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.0 * max(1, len(shown)), 4.2), layout="constrained")
        for index, (world, pools) in enumerate(shown.items()):
            _panel(figure.add_subplot(1, len(shown), index + 1), world, pools)
        handles = [Line2D([], [], color=COLOURS[colour], label=label) for label, colour in ROLES.values()]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _pools(results: Results, world: str, phase: str) -> dict[Entry, Pool]:
    pools: dict[Entry, Pool] = {}
    for entry in ENTRIES:
        choice = chosen(results, world, entry)
        runs = results.seeds(world, entry.contender, choice.option, phase) if choice else {}
        if trails := pool(runs, TRUTH, entry.sampling):
            pools[entry] = trails
    return pools


def _panel(axes: Axes, world: str, pools: Mapping[Entry, Pool]) -> None:
    """One world; the names stand in a column beside it, by falling truth at the end."""
    axes.set_title(world, loc="left", fontweight="bold")
    axes.set_xlabel(f"proxy ({WORLDS[world].proxy})")
    axes.set_ylabel("truth where it is first reached")
    ends = {}
    for entry, trails in pools.items():
        levels, heights = _curve(trails)
        if len(levels):
            line, width = ":" if entry.sampling else "-", 2.0 if entry.name == "base" else 0.9
            colour = COLOURS[ROLES[entry.role][1]]
            axes.plot(levels, heights, color=colour, alpha=0.85, linestyle=line, linewidth=width)
            ends[entry] = (levels[-1], heights[-1])
    for place, (entry, end) in enumerate(sorted(ends.items(), key=lambda pair: -pair[1][1])):
        axes.annotate(
            entry.name,
            end,
            (1.03, 1.0 - (place + 0.5) / len(ends)),
            textcoords="axes fraction",
            size=6,
            va="center",
            color=COLOURS[ROLES[entry.role][1]],
            arrowprops={"arrowstyle": "-", "linewidth": 0.3, "color": "#9aa3ad", "shrinkB": 2},
        )


def _curve(trails: Pool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Proxies that all seeds reach, and the mean truth there; empty if they share none."""
    means = [[trail.mean() for trail in row] for row in trails.values()]
    low = max(min(float(trail.proxy[0]) for trail in row) for row in means)
    high = min(max(float(trail.proxy.max()) for trail in row) for row in means)
    levels = np.linspace(low, high, LEVELS if high > low else 0)
    return levels, np.stack([first_reached(row, levels) for row in means]).mean(0)


FIGURE = "hacking.svg"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hacking.page", description=__doc__)
    parser.add_argument("--results", type=Path, default=PUBLISHED, help="file of the runs (default: the published one)")
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder of the pages whose tables are written anew")
    parser.add_argument("--development", type=Path, metavar="FILE", help="only draw the development's curves, here")
    options = parser.parse_args(arguments)
    results = Results.read(options.results)
    if options.development:
        draw(results, "development", options.development)
        print(options.development)
        return 0
    worlds = final_rows(results, list(WORLDS))
    blocks = {
        RESULTS_PAGE: {"worlds": worlds_table(results), "hacking": against_table(worlds)},
        APPENDIX_PAGE: {"hacking": ends_tables(worlds), "gains": gains_table(results)},
    }
    write_blocks(blocks, options.docs)
    draw(results, "final", options.docs / "images" / FIGURE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
