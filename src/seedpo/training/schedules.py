"""Learning rates over a run: a linear warm-up, then a schedule, as pure functions of the step.

A schedule gives a share of the peak for a progress from 0 to 1. The shares are those of diffusers and transformers
(``get_scheduler``). Only the warm-up differs: here the first update has peak / warmup_steps, there it has a rate of 0
and moves nothing, so that a warm-up of the same length is one update ahead here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """One schedule after the warm-up.

    Attributes:
        share: share of the peak, by progress in [0, 1), power and cycles.
        keys: the settings of `optimizer` that it reads; a run that sets others is refused.
    """

    share: Callable[[float, float, int], float]
    keys: tuple[str, ...] = ()


def _cosine(progress: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * progress))


FLOOR = "final_learning_rate_share"

SCHEDULES = {
    "constant": Schedule(share=lambda progress, power, cycles: 1.0),
    "cosine": Schedule(share=lambda progress, power, cycles: _cosine(progress), keys=(FLOOR,)),
    "linear": Schedule(share=lambda progress, power, cycles: 1.0 - progress, keys=(FLOOR,)),
    "polynomial": Schedule(
        share=lambda progress, power, cycles: (1.0 - progress) ** power, keys=("schedule_power", FLOOR)
    ),
    "cosine-restarts": Schedule(
        share=lambda progress, power, cycles: _cosine(cycles * progress % 1.0), keys=("schedule_cycles", FLOOR)
    ),
}
"""By the value of the key ``optimizer.schedule``."""


def scheduled_rate(
    step: int,
    *,
    peak: float,
    warmup_steps: int,
    max_steps: int,
    schedule: str,
    power: float = 1.0,
    cycles: int = 1,
    final_share: float = 0.0,
) -> float:
    """Learning rate of update ``step``.

    It rises linearly to its peak at step ``warmup_steps`` and then follows the schedule, which starts at the peak and
    would reach its end one update after ``max_steps``: progress = (step - 1 - warmup_steps) / (max_steps -
    warmup_steps), and rate = peak (final_share + (1 - final_share) share(progress)).

    Args:
        step: number of the update, from 1 to ``max_steps``.
        peak: largest learning rate.
        warmup_steps: updates of the warm-up; 0: none.
        max_steps: updates of the run.
        schedule: a name in :data:`SCHEDULES`.
        power: exponent of `polynomial`.
        cycles: falls from the peak to the end, of `cosine-restarts`.
        final_share: where the schedule ends, as a share of the peak, in [0, 1).
    """
    if step < warmup_steps:
        return peak * step / warmup_steps
    progress = max(step - 1 - warmup_steps, 0) / max(max_steps - warmup_steps, 1)
    share = SCHEDULES[schedule].share(progress, power, cycles)
    return peak * (final_share + (1.0 - final_share) * share)
