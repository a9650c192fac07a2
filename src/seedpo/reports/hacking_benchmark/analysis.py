"""From run folders to frontiers and the gaps between them."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from seedpo.core.stats.frontiers import GapInterval, Trail, frontier, gap_interval
from seedpo.reports.curves import Curves, Point, read_curves
from seedpo.reports.runs import read_run
from seedpo.training.sweeps.hacking_grid import Setting

QUANTITIES: Mapping[str, str] = {
    "truth": "truth",
    "free_spread": "free spread",
    "free_spread_right": "free spread of right images",
    "pairwise_diversity": "pairwise diversity",
}
"""What is wanted, higher is better: key in the metrics, and name."""

LEVELS = 40
"""Proxies at which frontiers are drawn."""

RESAMPLES = 400
"""Bootstrap resamples behind each interval: there are some forty comparisons."""

Pool = Mapping[int, Sequence[Trail]]
"""The trails of each seed."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One setting and what its runs came to.

    Attributes:
        setting: the configuration.
        proxy: key of the optimised reward.
        curves: the evaluations of each seed.
    """

    setting: Setting
    proxy: str
    curves: Mapping[int, Curves]

    def trails(self, key: str, *, by_prompt: bool = False) -> dict[int, Trail]:
        """Proxy and value at each evaluation that has both, by seed; seeds without any are left out.

        Args:
            key: the quantity.
            by_prompt: every prompt by itself; see :meth:`has_prompts`.
        """
        found = {}
        for seed, points in self._points(key).items():
            if by_prompt:
                rows = [[point.per_prompt.values for point in pair if point.per_prompt] for pair in points]
                found[seed] = Trail.of([row[0] for row in rows], [row[1] for row in rows])
            else:
                found[seed] = Trail.of([proxy.value for proxy, _ in points], [value.value for _, value in points])
        return found

    def has_prompts(self, key: str) -> bool:
        """Whether proxy and value are known for every prompt at every evaluation, as means over the prompts are."""
        pairs = [pair for points in self._points(key).values() for pair in points]
        kept = [point.per_prompt for pair in pairs for point in pair]
        return bool(kept) and all(one is not None and not any(map(math.isnan, one.values)) for one in kept)

    def _points(self, key: str) -> dict[int, list[tuple[Point, Point]]]:
        """Proxy and value at each evaluation that has both, by seed."""
        found = {}
        for seed, curves in self.curves.items():
            if self.proxy in curves and key in curves:
                proxy, value = curves[self.proxy], curves[key]
                points = [(proxy[step], value[step]) for step in proxy.steps if step in value.steps]
                if points:
                    found[seed] = points
        return found


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One pool against another in one quantity.

    Attributes:
        left, right: what is compared, in words.
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
        widths = [one.high - one.low for one in self.gap.by_seed.values()]
        return sum(widths) / len(widths) / self.climb if widths and self.climb > 0 else math.nan


@dataclass(frozen=True, kw_only=True)
class Frontier:
    """A frontier over the proxies that all its seeds reach: mean, least and greatest over the seeds."""

    proxy: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def read_measured(folder: Path, settings: Sequence[Setting], *, seeds: int) -> tuple[list[Measured], list[str]]:
    """The finished runs of one method, and the names of those that are missing.

    Args:
        folder: of the method's runs.
        settings: what was to be trained.
        seeds: with seeds 0 to this, exclusive.
    """
    measured, missing = [], []
    for setting in settings:
        curves, proxy = {}, ""
        for seed in range(seeds):
            name = f"{setting.label}_seed={seed}"
            if not (folder / name / "finished.json").is_file():
                missing.append(name)
                continue
            run = read_run(folder / name)
            proxy = proxy or f"reward/{run.rewards[0]}"
            curves[seed] = read_curves(run.evaluations, run.per_prompt)
        measured.append(Measured(setting=setting, proxy=proxy, curves=curves))
    return measured, missing


def pool(measured: Iterable[Measured], key: str, *, by_prompt: bool = False) -> Pool:
    """All trails of some settings, by seed."""
    found: dict[int, list[Trail]] = {}
    for one in measured:
        for seed, trail in one.trails(key, by_prompt=by_prompt).items():
            found.setdefault(seed, []).append(trail)
    return found


def pools(measured: Sequence[Measured]) -> dict[str, list[Measured]]:
    """What is pooled, by its name in words; pools without settings are left out."""
    published = [one for one in measured if not one.setting.option]
    base = [one for one in published if one.setting.role == "base"]
    see = [one for one in published if one.setting.role == "see"]
    named = {
        "base at any beta": base,
        "SEE": see,
        "control": [one for one in base if one.setting.controls],
        "SEE, relative": [one for one in see if "relative" in one.setting.gammas],
        "SEE, absolute": [one for one in see if "absolute" in one.setting.gammas],
    }
    return {name: found for name, found in named.items() if found}


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
"""Some settings and what they are called."""


def rivals(measured: Sequence[Measured]) -> Iterator[tuple[Measured, str, Measured]]:
    """Each setting with the term beside the base method at its beta and at its temperature, with the rival's name."""
    published = [one for one in measured if not one.setting.option]
    base = {one.setting.beta: one for one in published if one.setting.role == "base"}
    for one in published:
        if one.setting.role == "see":
            for name, beta in (("base at its beta", one.setting.beta), ("its control", one.setting.weight)):
                if beta in base:
                    yield one, name, base[beta]


