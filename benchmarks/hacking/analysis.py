"""What the study shows: which setting stands for a contender, and whether it is above every control at equal proxy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

import numpy as np
from numpy.typing import NDArray

from benchmarks.hacking.contenders import CONTENDERS, SAMPLED, Role
from benchmarks.hacking.results import Line, Results, Run
from seedpo.core.stats.classical import holm
from seedpo.core.stats.frontiers import GapInterval, Trail, first_reached, gap_interval
from seedpo.core.stats.student import student_p
from seedpo.core.verdicts import (
    LEAST_SHARE,
    Difference,
    Evaluation,
    Outcome,
    Reading,
    difference_of,
    judge_run,
    matters,
)

TRUTH, DIVERSITY = "truth", "pairwise_diversity"
"""What must be more, and what must not be less."""

QUANTITIES: Mapping[str, bool] = {TRUTH: True, DIVERSITY: False, "free_spread_right": False}
"""What is compared at equal proxy; whether a line has its values by prompt."""

LEAST_SEEDS = 3
"""With fewer seeds nothing is compared."""

RESAMPLES = 300
"""Bootstrap resamples behind an interval over seeds and prompts: there are hundreds of comparisons."""

LEAST_COVERED = 0.5
"""A control must reach this share of a contender's climb to be one that it must be above, and not just not below."""

LEVELS = 40
"""Proxies at which curves are drawn, and settings are chosen."""

ALPHA = 0.05
"""Level of the corrected test."""

Pool = Mapping[int, Sequence[Trail]]
"""Trails by seed."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A row: a contender, or what sampling makes of the base method's runs.

    Attributes:
        name: in tables.
        role: what it is.
        contender: whose runs it reads.
        sampling: kind of the control of sampling; empty: the runs themselves.
    """

    name: str
    role: Role
    contender: str
    sampling: str = ""


ENTRIES: tuple[Entry, ...] = (
    *(Entry(name=name, role=contender.role, contender=name) for name, contender in CONTENDERS.items()),
    *(Entry(name=kind, role="control", contender="base", sampling=kind) for kind in SAMPLED),
)


def pool(runs: Mapping[int, Run], key: str, sampling: str = "") -> dict[int, list[Trail]]:
    """Proxy and a quantity along the runs, or from the model before training to a trained one by sampling.

    Args:
        runs: of one setting, by seed.
        key: the quantity.
        sampling: kind of the control of sampling; empty: the evaluations of the runs.

    Returns:
        Trails by seed, each of which has two points or more. Best of n is one trail; strength and mixing have one for
        every step after which they were measured.
    """
    by_prompt = all("by_prompt" in line for run in runs.values() for line in run["lines"])
    return {
        seed: trails
        for seed, run in runs.items()
        if (
            trails := [
                _trail(path, key, by_prompt=by_prompt and QUANTITIES[key])
                for path in _paths(run["lines"], sampling)
                if sum(key in line for line in path) > 1
            ]
        )
    }


def _paths(lines: Sequence[Line], sampling: str) -> list[list[Line]]:
    trained = [line for line in lines if "control" not in line]
    if not sampling:
        return [trained]
    drawn = [line for line in lines if line.get("control") == sampling]
    ends = {line["step"]: line for line in trained} if sampling != "best of n" else {}
    steps = dict.fromkeys(line["step"] for line in drawn)
    return [
        [trained[0], *(line for line in drawn if line["step"] == step), *([ends[step]] if step in ends else [])]
        for step in steps
    ]


def _trail(path: Sequence[Line], key: str, *, by_prompt: bool) -> Trail:
    known = [line for line in path if key in line]
    if not by_prompt:
        return Trail.of([line["proxy"] for line in known], [line[key] for line in known])
    return Trail.of(*([line["by_prompt"][name] for line in known] for name in ("proxy", key)))


