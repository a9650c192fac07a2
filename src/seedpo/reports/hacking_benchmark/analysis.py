"""From run folders to frontiers, the gaps between them, and the differences at the last step."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from tqdm import tqdm

from seedpo.core.stats.classical import student_interval
from seedpo.core.stats.frontiers import GapInterval, Trail, frontier, gap_interval
from seedpo.core.verdicts import Difference, Outcome, difference_of, matters, shared_outcome
from seedpo.pages.wording import is_interval
from seedpo.reports.curves import Curves, Point, read_curves
from seedpo.reports.families import verdict_of
from seedpo.reports.runs import read_run
from seedpo.training.sweeps.hacking_grid import Setting

QUANTITIES: Mapping[str, str] = {
    "truth": "truth",
    "free_spread": "free spread",
    "free_spread_right": "free spread of right images",
    "pairwise_diversity": "pairwise diversity",
}
"""What the benchmark asks about, higher is better: key in the metrics, and name."""

LEVELS = 40
"""Proxies at which frontiers are drawn."""

RESAMPLES = 400
"""Bootstrap resamples behind each interval: there are some forty comparisons."""

LEAST_SEEDS = 3
"""With fewer seeds no difference counts as shown: with two, both intervals rest on a single difference."""

Pool = Mapping[int, Sequence[Trail]]
"""The trails of each seed."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One setting and the results of its runs.

    Attributes:
        setting: the configuration.
        proxy: key of the optimised reward.
        curves: the evaluations of each seed.
        outcomes: the verdict on reward hacking of each seed.
    """

    setting: Setting
    proxy: str
    curves: Mapping[int, Curves]
    outcomes: Mapping[int, Outcome]

    @property
    def outcome(self) -> Outcome:
        """What more than half of the seeds show."""
        return shared_outcome(list(self.outcomes.values()))

    def trails(self, key: str, *, by_prompt: bool = False) -> dict[int, Trail]:
        """Proxy and value at each evaluation that has both, by seed; seeds without any are left out.

        Args:
            key: the quantity.
            by_prompt: every prompt by itself; see :meth:`has_prompts`.
        """
        number = _by_prompt if by_prompt else _mean
        return {
            seed: Trail.of([number(proxy) for proxy, _ in points], [number(value) for _, value in points])
            for seed, points in self._points(key).items()
        }

    def has_prompts(self, key: str) -> bool:
        """Whether proxy and value are known for every prompt at every evaluation, as means over the prompts are."""
        points = [point for row in self._points(key).values() for pair in row for point in pair]
        return bool(points) and not any(math.isnan(value) for point in points for value in _by_prompt(point))

    def last(self, key: str) -> dict[int, float]:
        """The last value of each seed that has one."""
        return {
            seed: curves[key].values[-1] for seed, curves in self.curves.items() if key in curves and curves[key].steps
        }

    def _points(self, key: str) -> dict[int, list[tuple[Point, Point]]]:
        """Proxy and value at each evaluation that has both, by seed."""
        points = {}
        for seed, curves in self.curves.items():
            proxy, value = curves.get(self.proxy), curves.get(key)
            if proxy and value and (steps := [step for step in proxy.steps if step in value.steps]):
                points[seed] = [(proxy[step], value[step]) for step in steps]
        return points


def _mean(point: Point) -> float:
    return point.value


def _by_prompt(point: Point) -> tuple[float, ...]:
    return point.per_prompt.values if point.per_prompt else (math.nan,)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One pool against another in one quantity.

    Attributes:
        left, right: the pools, in words.
        key: the quantity.
        gap: left minus right.
        scale: range of the quantity in all evaluations of the method.
        climb: how far the proxy rises in the right pool, mean over its seeds.
        headline: whether it answers the benchmark's question.
        over_prompts: whether the bootstrap draws prompts too, and not seeds alone.
    """

    left: str
    right: str
    key: str
    gap: GapInterval
    scale: float = math.nan
    climb: float = math.nan
    headline: bool = False
    over_prompts: bool = False

    @property
    def covered(self) -> float:
        """Share of the right pool's climb that the common range of proxies covers, mean over the seeds; NaN if none."""
        widths = [gap.high - gap.low for gap in self.gap.by_seed.values()]
        return fmean(widths) / self.climb if widths and self.climb > 0 else math.nan

    @property
    def verdict(self) -> Difference:
        """What the left pool has: more or less only where the gap matters and both intervals lie on one side of 0."""
        seeds = len(self.gap.by_seed)
        certain = is_interval(self.gap.low, self.gap.high) and seeds >= LEAST_SEEDS
        shown = certain and matters(abs(self.gap.mean), scale=self.scale)
        return difference_of(self.gap.sign, shown=shown) if seeds else Difference.NOT_COMPARABLE


