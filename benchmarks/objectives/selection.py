"""Which trial of a search is trained again with other seeds; fixed before anything was trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

ALLOWANCE = 0.05
"""Loss of prompt accuracy that a trial may have: about one standard error of the difference over 48 images."""

Result = Mapping[str, Any]
"""What :func:`benchmarks.objectives.running.run_task` gives."""


def chosen(trials: Sequence[Result]) -> int | None:
    """The trial with the highest proxy at its end, of those that still draw what the prompt names.

    A user can measure both without knowing the truth. Accuracy may be lower than before training by at most
    :data:`ALLOWANCE`. Where it is lower in every trial, the one with the highest accuracy is chosen.

    Returns:
        Its index; `None` if every trial diverged.
    """
    ends = {index: trial["lines"][-1] for index, trial in enumerate(trials) if not trial.get("failure")}
    if not ends:
        return None
    least = trials[next(iter(ends))]["lines"][0]["attribute_accuracy"] - ALLOWANCE
    sound = [index for index, end in ends.items() if end["attribute_accuracy"] >= least - 1e-9]
    if sound:
        return max(sound, key=lambda index: ends[index]["proxy"])
    return max(ends, key=lambda index: ends[index]["attribute_accuracy"])


def by_truth(trials: Sequence[Result]) -> int | None:
    """The trial with the most truth at its end: what nobody can choose who does not know the truth."""
    ends = {index: trial["lines"][-1] for index, trial in enumerate(trials) if not trial.get("failure")}
    return max(ends, key=lambda index: ends[index]["truth"]) if ends else None
