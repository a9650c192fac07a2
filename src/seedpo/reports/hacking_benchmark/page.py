"""The results of the benchmark as one Markdown page, its answers as sentences, and its frontiers as figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from seedpo.core.verdicts import Difference
from seedpo.methods.presets import method_title
from seedpo.pages.rendering import figure_file
from seedpo.pages.tables import markdown_table
from seedpo.pages.wording import compact, count, interval, listing, number, signed
from seedpo.reports.frontier.comparisons import LEAST_SEEDS, Comparison, evidence
from seedpo.reports.frontier.panels import frontier_line, panel
from seedpo.reports.frontier.series import drawn
from seedpo.reports.frontier.tables import frontier_table
from seedpo.reports.hacking_benchmark.analysis import QUANTITIES, WITHOUT, Measured, ends, pools, series_of

SHOWN = {"base at any beta": ("base", 0), "control": ("control", 1), "SEE": ("see", 0)}
"""Pools in the table of frontiers and in the figures, with role and dash pattern of their line."""

BANDS = ("base", "see")
"""Roles whose range over the seeds is drawn; the controls are part of the base pool and would cover it."""

ENDS = (
    "After equally many steps, mean over the settings with the term: each against its control, which differs in the "
    "term's offset alone, and against the base method at its beta, which differs in a too (a higher a alone makes a "
    "run slower). Proxies are not equal here. Shown: Student's t over the seeds leaves out 0."
)

ANSWERS = {
    Difference.HIGHER: "SEE gives more {} than the base method at any beta",
    Difference.LOWER: "SEE gives less {} than the base method at its best beta",
    Difference.NOT_SHOWN: "no difference in {} is shown between SEE and the base method at any beta",
    Difference.NOT_COMPARABLE: "{} cannot be compared",
}


def answer(method: str, comparison: Comparison) -> str:
    """One sentence on the benchmark's question, for one quantity."""
    verdict = ANSWERS[comparison.verdict].format(QUANTITIES[comparison.key])
    return f"{method_title(method)}: at equal proxy reward {verdict} ({evidence(comparison)})."


def summary(comparisons: Mapping[str, Sequence[Comparison]]) -> str:
    """The answer over all methods in one sentence."""
    names: dict[Difference, list[str]] = {}
    for method, rows in comparisons.items():
        for row in rows:
            if row.headline:
                names.setdefault(row.verdict, []).append(f"{QUANTITIES[row.key]} in {method_title(method)}")
    if not names:
        return "Nothing was measured."
    shown = [
        ANSWERS[verdict].format(listing(names[verdict])).removeprefix("SEE gives ")
        for verdict in (Difference.HIGHER, Difference.LOWER)
        if verdict in names
    ]
    first = f"the entropy term gives {', and '.join(shown)}" if shown else "the entropy term is not shown to give more"
    rest = {Difference.NOT_SHOWN: "no difference is shown", Difference.NOT_COMPARABLE: "no common proxies"}
    others = [f"; {listing(names[verdict])}: {words}" for verdict, words in rest.items() if verdict in names]
    return f"At equal proxy reward {first}{''.join(others)}."


def markdown(
    measured: Mapping[str, Sequence[Measured]],
    comparisons: Mapping[str, Sequence[Comparison]],
    *,
    command: str,
    seeds: int,
    missing: Sequence[str],
    figures: Mapping[str, Sequence[str]],
) -> str:
    """The whole result as a page."""
    parts = [
        "# Reward hacking with and without the entropy term",
        f"**{summary(comparisons)}**",
        _method(seeds, command, [row for rows in comparisons.values() for row in rows]),
    ]
    if missing:
        parts.append(f"Left out, since they are not finished: {', '.join(missing)}.")
    for method, members in measured.items():
        parts += [f"## {method_title(method)}", _answers(method, comparisons[method])]
        parts += [f"![{name}]({name})" for name in figures.get(method, ())]
        parts += ["### Gaps between frontiers", _gap_table(comparisons[method])]
        parts += ["### At the last step", ENDS, _end_table(members)]
        parts += ["### Frontiers", _frontier_table(members), "### Runs", _run_table(members)]
    return "\n\n".join(parts) + "\n"


