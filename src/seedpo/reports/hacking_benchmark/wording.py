"""What the benchmark found, in words that follow from the numbers, and as Markdown tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from seedpo.methods.presets import method_title
from seedpo.pages.wording import count, interval, listing, number, sentence, setting, signed
from seedpo.reports.hacking_benchmark.analysis import QUANTITIES, WITHOUT, Comparison, Measured, drawn, last, pools
from seedpo.reports.hacking_benchmark.ends import ends

SHOWN = ("base at any beta", "control", "SEE")
"""Pools in the table of frontiers."""

ROWS = 5
"""Proxies at which the table of frontiers is written."""

LEAST_SEEDS = 3
"""With fewer seeds a difference is not taken as shown: with two, both intervals rest on a single difference."""

ENDS = (
    "After equally many steps, mean over the settings with the term: each against its control, which differs in the "
    "term's offset alone, and against the base method at its beta, which differs in a too (a higher a alone makes a "
    "run slower). Proxies are not equal here. Shown: Student's t over the seeds leaves out 0."
)

Verdict = str
"""``more``, ``less``, ``not shown`` or ``not comparable``."""


def verdict(comparison: Comparison) -> Verdict:
    """What a comparison shows: ``more`` or ``less`` only where both intervals lie on one side of 0."""
    gap = comparison.gap
    return _word(gap.sign, len(gap.by_seed)) if gap.by_seed else "not comparable"


def _word(sign: int, seeds: int) -> Verdict:
    return {1: "more", -1: "less", 0: "not shown"}[sign if seeds >= LEAST_SEEDS else 0]


def evidence(comparison: Comparison) -> str:
    """The mean gap with its intervals and seeds, in words."""
    gap, amount = comparison.gap, len(comparison.gap.by_seed)
    if not amount:
        return "no seed has proxies that both reach"
    text = f"mean gap {signed(gap.mean)}, {_share(gap.mean, comparison.scale)} of its range in all runs"
    covered = f"over {_share(comparison.covered, 1.0)} of the other's climb in proxy"
    if amount == 1:
        return f"{text}, {covered}; one seed, so no interval"
    higher = sum(one.mean > 0 for one in gap.by_seed.values())
    missing = f"; no common proxies in seed {listing([str(seed) for seed in gap.without])}" if gap.without else ""
    few = "" if amount >= LEAST_SEEDS else f"; {amount} seeds are too few to show anything"
    return (
        f"{text}, {covered}; bootstrap {interval(gap.low, gap.high)}, Student's t {interval(gap.t_low, gap.t_high)}, "
        f"higher in {higher} of {amount} seeds{missing}{few}"
    )


def _share(part: float, whole: float) -> str:
    """A part as a percentage of the whole; a dash where there is no whole."""
    return f"{number(100 * abs(part) / whole) if whole > 0 else number(math.nan)} %"


def answer(method: str, comparison: Comparison) -> str:
    """One sentence on the benchmark's question, for one quantity."""
    quantity = QUANTITIES[comparison.key]
    found = {
        "more": f"SEE gives more {quantity} than the base method at any beta",
        "less": f"SEE gives less {quantity} than the base method at its best beta",
        "not shown": f"no difference in {quantity} is shown between SEE and the base method at any beta",
        "not comparable": f"{quantity} cannot be compared",
    }[verdict(comparison)]
    return f"{method_title(method)}: at equal proxy reward {found} ({evidence(comparison)})."


def summary(comparisons: Mapping[str, Sequence[Comparison]]) -> str:
    """The answer over all methods in one sentence."""
    heads = [(method, one) for method, found in comparisons.items() for one in found if one.headline]
    names: dict[Verdict, list[str]] = {}
    for method, one in heads:
        names.setdefault(verdict(one), []).append(f"{QUANTITIES[one.key]} in {method_title(method)}")
    if not heads:
        return "Nothing was measured."
    parts = {
        "more": "more {} than the base method at any beta",
        "less": "less {} than the base method at its best beta",
    }
    found = [text.format(listing(names[word])) for word, text in parts.items() if word in names]
    open_words = [f"{listing(names['not shown'])}: no difference is shown"] if "not shown" in names else []
    open_words += [f"{listing(names['not comparable'])}: no common proxies"] if "not comparable" in names else []
    first = f"the entropy term gives {', and '.join(found)}" if found else "the entropy term is not shown to give more"
    return f"At equal proxy reward {first}{''.join(f'; {one}' for one in open_words)}."


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
        _method(seeds, command, [one for found in comparisons.values() for one in found]),
    ]
    if missing:
        parts.append(f"Left out, since they are not finished: {listing(list(missing))}.")
    for method, found in measured.items():
        parts += [f"## {method_title(method)}", *_answers(method, comparisons[method])]
        parts += [f"![{name}]({name})" for name in figures.get(method, ())]
        parts += ["### Gaps between frontiers", _gap_table(comparisons[method])]
        parts += ["### At the last step", ENDS, _end_table(found)]
        parts += ["### Frontiers", _frontier_table(found), "### Runs", _run_table(found)]
    return "\n\n".join(parts) + "\n"


