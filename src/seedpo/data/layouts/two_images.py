"""Layouts in which each row holds a prompt, two images and marks that say which is preferred."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from seedpo.data.layouts.layout import JUDGED, Judge, Layout, Marks, PairRule, Verdicts
from seedpo.data.layouts.marks import is_empty, numbers, unjudged, verdicts_of

Preference = Callable[[Marks, int], NDArray[np.float64]]
"""Probability that the first image is preferred, (N,): NaN where nobody judged, infinite where the marks are wrong."""


def _judge(preference: Preference, rule: str) -> Judge:
    def judge(marks: Marks, count: int, _: PairRule) -> Verdicts:
        values = preference(marks, count)
        return verdicts_of(np.where(unjudged(marks, count), np.nan, values), rule)

    return judge


def _of_chosen(column: str) -> Preference:
    """The first image is the preferred one, with a probability that a column may give."""

    def preference(marks: Marks, count: int) -> NDArray[np.float64]:
        if column not in marks:
            return np.ones(count)
        cells = marks[column]
        values = np.where([is_empty(cell) for cell in cells], 1.0, numbers(cells))
        return np.where((values >= 0.5) & (values <= 1.0), values, np.inf)

    return preference


def _labels(marks: Marks, _: int) -> NDArray[np.float64]:
    first, second = numbers(marks["label_0"]), numbers(marks["label_1"])
    right = ((first == 1) & (second == 0)) | ((first == 0) & (second == 1)) | ((first == 0.5) & (second == 0.5))
    return np.where(right, first, np.inf)


def _first_label(marks: Marks, _: int) -> NDArray[np.float64]:
    first = numbers(marks["label_0"])
    return np.where(np.isin(first, (0.0, 0.5, 1.0)), first, np.inf)


def _votes(marks: Marks, _: int) -> NDArray[np.float64]:
    names = [name for name in marks if name != JUDGED]
    first, second = (numbers(marks[name]) for name in names)
    cells = zip(*(marks[name] for name in names), strict=True)
    nothing = np.array([is_empty(a) and is_empty(b) for a, b in cells], dtype=bool)
    total = first + second
    right = (first >= 0) & (second >= 0) & np.isfinite(total) & (total > 0)
    share = first / np.where(right, total, 1.0)
    return np.where(nothing | ((first == 0) & (second == 0)), np.nan, np.where(right, share, np.inf))


_CHOSEN = "chosen_probability must be a number from 0.5 (a tie) to 1"
_LABELS = "labels must be 1 and 0, 0 and 1, or 0.5 twice for a tie"
_FIRST_LABEL = "label_0 must be 1 (the first image is preferred), 0, or 0.5 for a tie"
_CONFIDENCE = "confidence that path1 is preferred must be a number from 0.5 to 1"
_VOTES = "both weighted results must be numbers, none below 0"

LAYOUTS = (
    Layout(
        title="prompt, chosen, rejected",
        images=(("chosen",), ("rejected",)),
        optional=(("chosen_probability",), (JUDGED,)),
        judge=_judge(_of_chosen("chosen_probability"), _CHOSEN),
        rule=_CHOSEN,
    ),
    Layout(  # yuvalkirstain/pickapic_v1 and pickapic_v2 on the hub
        title="Pick-a-Pic",
        prompts=("caption", "prompt"),
        images=(("jpg_0",), ("jpg_1",)),
        marks=(("label_0",), ("label_1",)),
        judge=_judge(_labels, _LABELS),
        rule=_LABELS,
        refines=("label_0 alone",),
    ),
    Layout(  # diffusers, examples/research_projects/diffusion_dpo: pairs are swapped where label_0 is 0
        title="label_0 alone",
        prompts=("caption", "prompt"),
        images=(("jpg_0",), ("jpg_1",)),
        marks=(("label_0",),),
        judge=_judge(_first_label, _FIRST_LABEL),
        rule=_FIRST_LABEL,
    ),
    Layout(  # MizzenAI/HPDv3 on the hub, train.json: path1 is the preferred image
        title="HPDv3",
        images=(("path1",), ("path2",)),
        optional=(("confidence",), (JUDGED,)),
        judge=_judge(_of_chosen("confidence"), _CONFIDENCE),
        rule=_CONFIDENCE,
    ),
    Layout(  # Rapidata's sets on the hub: answers weighted by the trust in who gave them
        title="Rapidata",
        images=(("image1",), ("image2",)),
        marks=(("weighted_results_image1_preference",), ("weighted_results_image2_preference",)),
        judge=_judge(_votes, _VOTES),
        rule=_VOTES,
    ),
)