def _method(seeds: int, command: str, rows: Sequence[Comparison]) -> str:
    keys = [key for key in QUANTITIES if any(row.key == key for row in rows)]
    over_prompts = [QUANTITIES[key] for key in keys if all(row.over_prompts for row in rows if row.key == key)]
    prompts = f", which for {listing(over_prompts)} draws prompts too" if over_prompts else ""
    return (
        f"{count(seeds, 'seed')} of each setting, by `{command}`. Proxy: the reward that is optimised. A frontier is "
        "the best value at a proxy of at least x, over all evaluations of all runs of a pool, interpolated between "
        "evaluations. A gap is the mean difference of two frontiers over the proxies that both reach, within each "
        "seed; its area is the gap times the width of that range. Intervals are 95 % over seeds, by Student's t and by "
        f"bootstrap{prompts}. A difference counts as shown only "
        f"if both intervals leave out 0, with {LEAST_SEEDS} seeds or more. {count(len(rows), 'comparison')} were made; "
        "where there is no difference, up to one in twenty would seem shown by chance."
    )


def _answers(method: str, comparisons: Sequence[Comparison]) -> str:
    lines = [f"* {answer(method, row)}" for row in comparisons if row.headline]
    controls = [row for row in comparisons if (row.left, row.right) == ("SEE", "control")]
    lines += [f"* Against the controls alone: {_each(controls)}."] if controls else []
    for option in dict.fromkeys(row.left for row in comparisons if row.right == WITHOUT):
        tried = [row for row in comparisons if (row.left, row.right) == (option, WITHOUT)]
        lines.append(f"* The option {option} against the same settings without it: {_each(tried)}.")
    return "\n".join(lines)


def _each(comparisons: Sequence[Comparison]) -> str:
    return "; ".join(f"{QUANTITIES[row.key]} {row.verdict} ({evidence(row)})" for row in comparisons)


def _gap_table(comparisons: Sequence[Comparison]) -> str:
    rows = []
    for row in comparisons:
        gap, by_seed = row.gap, list(row.gap.by_seed.values())
        low, high, area = (
            fmean(getattr(member, name) for member in by_seed) if by_seed else math.nan
            for name in ("low", "high", "area")
        )
        rows.append(
            (
                row.left,
                row.right,
                QUANTITIES[row.key],
                signed(gap.mean),
                interval(gap.low, gap.high) or "-",
                interval(gap.t_low, gap.t_high) or "-",
                ", ".join(signed(member.mean) for member in by_seed) or "-",
                f"{low:.4g} to {high:.4g}" if by_seed else "-",
                signed(area),
                row.verdict,
            )
        )
    header = ("left", "right", "quantity", "mean gap", "bootstrap", "Student's t", "by seed", "proxies", "area")
    return markdown_table((*header, "left is"), rows)


def _end_table(measured: Sequence[Measured]) -> str:
    rows = [
        (
            end.rival,
            end.name,
            signed(end.mean),
            interval(end.low, end.high) or "-",
            ", ".join(map(signed, end.by_seed.values())),
            end.verdict,
        )
        for end in ends(measured)
    ]
    return markdown_table(("SEE against", "quantity", "mean difference", "Student's t", "by seed", "SEE is"), rows)


def _frontier_table(measured: Sequence[Measured]) -> str:
    """Mean and range over the seeds of each pool, at proxies that all seeds of all of these pools reach."""
    named = {name: series_of(members) for name, members in pools(measured).items() if name in SHOWN}
    table = frontier_table(named, QUANTITIES)
    return table.markdown if table.rows else "There are no proxies that all of them reach in every seed."


def _run_table(measured: Sequence[Measured]) -> str:
    rows = []
    for member in measured:
        gammas = ", ".join(f"{compact(gamma)} ({convention})" for convention, gamma in member.setting.gammas.items())
        lasts = [member.series.last(key).values() for key in (member.series.proxy, *QUANTITIES)]
        values = [number(fmean(last)) if last else number(math.nan) for last in lasts]
        weights = (compact(member.setting.beta), gammas or "0", compact(member.setting.weight))
        rows.append((member.setting.label, *weights, str(len(member.series.curves)), member.outcome, *values))
    names = ("proxy", *QUANTITIES.values())
    header = ("Setting", "β", "γ", "a", "seeds", "verdict", *(f"{name}, last" for name in names))
    return markdown_table(header, rows)


def frontier_figure(method: str, measured: Sequence[Measured], key: str) -> str | None:
    """The frontiers of the pools as an SVG file: mean over the seeds, and their range as a band.

    Args:
        method: its title.
        measured: the settings of the method.
        key: the quantity.

    Returns:
        The SVG; ``None`` if there is no frontier to draw.
    """
    lines = []
    for name, (role, order) in SHOWN.items():
        line = drawn(series_of(pools(measured).get(name, [])), key)
        if line is not None:
            lines.append(frontier_line(line, label=name, role=role, order=order, band=role in BANDS))
    if not lines:
        return None
    title = f"{method}: best {QUANTITIES[key]} at a proxy of at least x"
    return figure_file(panel(title, "proxy reward x", f"best {QUANTITIES[key]}", lines))