def _method(seeds: int, command: str, made: Sequence[Comparison]) -> str:
    drawn = [QUANTITIES[key] for key in QUANTITIES if all(one.over_prompts for one in made if one.key == key)]
    prompts = f", which for {listing(drawn)} draws prompts too" if drawn and made else ""
    return (
        f"{count(seeds, 'seed')} of each setting, by `{command}`. Proxy: the reward that is optimised. A frontier is "
        "the best value at a proxy of at least x, over all evaluations of all runs of a pool, interpolated between "
        "evaluations. A gap is the mean difference of two frontiers over the proxies that both reach, within each "
        "seed; its area is the gap times the width of that range. Intervals are 95 % over seeds, by Student's t and by "
        f"bootstrap{prompts}. A difference counts as shown only "
        f"if both intervals leave out 0, with {LEAST_SEEDS} seeds or more. {count(len(made), 'comparison')} were made; "
        "where there is no difference, up to one in twenty would seem shown by chance."
    )


def _answers(method: str, comparisons: Sequence[Comparison]) -> list[str]:
    lines = [f"* {answer(method, one)}" for one in comparisons if one.headline]
    controls = [one for one in comparisons if (one.left, one.right) == ("SEE", "control")]
    if controls:
        lines.append(f"* Against the controls alone: {_each(controls)}.")
    for option in dict.fromkeys(one.left for one in comparisons if one.right == WITHOUT):
        tried = [one for one in comparisons if (one.left, one.right) == (option, WITHOUT)]
        lines.append(f"* The option {option} against the same settings without it: {_each(tried)}.")
    return ["\n".join(lines)]


def _each(comparisons: Sequence[Comparison]) -> str:
    return "; ".join(f"{QUANTITIES[one.key]} {verdict(one)} ({evidence(one)})" for one in comparisons)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _gap_table(comparisons: Sequence[Comparison]) -> str:
    rows = []
    for one in comparisons:
        gap = one.gap
        ranges = list(gap.by_seed.values())
        low = sum(found.low for found in ranges) / len(ranges) if ranges else math.nan
        high = sum(found.high for found in ranges) / len(ranges) if ranges else math.nan
        area = sum(found.area for found in ranges) / len(ranges) if ranges else math.nan
        rows.append(
            (
                one.left,
                one.right,
                QUANTITIES[one.key],
                signed(gap.mean),
                interval(gap.low, gap.high) or "-",
                interval(gap.t_low, gap.t_high) or "-",
                ", ".join(signed(found.mean) for found in ranges) or "-",
                f"{low:.4g} to {high:.4g}" if ranges else "-",
                signed(area),
                verdict(one),
            )
        )
    head = (
        "left",
        "right",
        "quantity",
        "mean gap",
        "bootstrap",
        "Student's t",
        "by seed",
        "proxies",
        "area",
        "left has",
    )
    return _table(head, rows)


def _end_table(measured: Sequence[Measured]) -> str:
    rows = []
    for one in ends(measured):
        word = _word(one.sign, len(one.by_seed))
        seeds = ", ".join(map(signed, one.by_seed.values()))
        rows.append((one.rival, one.name, signed(one.mean), interval(one.low, one.high) or "-", seeds, word))
    return _table(("SEE against", "quantity", "mean difference", "Student's t", "by seed", "SEE has"), rows)


def _frontier_table(measured: Sequence[Measured]) -> str:
    """Mean and range over the seeds of each pool, at proxies that all seeds of all of these pools reach."""
    named, rows = {name: found for name, found in pools(measured).items() if name in SHOWN}, []
    for key, quantity in QUANTITIES.items():
        lines = [line for found in named.values() if (line := drawn(found, key)) is not None]
        if len(lines) < len(named) or not lines:
            continue
        low, high = max(line.proxy[0] for line in lines), min(line.proxy[-1] for line in lines)
        levels = [low + (high - low) * row / (ROWS - 1) for row in range(ROWS)] if high > low else []
        there = [line for found in named.values() if (line := drawn(found, key, at=levels)) is not None]
        for index in range(len(levels)):
            values = [f"{number(line.mean[index])} {interval(line.low[index], line.high[index])}" for line in there]
            rows.append((quantity, f"{levels[index]:.4g}", *values))
    if not rows:
        return "There are no proxies that all of them reach in every seed."
    return _table(("best value, mean [range over seeds]", "proxy at least", *named), rows)


def _run_table(measured: Sequence[Measured]) -> str:
    rows = []
    for one in measured:
        gammas = ", ".join(f"{setting(gamma)} ({convention})" for convention, gamma in one.setting.gammas.items())
        values = [number(last(one, key)) for key in (one.proxy, *QUANTITIES)]
        weights = (setting(one.setting.beta), gammas or "0", setting(one.setting.weight))
        rows.append((one.setting.label, *weights, str(len(one.curves)), *values))
    head = ("setting", "β", "γ", "a", "seeds", "proxy, last", *(f"{name}, last" for name in QUANTITIES.values()))
    return _table([sentence(head[0]), *head[1:]], rows)
