"""Lines of metrics as a run writes them, made up: healthy unless told otherwise."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Change = Mapping[str, Callable[[int], float]]


def training(steps: int, change: Change | None = None, *, first: int = 1) -> list[dict[str, Any]]:
    """Lines of a healthy run: margins grow to about 0.5, the accuracy to about 0.7, the loss wavers."""
    noise = random.Random(7)
    lines = []
    for step in range(first, first + steps):
        grown = min(step / 40, 1.0)
        figures = {
            "loss": 0.693 - 0.05 * grown + noise.gauss(0, 0.03),
            "rewards/accuracies": 0.5 + 0.2 * grown + noise.gauss(0, 0.05),
            "margin_abs": 0.5 * grown + noise.uniform(0, 0.02),
            "saturated": 0.02,
            "clipped": 0.1,
            "log_ratio/chosen": 0.01 * grown + noise.gauss(0, 0.003),
        }
        figures |= {name: function(step) for name, function in (change or {}).items()}
        lines.append({"step": step, "kind": "train", **figures})
    return lines


def evaluations(
    held_out: Sequence[float],
    proxy: Sequence[float],
    *,
    half: float | None = 0.3,
    diversity: Sequence[float] | None = None,
    figure: str = "truth",
) -> list[dict[str, Any]]:
    """Evaluations every 10 steps from step 0; ``half`` is half the interval of the held-out figure."""
    lines = []
    for index, (judged, trained) in enumerate(zip(held_out, proxy, strict=True)):
        line = {"step": 10 * index, "kind": "evaluation", figure: judged, "reward/scenes-scorer": trained}
        if half is not None:
            line |= {f"{figure}/low": judged - half, f"{figure}/high": judged + half}
        if diversity is not None:
            line["pairwise_diversity"] = diversity[index]
        lines.append(line)
    return lines
