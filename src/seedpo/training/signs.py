"""What the alarms look for in lines of metrics: pure functions that say what is seen at the last line.

Each takes lines of one kind in the order of their steps and returns the :class:`Sign` that is seen at the last of
them, or ``None``. A figure that a line lacks, or that was not finite, is never a sign by itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from seedpo.core.entropy import clipped_loss, clipped_margin, entropy_weights
from seedpo.training.settings import RunConfig

LEAST_EVALUATIONS = 3
"""Without intervals, a fall is judged by the range of the evaluations before it, of which there must be two."""

MAD_TO_DEVIATION = 1.4826
"""Standard deviation of normal numbers, in median absolute deviations."""

SPIKE_FLOOR = 0.05
"""Nats added to the loss's usual deviation, so that a loss that is nearly constant does not spike at once."""


@dataclass(frozen=True, kw_only=True)
class Sign:
    """What is seen.

    Attributes:
        value: the number that was compared with the threshold.
        seen: what was read, in words.
    """

    value: float
    seen: str


def held_out_fell(
    lines: Sequence[Mapping[str, Any]], *, judges: Sequence[str], proxy: str | None, share: float, rising: bool
) -> Sign | None:
    """A held-out figure is clearly below its peak, and the trained reward is above (or not above) its value there.

    Args:
        lines: all evaluations.
        judges: the held-out figures; the first that fell is told.
        proxy: the figure of the trained reward.
        share: the fall that counts, in halves of the 95 % interval at the peak; without intervals, in ranges of all
            the evaluations before.
        rising: whether the trained reward must have risen since the peak; otherwise it must not have.
    """
    for judge in judges:
        known = [line for line in lines if proxy and line.get(judge) is not None and line.get(proxy) is not None]
        if proxy is None or len(known) < 2 or known[-1] is not lines[-1]:
            continue
        peak, now = max(known, key=lambda line: line[judge]), known[-1]
        scale = _scale(judge, peak, known[:-1])
        fall = peak[judge] - now[judge]
        if scale is None or fall <= share * scale or (now[proxy] > peak[proxy]) is not rising:
            continue
        return Sign(
            value=fall / scale if scale > 0 else math.inf,
            seen=f"{judge} fell from {peak[judge]:.4g} (step {peak['step']}) to {now[judge]:.4g} while the trained "
            f"reward {proxy} {'rose' if rising else 'went'} from {peak[proxy]:.4g} to {now[proxy]:.4g}",
        )
    return None


def _scale(judge: str, peak: Mapping[str, Any], before: Sequence[Mapping[str, Any]]) -> float | None:
    """What a fall is measured in."""
    low, high = peak.get(f"{judge}/low"), peak.get(f"{judge}/high")
    if low is not None and high is not None:
        return float(high - low) / 2
    values = [line[judge] for line in before]
    return float(max(values) - min(values)) if len(values) >= LEAST_EVALUATIONS - 1 else None


def lost_share(lines: Sequence[Mapping[str, Any]], *, figures: Sequence[str], share: float) -> Sign | None:
    """A figure is below its first value by more than a share of it."""
    for figure in figures:
        first = next((line[figure] for line in lines if line.get(figure) is not None), None)
        now = lines[-1].get(figure)
        if first is None or now is None or first <= 0 or now >= (1 - share) * first:
            continue
        lost = 1 - now / first
        return Sign(value=lost, seen=f"{figure} fell from {first:.4g} to {now:.4g}, by {lost:.0%}")
    return None


def mean_above(
    lines: Sequence[Mapping[str, Any]], figure: str, threshold: float, *, window: int, seen: str
) -> Sign | None:
    """A figure's mean over the window is above the threshold."""
    mean = _mean(lines, figure, window)
    if mean is None or mean <= threshold:
        return None
    return Sign(value=mean, seen=f"{seen.format(value=mean)} (mean of {window} lines)")


def inert(lines: Sequence[Mapping[str, Any]], config: RunConfig, threshold: float) -> Sign | None:
    """No margin comes near 1: none can, because of the clip, or none did for as long as the patience lasts."""
    trained = [line for line in lines if line["step"] > config.optimizer.warmup_steps]
    if not trained:
        return None
    policy_weight, reference_weight = entropy_weights(config.beta, config.gamma, convention=config.entropy_convention)
    if config.clip_range is not None and policy_weight == reference_weight:
        bound = clipped_margin(policy_weight, config.clip_range)
        if bound < threshold:
            low, high = clipped_loss(policy_weight, config.clip_range)
            return Sign(
                value=bound,
                seen=f"|m| cannot exceed {bound:.2g} at beta = {config.beta:g} and clip_range = {config.clip_range:g}, "
                f"which hold the loss in [{low:.3f}, {high:.3f}]",
            )
    margins = _last(trained, "margin_abs", config.alarms.inert.patience)
    if margins is None or max(margins) >= threshold:
        return None
    return Sign(value=max(margins), seen=f"mean |m| was at most {max(margins):.2g} for {len(margins)} lines")


def displaced(lines: Sequence[Mapping[str, Any]], threshold: float, *, window: int) -> Sign | None:
    """The accuracy is above the threshold, and the preferred images are less likely than under the reference.

    The mean log-ratio must be below 0 by more than twice its standard error over the lines of the window.
    """
    accuracy = _mean(lines, "rewards/accuracies", window)
    ratios = _last(lines, "log_ratio/chosen", window)
    if accuracy is None or ratios is None or accuracy <= threshold:
        return None
    mean = fmean(ratios)
    error = math.sqrt(fmean((ratio - mean) ** 2 for ratio in ratios) / len(ratios))
    if mean >= -2 * error:
        return None
    return Sign(
        value=accuracy,
        seen=f"{accuracy:.0%} of the pairs are ranked right, but log_ratio/chosen is {mean:.3g} (means of {window} "
        "lines)",
    )


def leapt(lines: Sequence[Mapping[str, Any]], figure: str, threshold: float, *, window: int) -> Sign | None:
    """A figure is above the median of the window before it by many robust deviations."""
    now, before = lines[-1].get(figure), _last(lines[:-1], figure, window)
    if now is None or before is None:
        return None
    middle = median(before)
    usual = MAD_TO_DEVIATION * median(abs(value - middle) for value in before) + SPIKE_FLOOR
    leap = (now - middle) / usual
    if leap <= threshold:
        return None
    return Sign(value=leap, seen=f"{figure} leapt to {now:.4g} (median of the {window} lines before: {middle:.4g})")


def _last(lines: Sequence[Mapping[str, Any]], figure: str, count: int) -> list[float] | None:
    """The last values of a figure; ``None`` if one of the last lines lacks it, or there are too few."""
    values = [line.get(figure) for line in lines[-count:]]
    known = [float(value) for value in values if value is not None]
    return known if len(known) == count else None


def _mean(lines: Sequence[Mapping[str, Any]], figure: str, count: int) -> float | None:
    values = _last(lines, figure, count)
    return None if values is None else fmean(values)
