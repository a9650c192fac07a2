"""Where the runs end: the entropy term against its control and against the base method, after equally many steps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from seedpo.core.stats.student import student_interval
from seedpo.reports.hacking_benchmark.analysis import QUANTITIES, Measured, last_by_seed, rivals


@dataclass(frozen=True, kw_only=True)
class End:
    """All settings with the term against one kind of rival, at the last evaluation.

    Attributes:
        rival: what each is held against, in words.
        name: the quantity, in words.
        settings: how many there are.
        by_seed: SEE minus rival in each seed, mean over the settings; seeds that miss a run are left out.
        low, high: 95 % interval of Student's t over the seeds; NaN with fewer than two.
    """

    rival: str
    name: str
    settings: int
    by_seed: Mapping[int, float]
    low: float
    high: float

    @property
    def mean(self) -> float:
        """Over the seeds; NaN without any."""
        return sum(self.by_seed.values()) / len(self.by_seed) if self.by_seed else math.nan

    @property
    def sign(self) -> int:
        """1 or -1 if the interval lies above or below 0, else 0."""
        return int(self.low > 0) - int(self.high < 0)


def ends(measured: Sequence[Measured]) -> Iterator[End]:
    """Each kind of rival in the proxy and each quantity that was measured."""
    pairs: dict[str, list[tuple[Measured, Measured]]] = {}
    for see, name, rival in rivals(measured):
        pairs.setdefault(name, []).append((see, rival))
    for name, found in pairs.items():
        for key, words in {found[0][0].proxy: "proxy", **QUANTITIES}.items():
            by_seed = _by_seed(found, key)
            if by_seed:
                low, high = student_interval(list(by_seed.values()))
                yield End(rival=name, name=words, settings=len(found), by_seed=by_seed, low=low, high=high)


def _by_seed(pairs: Sequence[tuple[Measured, Measured]], key: str) -> dict[int, float]:
    differences = []
    for see, rival in pairs:
        left, right = last_by_seed(see, key), last_by_seed(rival, key)
        differences.append({seed: left[seed] - right[seed] for seed in left.keys() & right.keys()})
    seeds = sorted(set.intersection(*map(set, differences)))
    means = {seed: sum(one[seed] for one in differences) / len(differences) for seed in seeds}
    return {seed: mean for seed, mean in means.items() if math.isfinite(mean)}
