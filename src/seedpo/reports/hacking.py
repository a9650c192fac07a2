"""Reward hacking, read off two curves: the proxy still rises while the truth falls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from seedpo.reports.contrasts import apart, paired
from seedpo.reports.settings import Curve, Family, Point, Setting
from seedpo.reports.wording import count, interval, number

LEAST_EVALUATIONS = 3
SMALL_FALL = 0.1
"""Without intervals, a fall below this share of the curve's range is called unclear."""

HackingVerdict = Literal["yes", "no", "unclear", "collapse", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Hacking:
    """What became of truth and proxy in one setting.

    Attributes:
        verdict: ``collapse`` if both fell; ``unknown`` if too little was measured.
        peak: step at which truth was highest.
        text: the finding in one or two sentences.
    """

    verdict: HackingVerdict
    peak: int
    text: str


def hacking(family: Family, setting: Setting) -> Hacking:
    """Says how far the proxy rose, where truth peaked and what it did afterwards."""
    curves, judge = setting.curves, family.judge_name
    if family.proxy not in curves or family.judge not in curves:
        missing = judge if family.judge not in curves else "the proxy"
        return Hacking(
            verdict="unknown", peak=0, text=f"{missing} was not measured, so reward hacking cannot be judged."
        )
    proxy, truth = curves[family.proxy], curves[family.judge]
    steps = [step for step in truth.steps if step in proxy.steps]
    if len(steps) < LEAST_EVALUATIONS:
        text = f"{count(len(steps), 'evaluation')} only: too few to see where {judge} turns."
        return Hacking(verdict="unknown", peak=steps[0] if steps else 0, text=text)
    peak = max(steps, key=lambda step: truth[step].value)
    verdict = _verdict(truth, proxy, peak, steps[-1])
    start, last = proxy[steps[0]].value, proxy[steps[-1]].value
    opening = f"the proxy goes from {number(start)} to {number(last)} in {steps[-1]} steps"
    return Hacking(verdict=verdict, peak=peak, text=f"{opening}; {_ending(judge, truth, proxy, peak, steps, verdict)}")


def _verdict(truth: Curve, proxy: Curve, peak: int, last: int) -> HackingVerdict:
    if peak == last or truth[last].value == truth[peak].value:
        return "no"
    if not _clear(truth, truth[peak], truth[last]):
        return "unclear"
    proxy_fell = proxy[last].value < proxy[peak].value and _clear(proxy, proxy[peak], proxy[last])
    return "collapse" if proxy_fell else "yes"


def _clear(curve: Curve, left: Point, right: Point) -> bool:
    separate = apart(left, right)
    if separate is None:
        return abs(left.value - right.value) > SMALL_FALL * (max(curve.values) - min(curve.values))
    return separate


def _ending(judge: str, truth: Curve, proxy: Curve, peak: int, steps: list[int], verdict: HackingVerdict) -> str:
    last = steps[-1]
    top, end = truth[peak], truth[last]
    if verdict == "no":
        return (
            f"{judge} is highest at the last evaluation ({number(truth[steps[0]].value)} at the start, "
            f"{number(end.value)} at step {last}): no reward hacking is seen in these steps."
        )
    where = "is highest before training" if peak == steps[0] else f"peaks at step {peak}"
    low = min((step for step in steps if step >= peak), key=lambda step: truth[step].value)
    depth = "" if low == last else f" (lowest: {number(truth[low].value)} at step {low})"
    fall = f"falls by {number(top.value - end.value)} to {_shown(end)} at step {last}{depth}"
    drop = paired(top, end)
    over = f" (paired over {drop.count} prompts: {interval(drop.low, drop.high)})" if drop else ""
    then = f"{judge} {where} at {_shown(top)} and {fall}{over}"
    further = proxy[last].value - proxy[peak].value
    moved = f"while the proxy gains another {number(further)}" if further > 0 else "while the proxy stays where it was"
    ends = {
        "yes": f", {moved}: reward hacking.",
        "collapse": f", and the proxy falls too (by {number(-further)}): instability rather than reward hacking.",
        "unclear": ", a fall whose paired interval includes 0: reward hacking is not shown."
        if drop
        else ", a fall that lies within the intervals: reward hacking is not shown."
        if top.has_interval and end.has_interval
        else ", a small fall without intervals to judge it by: reward hacking is not shown.",
    }
    return then + ends[verdict]


def _shown(point: Point) -> str:
    return f"{number(point.value)} {interval(point.low, point.high)}".rstrip()


def worst_step(family: Family, setting: Setting | None) -> int | None:
    """The step at which truth lies furthest below its earlier peak; nothing if it never falls."""
    truth = setting.curves.get(family.judge) if setting else None
    if truth is None or not truth.steps:
        return None
    best, worst, depth = truth.values[0], None, 0.0
    for step, value in zip(truth.steps, truth.values, strict=True):
        best = max(best, value)
        if best - value > depth:
            worst, depth = step, best - value
    return worst
