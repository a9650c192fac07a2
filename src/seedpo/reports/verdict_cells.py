"""Verdicts on runs as cells of tables: of one run with their half-widths, of several seeds as means."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from seedpo.core.verdicts import Outcome, Verdict
from seedpo.pages.tables import Badge, Cell, Tone
from seedpo.pages.wording import number, signed

OUTCOME_TONES: dict[Outcome, Tone] = {
    Outcome.LEARNING: "good",
    Outcome.HEALTHY: "good",
    Outcome.HACKING: "bad",
    Outcome.COLLAPSE: "bad",
}


def outcome_badge(outcome: Outcome, verdicts: Sequence[Verdict], *, after: str = "") -> Badge:
    """The outcome of a setting, and how many of its seeds have it.

    Args:
        outcome: of more than half of the seeds.
        verdicts: one for each seed.
        after: words behind the outcome.
    """
    agree = sum(verdict.outcome is outcome for verdict in verdicts)
    seeds = f" ({agree} of {len(verdicts)} seeds)" if len(verdicts) > 1 else ""
    return Badge(text=f"{outcome}{after}{seeds}", tone=OUTCOME_TONES.get(outcome, "open"))


def mean_text(verdicts: Sequence[Verdict], figure: str) -> str:
    """The mean of a figure over the seeds."""
    return number(fmean(getattr(verdict, figure) for verdict in verdicts))


def value_cell(verdicts: Sequence[Verdict], when: str) -> Cell:
    """The held-out figure at its ``first``, ``peak`` or ``last`` evaluation, and the step of that."""
    steps = sorted({getattr(verdict, f"{when}_step") for verdict in verdicts})
    small = f"step {steps[0]}{f' to {steps[-1]}' if len(steps) > 1 else ''}"
    return Cell(text=mean_text(verdicts, f"judge_{when}"), small=(small,))


def fall_cell(verdicts: Sequence[Verdict]) -> Cell:
    """How far the held-out figure fell from its peak."""
    paired = ", paired" if verdicts[0].paired else ""
    return _change_cell(mean_text(verdicts, "fall"), verdicts, verdicts[0].fall, verdicts[0].half, paired)


def rise_cell(verdicts: Sequence[Verdict]) -> Cell:
    """How far the held-out figure ends above its start."""
    text = signed(fmean(verdict.rise for verdict in verdicts))
    return _change_cell(text, verdicts, verdicts[0].rise, verdicts[0].rise_half)


def _change_cell(text: str, verdicts: Sequence[Verdict], change: float, half: float, more: str = "") -> Cell:
    if len(verdicts) > 1:
        return Cell(text=text, small=("mean over seeds",))
    known = change != 0 and half > 0 and math.isfinite(half)
    return Cell(text=text, small=(f"\N{PLUS-MINUS SIGN} {number(half)}{more}",) if known else ())
