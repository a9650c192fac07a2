"""One pool of settings against another at equal proxy, and the evidence in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from seedpo.core.stats.frontiers import GapInterval, first_reached, frontier, gap_interval
from seedpo.core.verdicts import Difference, difference_of, matters
from seedpo.pages.wording import interval, is_interval, listing, number, signed
from seedpo.reports.frontier.series import Series, pool, spread_of

RESAMPLES = 400
"""Bootstrap resamples behind each interval: there may be some forty comparisons."""

LEAST_SEEDS = 3
"""With fewer seeds nothing is shown of other seeds: with two, both intervals rest on a single difference."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One pool against another in one quantity.

    Attributes:
        left, right: the pools, in words.
        key: the quantity.
        gap: left minus right.
        scale: range of the quantity in all evaluations.
        climb: how far the proxy rises in the right pool, mean over its seeds.
        headline: whether it answers the page's question.
        over_prompts: whether the bootstrap draws prompts.
        over_seeds: whether it draws seeds, so that the interval holds for other seeds too.
        reached: left minus right where each first reaches a proxy, if that must agree for a gap to be shown. A frontier
            is a best value, which favours the pool with more evaluations among the common proxies: the slower one.
    """

    left: str
    right: str
    key: str
    gap: GapInterval
    scale: float = math.nan
    climb: float = math.nan
    headline: bool = False
    over_prompts: bool = False
    over_seeds: bool = True
    reached: GapInterval | None = None

    @property
    def covered(self) -> float:
        """Share of the right pool's climb that the common range of proxies covers, mean over the seeds; NaN if none."""
        widths = [gap.high - gap.low for gap in self.gap.by_seed.values()]
        return fmean(widths) / self.climb if widths and self.climb > 0 else math.nan

    @property
    def verdict(self) -> Difference:
        """What the left pool has: more or less only where the gap matters and its intervals lie on one side of 0."""
        seeds = len(self.gap.by_seed)
        enough = seeds >= LEAST_SEEDS or not self.over_seeds
        certain = is_interval(self.gap.low, self.gap.high) and enough
        shown = certain and matters(abs(self.gap.mean), scale=self.scale)
        agreed = self.reached is None or self.reached.sign == self.gap.sign
        return difference_of(self.gap.sign, shown=shown and agreed) if seeds else Difference.NOT_COMPARABLE


Named = tuple[str, Sequence[Series]]
"""Some settings and their name."""


def compared(
    left: Named,
    right: Named,
    key: str,
    *,
    scale: float,
    resamples: int = RESAMPLES,
    headline: bool = False,
    over_seeds: bool = True,
    reached: bool = False,
) -> Comparison:
    """Left against right in one quantity, within each seed that both have.

    Args:
        left, right: the pools.
        key: the quantity.
        scale: see :func:`seedpo.reports.frontier.series.spread_of`.
        resamples: of the bootstrap.
        headline: whether it answers the page's question.
        over_seeds: whether the interval is to hold for other seeds; else it holds for these very runs, over prompts.
        reached: whether the values where a proxy is first reached must agree, too.
    """
    by_prompt = all(member.has_prompts(key) for member in (*left[1], *right[1]))
    sides = [pool(members, key, by_prompt=by_prompt) for _, members in (left, right)]
    gaps = [
        gap_interval(*sides, resamples=resamples, over_seeds=over_seeds, height=height)
        for height in (frontier, *([first_reached] if reached else []))
    ]
    climbs = [
        max(float(trail.proxy.max() - trail.proxy[0]) for trail in trails) for trails in pool(right[1], key).values()
    ]
    return Comparison(
        left=left[0],
        right=right[0],
        key=key,
        gap=gaps[0],
        reached=gaps[1] if reached else None,
        over_prompts=by_prompt,
        over_seeds=over_seeds,
        scale=scale,
        climb=fmean(climbs) if climbs else math.nan,
        headline=headline,
    )


def scales(members: Sequence[Series], keys: Sequence[str]) -> dict[str, float]:
    """The range of each quantity in all evaluations."""
    return {key: spread_of(members, key) for key in keys}


def evidence(comparison: Comparison) -> str:
    """The mean gap with its intervals and seeds, in words."""
    gap, amount = comparison.gap, len(comparison.gap.by_seed)
    if not amount:
        return "no seed has proxies that both reach"
    text = (
        f"mean gap {signed(gap.mean)}, {_share(gap.mean, comparison.scale)} of its range in all runs, over "
        f"{_share(comparison.covered, 1.0)} of the other's climb in proxy"
    )
    missing = f"; no common proxies in seed {listing([str(seed) for seed in gap.without])}" if gap.without else ""
    if comparison.reached is not None:
        first = comparison.reached
        missing += f"; where first reached {signed(first.mean)} {interval(first.low, first.high)}".rstrip()
    if not comparison.over_seeds:
        runs = "one seed" if amount == 1 else f"{amount} seeds"
        width = interval(gap.low, gap.high)
        over = f"bootstrap over prompts {width}" if width else "no values by prompt, so no interval"
        return f"{text}; {over}; {runs}, so nothing is said of other seeds{missing}"
    if amount == 1:
        return f"{text}; one seed, so no interval"
    higher = sum(member.mean > 0 for member in gap.by_seed.values())
    few = "" if amount >= LEAST_SEEDS else f"; {amount} seeds are too few to show anything"
    return (
        f"{text}; bootstrap {interval(gap.low, gap.high)}, Student's t {interval(gap.t_low, gap.t_high)}, "
        f"higher in {higher} of {amount} seeds{missing}{few}"
    )


def _share(part: float, whole: float) -> str:
    """A part as a percentage of the whole; a dash where there is no whole."""
    return f"{number(100 * abs(part) / whole if whole > 0 else math.nan)} %"