def climbs(trails: Sequence[Trail]) -> bool:
    """Whether the proxy of any of them rises above its start."""
    return any(path.proxy.max() > path.proxy[0] for path in (trail.mean() for trail in trails))


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The setting that stands for an entry.

    Attributes:
        option: its name.
        gain: by the rule of :func:`chosen`, in units of truth.
        tried: gain of every option.
    """

    option: str
    gain: float
    tried: Mapping[str, float]


def chosen(results: Results, world: str, entry: Entry) -> Choice | None:
    """The option with the largest mean gain in truth over the base method, on the development seeds.

    At :data:`LEVELS` proxies, from the start to the highest of the base method's first option (mean over the seeds),
    the truth where an option first reaches them is held against that of the base method's first option with the same
    seed. Proxies that an option does not reach count 0: it has neither more nor less there. Of equal ones the first is
    chosen.

    Returns:
        The choice; `None` if no option has runs with the seeds of the base method.
    """
    first = next(iter(CONTENDERS["base"].options))
    base = _means(pool(results.seeds(world, "base", first, "development"), TRUTH))
    tried = {}
    for option in CONTENDERS[entry.contender].options:
        some = _means(pool(results.seeds(world, entry.contender, option, "development"), TRUTH, entry.sampling))
        if shared := sorted(set(some) & set(base)):
            tried[option] = fmean(_gain(some[seed], base[seed], _levels(base)) for seed in shared)
    if not tried:
        return None
    option = max(tried, key=lambda name: tried[name])
    return Choice(option=option, gain=tried[option], tried=tried)


ENTERING = 2
"""Contenders of each role that enter the final comparison of a world, besides all controls."""


def entering(results: Results, world: str) -> dict[Entry, Choice]:
    """All controls, and of rivals and own terms those with the largest gains on the development seeds."""
    choices = {entry: choice for entry in ENTRIES if (choice := chosen(results, world, entry)) is not None}
    ranked = sorted(choices, key=lambda entry: -choices[entry].gain)
    best = [entry for role in ("rival", "own") for entry in [one for one in ranked if one.role == role][:ENTERING]]
    return {entry: choice for entry, choice in choices.items() if entry.role == "control" or entry in best}


def _means(trails: Pool) -> dict[int, list[Trail]]:
    return {seed: [trail.mean() for trail in row] for seed, row in trails.items()}


def _levels(trails: Pool) -> NDArray[np.float64]:
    low = fmean(min(float(trail.proxy[0]) for trail in row) for row in trails.values())
    high = fmean(max(float(trail.proxy.max()) for trail in row) for row in trails.values())
    return np.linspace(low, high, LEVELS)


def _gain(left: Sequence[Trail], right: Sequence[Trail], levels: NDArray[np.float64]) -> float:
    return float(np.nan_to_num(first_reached(left, levels) - first_reached(right, levels), nan=0.0).mean())


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One entry less another in a quantity, at equal proxy.

    Attributes:
        gap: mean difference where both first reach a proxy.
        scale: range of the quantity over the proxies that both reach.
        covered: share of the first one's climb that the other reaches, too; mean over the seeds.
    """

    gap: GapInterval
    scale: float
    covered: float

    @property
    def is_asked_for_more(self) -> bool:
        """Whether the other reaches so far that more is asked for than not to be below it."""
        return self.covered >= LEAST_COVERED

    @property
    def values(self) -> list[float]:
        """The gap of each seed."""
        return [gap.mean for gap in self.gap.by_seed.values()]

    @property
    def difference(self) -> Difference:
        """What is shown: both intervals on one side of 0, and a gap that matters."""
        if len(self.values) < LEAST_SEEDS:
            return Difference.NOT_COMPARABLE
        return difference_of(self.gap.sign, shown=matters(abs(self.gap.mean), scale=self.scale))

    def p_above(self, least: float) -> float:
        """p-value that the gap is above ``least``: one-sided, Student's t over the seeds; 1 with too few of them."""
        values = self.values
        if len(values) < LEAST_SEEDS:
            return 1.0
        excess, deviation = fmean(values) - least, stdev(values) / math.sqrt(len(values))
        if deviation == 0:
            return float(excess <= 0)
        half = student_p(excess / deviation, len(values) - 1) / 2
        return half if excess > 0 else 1 - half


@dataclass(frozen=True, kw_only=True)
class Row:
    """An entry in the final comparison of a world.

    Attributes:
        entry, choice: what was trained, and how.
        outcomes: what became of its runs, by seed; empty for what sampling makes of them.
        start, end: figures before training and after it, means over the seeds.
        against: by control and quantity; of a control the base method alone. Controls whose proxy rises in no seed are
            left out.
        p: that it has more truth and no less diversity than every control; 1 for controls.
        adjusted: p, corrected for all entries and worlds that were tried (Holm).
    """

    entry: Entry
    choice: Choice
    outcomes: Mapping[int, Outcome]
    start: Mapping[str, float]
    end: Mapping[str, float]
    against: Mapping[str, Mapping[str, Comparison]]
    p: float
    adjusted: float = 1.0

    @property
    def nearest(self) -> str:
        """The control over which it has the least truth; empty without any."""
        return min(self.against, key=lambda name: _number(self.against[name][TRUTH].gap.mean), default="")

    @property
    def not_above(self) -> list[str]:
        """Controls that reach far enough, over which it is not shown to have more truth."""
        return [
            name
            for name, sides in self.against.items()
            if sides[TRUTH].is_asked_for_more and sides[TRUTH].difference is not Difference.HIGHER
        ]

    @property
    def passes(self) -> bool:
        """Whether it is above every control that reaches far enough, and below none, by the corrected test too."""
        asked = any(sides[TRUTH].is_asked_for_more for sides in self.against.values())
        return self.adjusted <= ALPHA and asked and not self.not_above