def matches(measured: Sequence[Measured]) -> list[tuple[Named, Named]]:
    """What is compared with what.

    Pools; each setting with the base method at its beta and its control; each trial with the same settings without the
    option and with the base method at any beta.
    """
    named = pools(measured)
    found: list[tuple[Named, Named]] = [
        ((left, named[left]), (right, named[right])) for left, right in PAIRS if left in named and right in named
    ]
    found += [((see.setting.label, [see]), (name, [rival])) for see, name, rival in rivals(measured)]
    published = [one for one in measured if not one.setting.option]
    for option in dict.fromkeys(one.setting.option for one in measured if one.setting.option):
        tried = [one for one in measured if one.setting.option == option]
        same = {(one.setting.role, one.setting.beta, one.setting.weight) for one in tried}
        twins = [one for one in published if (one.setting.role, one.setting.beta, one.setting.weight) in same]
        against: tuple[Named, ...] = ((WITHOUT, twins), ("base at any beta", named["base at any beta"]))
        found += [((option, tried), rival) for rival in against]
    return found


def compare(
    measured: Sequence[Measured], *, resamples: int = RESAMPLES, progress: str | None = None
) -> list[Comparison]:
    """All comparisons of a method, see :func:`matches`; with a progress bar of that name, if one is given."""
    found = matches(measured)
    bar = tqdm(found, desc=progress, unit="comparison", disable=progress is None, file=sys.stderr)
    return [one for left, right in bar for one in _compared(measured, left, right, resamples)]


def _compared(measured: Sequence[Measured], left: Named, right: Named, resamples: int) -> list[Comparison]:
    """Left against right in each quantity."""
    found = []
    for key in (key for key in QUANTITIES if any(one.trails(key) for one in measured)):
        rival = pool(right[1], key)
        by_prompt = all(one.has_prompts(key) for one in (*left[1], *right[1]))
        climbs = [max(float(one.proxy.max() - one.proxy[0]) for one in trails) for trails in rival.values()]
        found.append(
            Comparison(
                left=left[0],
                right=right[0],
                key=key,
                gap=gap_interval(
                    *(pool(one[1], key, by_prompt=by_prompt) for one in (left, right)), resamples=resamples
                ),
                over_prompts=by_prompt,
                scale=spread_of(measured, key),
                climb=sum(climbs) / len(climbs) if climbs else math.nan,
                headline=(left[0], right[0]) == PAIRS[0],
            )
        )
    return found


def drawn(measured: Sequence[Measured], key: str, *, at: Sequence[float] = ()) -> Frontier | None:
    """The frontier of a pool over the seeds, at given proxies or at :data:`LEVELS` that all seeds reach.

    Returns:
        The frontier; nothing if the seeds share no proxies.
    """
    trails = [found for found in pool(measured, key).values() if found]
    if not trails:
        return None
    low = max(min(float(one.proxy[0]) for one in found) for found in trails)
    high = min(max(float(one.proxy.max()) for one in found) for found in trails)
    if high < low:
        return None
    levels = np.array(at) if at else np.linspace(low, high, LEVELS)
    values = np.stack([frontier(found, levels) for found in trails])
    return Frontier(
        proxy=tuple(levels.tolist()),
        mean=tuple(values.mean(0).tolist()),
        low=tuple(values.min(0).tolist()),
        high=tuple(values.max(0).tolist()),
    )


def spread_of(measured: Sequence[Measured], key: str) -> float:
    """Greatest minus least value of a quantity in all evaluations: the scale on which a gap is large or small."""
    values = [value for trails in pool(measured, key).values() for one in trails for value in one.value.tolist()]
    return max(values) - min(values) if values else math.nan


def last(one: Measured, key: str) -> float:
    """Mean over the seeds of the last value; NaN where there is none."""
    values = last_by_seed(one, key).values()
    return sum(values) / len(values) if values else math.nan


def last_by_seed(one: Measured, key: str) -> dict[int, float]:
    """The last value of each seed that has one."""
    return {seed: curves[key].values[-1] for seed, curves in one.curves.items() if key in curves and curves[key].values}
