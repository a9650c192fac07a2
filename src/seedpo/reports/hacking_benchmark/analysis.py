"""Which settings of the benchmark are held against which, at equal proxy and at the last step."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from tqdm import tqdm

from seedpo.core.stats.classical import student_interval
from seedpo.core.verdicts import Difference, Outcome, difference_of, matters, shared_outcome
from seedpo.pages.wording import is_interval
from seedpo.reports.curves import read_curves
from seedpo.reports.families import verdict_of
from seedpo.reports.frontier.comparisons import LEAST_SEEDS, RESAMPLES, Comparison, compared, scales
from seedpo.reports.frontier.series import Series, spread_of
from seedpo.reports.runs import read_run
from seedpo.training.sweeps.hacking_grid import Setting

QUANTITIES: Mapping[str, str] = {
    "truth": "truth",
    "free_spread": "free spread",
    "free_spread_right": "free spread of right images",
    "pairwise_diversity": "pairwise diversity",
}
"""What the benchmark asks about, higher is better: key in the metrics, and name."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One setting and the results of its runs.

    Attributes:
        setting: the configuration.
        series: its evaluations.
        outcomes: the verdict on reward hacking of each seed.
    """

    setting: Setting
    series: Series
    outcomes: Mapping[int, Outcome]

    @property
    def outcome(self) -> Outcome:
        """What more than half of the seeds show."""
        return shared_outcome(list(self.outcomes.values()))


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
        series = Series(label=setting.label, proxy=proxy, curves=curves)
        measured.append(Measured(setting=setting, series=series, outcomes=outcomes))
    return measured, missing


def published(measured: Iterable[Measured], role: str = "") -> list[Measured]:
    """The settings without the option of a trial, all or those of one role."""
    return [member for member in measured if not member.setting.option and (not role or member.setting.role == role)]


def series_of(measured: Iterable[Measured]) -> list[Series]:
    """The evaluations of some settings."""
    return [member.series for member in measured]


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
    keys = [key for key in QUANTITIES if any(member.series.trails(key) for member in measured)]
    scale = scales(series_of(measured), keys)
    bar = tqdm(matches(measured), desc=progress, unit="comparison", disable=progress is None, file=sys.stderr)
    return [
        compared(
            (left, series_of(ours)),
            (right, series_of(theirs)),
            key,
            scale=scale[key],
            resamples=resamples,
            headline=(left, right) == PAIRS[0],
        )
        for (left, ours), (right, theirs) in bar
        for key in keys
    ]


def ends(measured: Sequence[Measured]) -> Iterator[End]:
    """Where the runs end, after equally many steps: each kind of rival in the proxy and each measured quantity."""
    pairs: dict[str, list[tuple[Measured, Measured]]] = {}
    for see, name, rival in rivals(measured):
        pairs.setdefault(name, []).append((see, rival))
    for name, members in pairs.items():
        for key, words in {members[0][0].series.proxy: "proxy", **QUANTITIES}.items():
            by_seed = _end_by_seed(members, key)
            if by_seed:
                low, high = student_interval(list(by_seed.values()))
                scale = spread_of(series_of(measured), key)
                yield End(
                    rival=name, name=words, settings=len(members), by_seed=by_seed, low=low, high=high, scale=scale
                )


def _end_by_seed(pairs: Sequence[tuple[Measured, Measured]], key: str) -> dict[int, float]:
    lasts = [(see.series.last(key), rival.series.last(key)) for see, rival in pairs]
    seeds = sorted(set.intersection(*(left.keys() & right.keys() for left, right in lasts)))
    means = {seed: fmean(left[seed] - right[seed] for left, right in lasts) for seed in seeds}
    return {seed: mean for seed, mean in means.items() if math.isfinite(mean)}
