"""What the alarms look for in lines of metrics: pure functions of the lines up to the last one.

Each takes lines of one kind in the order of their steps and returns the :class:`Sign` at the last of them, or ``None``.
A figure that a line lacks, or that was not finite, is never a sign by itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

from seedpo.core.entropy import clipped_margin
from seedpo.core.losses import clipped_loss
from seedpo.core.verdicts import Evaluation, Outcome, Reading, Rule, judge_run
from seedpo.documents import UNREADABLE, read_json
from seedpo.training.settings import RunConfig

BY_PROMPT = "by_prompt"
"""Key under which a line of an evaluation holds the values of every prompt, by figure, where they are known."""

MAD_TO_DEVIATION = 1.4826
"""Standard deviation of normal numbers, in median absolute deviations."""

SPIKE_FLOOR = 0.05
"""Nats added to the loss's usual deviation, which keeps an almost constant loss from spiking at once."""


@dataclass(frozen=True, kw_only=True)
class Sign:
    """What is seen.

    Attributes:
        value: the number that was compared with the threshold.
        seen: what was read, in words.
    """

    value: float
    seen: str


def held_out_keys(rewards: Sequence[str], metrics: Sequence[str], named: Sequence[str] | None) -> tuple[str, ...]:
    """Keys of the figures that are not trained on, as the lines of metrics have them.

    Args:
        rewards: ``evaluation.rewards``; the first one stands for the trained reward.
        metrics: ``evaluation.metrics``.
        named: ``alarms.held_out_rewards``; ``None``: all rewards but the first, and the metric ``truth``.
    """
    names = (*rewards[1:], *(name for name in metrics if name == "truth")) if named is None else named
    return tuple(f"reward/{name}" if name in rewards else name for name in names)


def verdict_rule(thresholds: Mapping[str, float | None]) -> Rule:
    """The rule by which a run is judged; an alarm that is switched off counts with its default.

    Args:
        thresholds: of the alarms ``hacking`` and ``collapse``.
    """
    return Rule(**{name: 1.0 if value is None else value for name, value in thresholds.items()})


def held_out_fell(
    lines: Sequence[Mapping[str, Any]], *, judges: Sequence[str], proxy: str | None, rule: Rule, outcome: Outcome
) -> Sign | None:
    """The verdict on the run at the last line is ``outcome``; :mod:`seedpo.core.verdicts` states the rule.

    Args:
        lines: all evaluations; those with :data:`BY_PROMPT` are compared prompt by prompt.
        judges: the held-out figures.
        proxy: the figure of the trained reward.
        rule: thresholds.
        outcome: hacking or collapse.
    """
    evaluations = [
        Evaluation(step=int(line["step"]), figures=_readings(line, (*judges, proxy) if proxy else judges))
        for line in lines
    ]
    verdict = judge_run(evaluations, proxy=proxy, judges=judges, rule=rule)
    if verdict.outcome is not outcome:
        return None
    moved = verdict.proxy_last - verdict.proxy_peak
    return Sign(
        value=verdict.size,
        seen=f"{verdict.judge} fell from {verdict.judge_peak:.4g} (step {verdict.peak_step}) to "
        f"{verdict.judge_last:.4g} while the trained reward {verdict.proxy} {'rose' if moved > 0 else 'went'} from "
        f"{verdict.proxy_peak:.4g} to {verdict.proxy_last:.4g}",
    )


def _readings(line: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Reading]:
    readings = {key: Reading.of(line, key, line.get(BY_PROMPT)) for key in keys}
    return {key: reading for key, reading in readings.items() if reading is not None}


def values_by_prompt(path: Path) -> dict[str, tuple[float, ...]]:
    """Values of every prompt by figure, as an evaluation stores them; NaN where there is none, empty if unreadable."""
    try:
        content = read_json(path)
    except UNREADABLE:
        return {}
    rows = content.items() if isinstance(content, dict) else ()
    return {
        key: tuple(float(value) if isinstance(value, int | float) else math.nan for value in row)
        for key, row in rows
        if isinstance(row, list)
    }


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
    trained = [line for line in lines if line["step"] > config.optimizer.warmup_steps and "margin_abs" in line]
    if not trained:
        return None
    policy_weight, reference_weight = config.weights
    if config.clip_range is not None and policy_weight == reference_weight:
        bound = clipped_margin(policy_weight, config.clip_range)
        if bound < threshold:
            low, high = clipped_loss(
                policy_weight, config.clip_range, loss=config.loss, constants=config.objective.loss_constants
            )
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


def winner_error_grew(lines: Sequence[Mapping[str, Any]], threshold: float, *, count: int) -> Sign | None:
    """The policy's error on the preferred images is above the reference's by more than a share of it.

    Both are means over the last ``count`` lines, in which policy and reference saw the same times and noises.
    """
    policy, reference = (_mean(lines, f"error/{who}_chosen", count) for who in ("policy", "reference"))
    if policy is None or reference is None or reference <= 0 or policy <= (1 + threshold) * reference:
        return None
    return Sign(
        value=policy / reference - 1,
        seen=f"the error on preferred images is {policy:.3g}, under the reference {reference:.3g} (means of {count} "
        "lines)",
    )


def loss_spiked(lines: Sequence[Mapping[str, Any]], figure: str, threshold: float, *, window: int) -> Sign | None:
    """A figure is above the median of the window before it by many robust deviations."""
    now, before = lines[-1].get(figure), _last(lines[:-1], figure, window)
    if now is None or before is None:
        return None
    middle = median(before)
    usual = MAD_TO_DEVIATION * median(abs(value - middle) for value in before) + SPIKE_FLOOR
    leap = (now - middle) / usual
    if leap <= threshold:
        return None
    return Sign(value=leap, seen=f"{figure} jumped to {now:.4g} (median of the {window} lines before: {middle:.4g})")


def _last(lines: Sequence[Mapping[str, Any]], figure: str, count: int) -> list[float] | None:
    """The last values of a figure; ``None`` if one of the last lines lacks it, or there are too few."""
    values = [line.get(figure) for line in lines[-count:]]
    known = [float(value) for value in values if value is not None]
    return known if len(known) == count else None


def _mean(lines: Sequence[Mapping[str, Any]], figure: str, count: int) -> float | None:
    values = _last(lines, figure, count)
    return None if values is None else fmean(values)