def _number(value: float) -> float:
    return value if math.isfinite(value) else -math.inf


def final_rows(results: Results, worlds: Sequence[str], phase: str = "final") -> dict[str, list[Row]]:
    """The finished entries of every world, with p-values corrected for all of them together."""
    rows = {world: _rows(results, world, phase) for world in worlds}
    tested = [
        (world, place) for world in worlds for place, row in enumerate(rows[world]) if row.entry.role != "control"
    ]
    adjusted = holm([rows[world][place].p for world, place in tested])
    for (world, place), value in zip(tested, adjusted, strict=True):
        rows[world][place] = replace(rows[world][place], adjusted=float(value))
    return rows


def _rows(results: Results, world: str, phase: str) -> list[Row]:
    choices = {entry: choice for entry in ENTRIES if (choice := chosen(results, world, entry)) is not None}
    runs = {entry: results.seeds(world, entry.contender, choice.option, phase) for entry, choice in choices.items()}
    pools = {
        (entry, key): trails
        for entry, some in runs.items()
        for key in QUANTITIES
        if (trails := pool(some, key, entry.sampling))
    }
    ready = [entry for entry in runs if (entry, TRUTH) in pools]
    controls = [entry for entry in ready if entry.role == "control" and any(map(climbs, pools[entry, TRUTH].values()))]
    rows = []
    for entry in ready:
        against = {
            control.name: {
                key: _compared(pools.get((entry, key), {}), pools.get((control, key), {})) for key in QUANTITIES
            }
            for control in controls
            if _rivals(entry, control)
        }
        rows.append(
            Row(
                entry=entry,
                choice=choices[entry],
                outcomes={} if entry.sampling else {seed: outcome(run) for seed, run in runs[entry].items()},
                start=_figures(runs[entry], 0),
                end=_figures(runs[entry], -1),
                against=against,
                p=1.0 if entry.role == "control" else _p_above_all(against),
            )
        )
    return rows


def _rivals(entry: Entry, control: Entry) -> bool:
    """Whether an entry is held against a control: one that uses the second opinion only where it does, too.

    Controls are held against the base method alone.
    """
    if entry == control:
        return False
    if entry.role == "control":
        return control.name == "base"
    return CONTENDERS[entry.contender].asks_opinion or not CONTENDERS[control.contender].asks_opinion


def _compared(left: Pool, right: Pool) -> Comparison:
    gap = gap_interval(left, right, resamples=RESAMPLES, height=first_reached)
    heights, covered = [], []
    for seed, shared in gap.by_seed.items():
        sides = [[trail.mean() for trail in trails[seed]] for trails in (left, right)]
        heights += [first_reached(side, np.linspace(shared.low, shared.high, LEVELS)) for side in sides]
        climb = max(float(trail.proxy.max() - trail.proxy[0]) for trail in sides[0])
        covered.append((shared.high - shared.low) / climb)
    scale = float(np.max(heights) - np.min(heights)) if heights else math.nan
    return Comparison(gap=gap, scale=scale, covered=fmean(covered) if covered else 0.0)


def _p_above_all(against: Mapping[str, Mapping[str, Comparison]]) -> float:
    """The largest p-value of all tests that must succeed together (an intersection-union test needs no correction)."""
    tests = [
        p
        for sides in against.values()
        for p in (
            _p_above(sides[TRUTH], more=sides[TRUTH].is_asked_for_more),
            _p_above(sides[DIVERSITY], more=False),
        )
    ]
    return max(tests, default=1.0)


def _p_above(comparison: Comparison, *, more: bool) -> float:
    """That there is more, or not less by as much as matters."""
    return comparison.p_above(0.0 if more else -LEAST_SHARE * comparison.scale)


def _figures(runs: Mapping[int, Run], place: int) -> dict[str, float]:
    lines = [[line for line in run["lines"] if "control" not in line][place] for run in runs.values()]
    names = [name for name in lines[0] if isinstance(lines[0][name], float)]
    return {name: fmean(values) for name in names if (values := [line[name] for line in lines if name in line])}


def outcome(run: Run) -> Outcome:
    """What the rule of :mod:`seedpo.core.verdicts` says of a run, by the truth."""
    evaluations = [
        Evaluation(
            step=line["step"],
            figures={
                key: Reading(value=line[key], by_prompt=tuple(line.get("by_prompt", {}).get(key, ())))
                for key in ("proxy", TRUTH)
            },
        )
        for line in run["lines"]
        if "control" not in line
    ]
    return judge_run(evaluations, proxy="proxy", judges=[TRUTH]).outcome
