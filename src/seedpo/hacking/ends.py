"""Where the runs end: the entropy term against its control and against the base method, after equally many steps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from seedpo.hacking.analysis import QUANTITIES, Measured, rivals
from seedpo.stats.student import student_interval


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
    found = {}
    for seed in sorted(pairs[0][0].curves):
        values = [(_last(see, key, seed), _last(rival, key, seed)) for see, rival in pairs]
        mean = sum(left - right for left, right in values) / len(values)
        if math.isfinite(mean):
            found[seed] = mean
    return found


def _last(one: Measured, key: str, seed: int) -> float:
    """NaN if there is none."""
    curve = one.curves.get(seed, {}).get(key)
    return curve.values[-1] if curve is not None and curve.values else math.nan