@dataclass(frozen=True, kw_only=True)
class Frontier:
    """A frontier over the proxies that all its seeds reach: mean, least and greatest over the seeds."""

    proxy: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class End:
    """All settings with the term against one kind of rival, at the last evaluation.

    Attributes:
        rival: what each is held against, in words.
        name: the quantity, in words.
        settings: how many there are.
        by_seed: SEE minus rival in each seed, mean over the settings; seeds that miss a run are left out.
        low, high: 95 % interval of Student's t over the seeds; NaN with fewer than two.
        scale: range of the quantity in all evaluations of the method; NaN if it is not known.
    """

    rival: str
    name: str
    settings: int
    by_seed: Mapping[int, float]
    low: float
    high: float
    scale: float = math.nan

    @property
    def mean(self) -> float:
        """Over the seeds; NaN without any."""
        return fmean(self.by_seed.values()) if self.by_seed else math.nan

    @property
    def verdict(self) -> Difference:
        """What the settings with the term have."""
        certain = is_interval(self.low, self.high) and len(self.by_seed) >= LEAST_SEEDS
        shown = certain and matters(abs(self.mean), scale=self.scale)
        return difference_of(int(self.low > 0) - int(self.high < 0), shown=shown)


def read_measured(folder: Path, settings: Sequence[Setting], *, seeds: int) -> tuple[list[Measured], list[str]]:
    """The finished runs of one method, and the names of those that are missing.

    Args:
        folder: of the method's runs.
        settings: what was to be trained.
        seeds: with seeds 0 to this, exclusive.
    """
    measured, missing = [], []
    for setting in settings:
        proxy, curves, outcomes = "", {}, {}
        for seed in range(seeds):
            name = f"{setting.label}_seed={seed}"
            if not (folder / name / "finished.json").is_file():
                missing.append(name)
                continue
            run = read_run(folder / name)
            proxy = proxy or run.proxy
            curves[seed] = read_curves(run.evaluations, run.per_prompt)
            outcomes[seed] = verdict_of(run, curves[seed]).outcome
        measured.append(Measured(setting=setting, proxy=proxy, curves=curves, outcomes=outcomes))
    return measured, missing


def pool(measured: Iterable[Measured], key: str, *, by_prompt: bool = False) -> Pool:
    """All trails of some settings, by seed."""
    trails: dict[int, list[Trail]] = {}
    for member in measured:
        for seed, trail in member.trails(key, by_prompt=by_prompt).items():
            trails.setdefault(seed, []).append(trail)
    return trails


def published(measured: Iterable[Measured], role: str = "") -> list[Measured]:
    """The settings without the option of a trial, all or those of one role."""
    return [member for member in measured if not member.setting.option and (not role or member.setting.role == role)]


def pools(measured: Sequence[Measured]) -> dict[str, list[Measured]]:
    """What is pooled, by its name in words; pools without settings are left out."""
    base, see = published(measured, "base"), published(measured, "see")
    named = {
        "base at any beta": base,
        "SEE": see,
        "control": [member for member in base if member.setting.controls],
        "SEE, relative": [member for member in see if "relative" in member.setting.gammas],
        "SEE, absolute": [member for member in see if "absolute" in member.setting.gammas],
    }
    return {name: members for name, members in named.items() if members}


PAIRS = (
    ("SEE", "base at any beta"),
    ("SEE", "control"),
    ("SEE, relative", "base at any beta"),
    ("SEE, absolute", "base at any beta"),
)
"""Which pools are compared; the first pair is the benchmark's question."""

WITHOUT = "the same without it"
"""What a trial is held against: its settings without the option."""

Named = tuple[str, Sequence[Measured]]
"""Some settings and their name."""


def rivals(measured: Sequence[Measured]) -> Iterator[tuple[Measured, str, Measured]]:
    """Each setting with the term beside the base method at its beta and at its temperature, with the rival's name."""
    base = {member.setting.beta: member for member in published(measured, "base")}
    for see in published(measured, "see"):
        for name, beta in (("base at its beta", see.setting.beta), ("its control", see.setting.weight)):
            if beta in base:
                yield see, name, base[beta]


