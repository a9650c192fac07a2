"""Tables and figure of docs/results.md and its appendix from the runs: ``python -m benchmarks.objectives.page``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.objectives.analysis import Contrast, Mean, Row, rows
from benchmarks.objectives.contenders import WORLDS
from benchmarks.objectives.results import PUBLISHED, Results
from benchmarks.result_tables import APPENDIX_PAGE, DOCS, RESULTS_PAGE, WORDS, two, with_interval, write_blocks
from seedpo.pages.rendering import COLOURS
from seedpo.pages.tables import DASH, markdown_table
from seedpo.pages.wording import compact

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEAST_ROWS = 2
"""A world with fewer finished contenders is left out."""

COST_HEADER = (
    "objective",
    "rate",
    "β",
    "proxy",
    "truth",
    "truth less Diffusion-DPO's",
    "it has",
    "images right",
    "spread of right images",
    "it has (against Diffusion-DPO)",
    "units",
    "core s",
)

PROXY_HEADER = ("objective", "rival", "truth", "it has", "spread of right images", "it has")


def cost_table(members: Sequence[Row]) -> str:
    """The ends of all runs, by falling truth."""
    lines = [_before(members[0])] if members else []
    for row in sorted(members, key=lambda row: -row.ends["truth"].value):
        truth, spread = row.against.get("truth"), row.against.get("free_spread_right")
        lines.append(
            (
                row.contender.name,
                compact(row.rate),
                DASH if row.second is None else f"{row.second:.3g}",
                _mean(row.ends["proxy"]),
                _mean(row.ends["truth"]),
                _gap(truth),
                _word(truth),
                two(row.ends["attribute_accuracy"].value),
                _mean(row.ends["free_spread_right"]),
                _word(spread),
                f"{row.units:,.0f}",
                f"{row.seconds:.0f}",
            )
        )
    return markdown_table(COST_HEADER, lines)


def _before(row: Row) -> tuple[str, ...]:
    start = row.start
    names = ("proxy", "truth", "attribute_accuracy", "free_spread_right")
    proxy, truth, right, spread = (two(start[name]) for name in names)
    return ("before training", "", "", proxy, truth, "", "", right, spread, "", "0", "0")


def proxy_table(members: Sequence[Row]) -> str:
    """Each contender against its rival at equal proxy."""
    lines = []
    for row in members:
        if row.at_proxy:
            truth, spread = row.at_proxy["truth"], row.at_proxy["free_spread_right"]
            cells = (_gap(truth), _word(truth), _gap(spread), _word(spread))
            lines.append((row.contender.name, row.contender.rival, *cells))
    return markdown_table(PROXY_HEADER, lines)


def _mean(mean: Mean) -> str:
    return with_interval(mean.value, mean.low, mean.high)


def _gap(contrast: Contrast | None) -> str:
    if contrast is None:
        return DASH
    return with_interval(contrast.mean, contrast.low, contrast.high, signed=True)


def _word(contrast: Contrast | None) -> str:
    return DASH if contrast is None else WORDS[contrast.difference]


FAMILIES = {"pairs": ("reads labelled pairs", "base", "o"), "own": ("reads its own images", "see", "D")}
"""Of the figure: legend, colour and marker by what a contender reads."""


def draw(worlds: Mapping[str, Sequence[Row]], path: Path) -> None:
    """Truth against proxy, a panel for each world: mean of the seeds at the end, with intervals."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    from seedpo.reports.figures.drawing import STYLE

    shown = {world: members for world, members in worlds.items() if len(members) >= LEAST_ROWS}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.0, 4.4), layout="constrained")
        for index, (world, members) in enumerate(shown.items()):
            _panel(figure.add_subplot(1, len(shown), index + 1), world, members)
        handles = [
            Line2D([], [], linestyle="", marker=marker, color=COLOURS[role], label=label)
            for label, role, marker in FAMILIES.values()
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _panel(axes: Axes, world: str, members: Sequence[Row]) -> None:
    """One world; the names stand in a column beside it, by falling truth."""
    axes.set_title(world, loc="left", fontweight="bold")
    axes.set_xlabel("proxy at the end (scenes-scorer)")
    axes.set_ylabel("truth at the end")
    start = members[0].start
    axes.plot(start["proxy"], start["truth"], "k*", markersize=8)
    axes.annotate("before", (start["proxy"], start["truth"]), (4, -9), textcoords="offset points", size=6)
    ranked = sorted(members, key=lambda row: -row.ends["truth"].value)
    for place, row in enumerate(ranked):
        _, role, marker = FAMILIES[row.contender.reads]
        proxy, truth = row.ends["proxy"], row.ends["truth"]
        axes.errorbar(
            proxy.value,
            truth.value,
            xerr=[[proxy.value - proxy.low], [proxy.high - proxy.value]],
            yerr=[[truth.value - truth.low], [truth.high - truth.value]],
            fmt=marker,
            color=COLOURS[role],
            markersize=3.5,
            elinewidth=0.4,
            alpha=0.85,
        )
        axes.annotate(
            row.contender.name,
            (proxy.value, truth.value),
            (1.03, 1.0 - (place + 0.5) / len(ranked)),
            textcoords="axes fraction",
            size=6,
            va="center",
            color=COLOURS[role],
            arrowprops={"arrowstyle": "-", "linewidth": 0.3, "color": "#9aa3ad", "shrinkB": 2},
        )


FIGURE = "objectives.svg"


def blocks(worlds: Mapping[str, Sequence[Row]]) -> dict[str, dict[str, str]]:
    """All tables as Markdown, by page: those of worlds in which enough has finished."""
    tables = {RESULTS_PAGE: ("at equal cost", cost_table), APPENDIX_PAGE: ("at equal proxy", proxy_table)}
    ready = {world: members for world, members in worlds.items() if len(members) >= LEAST_ROWS}
    return {
        page: {"objectives": "\n\n".join(f"`{world}`, {how}:\n\n{table(rows)}" for world, rows in ready.items())}
        for page, (how, table) in tables.items()
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.objectives.page", description=__doc__)
    parser.add_argument("--results", type=Path, default=PUBLISHED, help="file of the runs (default: the published one)")
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder of the pages whose tables are written anew")
    options = parser.parse_args(arguments)
    results = Results.read(options.results)
    worlds = {world: rows(results, world) for world in WORLDS}
    write_blocks(blocks(worlds), options.docs)
    draw(worlds, options.docs / "images" / FIGURE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