def matches(measured: Sequence[Measured]) -> list[tuple[Named, Named]]:
    """What is compared with what.

    Pools; each setting with the base method at its beta and its control; each trial with the same settings without the
    option and with the base method at any beta.
    """
    named = pools(measured)
    pairs: list[tuple[Named, Named]] = [
        ((left, named[left]), (right, named[right])) for left, right in PAIRS if left in named and right in named
    ]
    pairs += [((see.setting.label, [see]), (name, [rival])) for see, name, rival in rivals(measured)]
    for option in dict.fromkeys(member.setting.option for member in measured if member.setting.option):
        tried = [member for member in measured if member.setting.option == option]
        same = {member.setting.weights for member in tried}
        twins = [member for member in published(measured) if member.setting.weights in same]
        against: tuple[Named, ...] = ((WITHOUT, twins), ("base at any beta", named["base at any beta"]))
        pairs += [((option, tried), rival) for rival in against]
    return pairs


def compare(
    measured: Sequence[Measured], *, resamples: int = RESAMPLES, progress: str | None = None
) -> list[Comparison]:
    """All comparisons of a method, see :func:`matches`; with a progress bar of that name, if one is given."""
    keys = [key for key in QUANTITIES if any(member.trails(key) for member in measured)]
    bar = tqdm(matches(measured), desc=progress, unit="comparison", disable=progress is None, file=sys.stderr)
    return [_compared(measured, left, right, key, resamples) for left, right in bar for key in keys]


def _compared(measured: Sequence[Measured], left: Named, right: Named, key: str, resamples: int) -> Comparison:
    """Left against right in one quantity."""
    by_prompt = all(member.has_prompts(key) for member in (*left[1], *right[1]))
    sides = (pool(members, key, by_prompt=by_prompt) for _, members in (left, right))
    climbs = [
        max(float(trail.proxy.max() - trail.proxy[0]) for trail in trails) for trails in pool(right[1], key).values()
    ]
    return Comparison(
        left=left[0],
        right=right[0],
        key=key,
        gap=gap_interval(*sides, resamples=resamples),
        over_prompts=by_prompt,
        scale=spread_of(measured, key),
        climb=fmean(climbs) if climbs else math.nan,
        headline=(left[0], right[0]) == PAIRS[0],
    )


def drawn(measured: Sequence[Measured], key: str, *, at: Sequence[float] = ()) -> Frontier | None:
    """The frontier of a pool over the seeds, at given proxies or at :data:`LEVELS` that all seeds reach.

    Returns:
        The frontier; ``None`` if the seeds share no proxies.
    """
    seeds = list(pool(measured, key).values())
    low = max((min(float(trail.proxy[0]) for trail in trails) for trails in seeds), default=math.inf)
    high = min((max(float(trail.proxy.max()) for trail in trails) for trails in seeds), default=-math.inf)
    if high < low:
        return None
    levels = np.array(at) if at else np.linspace(low, high, LEVELS)
    values = np.stack([frontier(trails, levels) for trails in seeds])
    return Frontier(
        proxy=tuple(levels.tolist()),
        mean=tuple(values.mean(0).tolist()),
        low=tuple(values.min(0).tolist()),
        high=tuple(values.max(0).tolist()),
    )


def spread_of(measured: Sequence[Measured], key: str) -> float:
    """Greatest minus least value of a quantity in all evaluations: the scale on which a gap is large or small."""
    values = [value for trails in pool(measured, key).values() for trail in trails for value in trail.value.tolist()]
    return max(values) - min(values) if values else math.nan


def ends(measured: Sequence[Measured]) -> Iterator[End]:
    """Where the runs end, after equally many steps: each kind of rival in the proxy and each measured quantity."""
    pairs: dict[str, list[tuple[Measured, Measured]]] = {}
    for see, name, rival in rivals(measured):
        pairs.setdefault(name, []).append((see, rival))
    for name, members in pairs.items():
        for key, words in {members[0][0].proxy: "proxy", **QUANTITIES}.items():
            by_seed = _end_by_seed(members, key)
            if by_seed:
                low, high = student_interval(list(by_seed.values()))
                scale = spread_of(measured, key)
                yield End(
                    rival=name, name=words, settings=len(members), by_seed=by_seed, low=low, high=high, scale=scale
                )


def _end_by_seed(pairs: Sequence[tuple[Measured, Measured]], key: str) -> dict[int, float]:
    lasts = [(see.last(key), rival.last(key)) for see, rival in pairs]
    seeds = sorted(set.intersection(*(left.keys() & right.keys() for left, right in lasts)))
    means = {seed: fmean(left[seed] - right[seed] for left, right in lasts) for seed in seeds}
    return {seed: mean for seed, mean in means.items() if math.isfinite(mean)}
