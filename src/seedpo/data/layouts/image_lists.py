"""Layouts in which each row holds a prompt and a list of images of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from seedpo.data.layouts.layout import UNLABELLED, Judge, Layout, Marks, PairRule, Reason, Verdicts
from seedpo.data.layouts.marks import listed_verdicts, numbers, unjudged

Scores = Callable[[Sequence[object]], NDArray[np.float64] | None]
"""Scores of the images of one row, higher is better, of the row's marks; ``None`` where the marks are wrong."""


def _judge(column: str, scores: Scores, rule: str) -> Judge:
    def judge(marks: Marks, count: int, pair_rule: PairRule) -> Verdicts:
        left_out = unjudged(marks, count)
        entries: list[NDArray[np.float64] | Reason] = []
        for row, cell in enumerate(marks[column]):
            known = scores(cell) if isinstance(cell, list | tuple) else None
            if left_out[row] or cell is None:
                entries.append(UNLABELLED)
            else:
                entries.append(Reason("fault", rule) if known is None else known)
        return listed_verdicts(entries, pair_rule)

    return judge


def _preference(cell: Sequence[object]) -> NDArray[np.float64] | None:
    values = numbers(cell)
    return values if np.isin(values, (0.0, 1.0)).all() and values.sum() == 1 else None


def _ranks(cell: Sequence[object]) -> NDArray[np.float64] | None:
    values = numbers(cell)
    return -values if np.isfinite(values).all() else None


def _scores(cell: Sequence[object]) -> NDArray[np.float64] | None:
    values = numbers(cell)
    return values if np.isfinite(values).all() else None


_PREFERENCE = "human_preference must be a list with one 1, for the preferred image, and 0 for the others"
_RANKS = "ranks must be a list of numbers, one for each image, the best image lowest"
_SCORES = "scores must be a list of numbers, one for each image, the best image highest"

IMAGE_LISTS = ("image_path", "file_path", "images", "generations")
"""Names of a column that holds a list of images."""

LAYOUTS = (
    Layout(  # zhwang/HPDv2 and ymhao/HPDv2 on the hub, train.json; the column is file_path or image_path
        title="HPDv2 (train.json)",
        images=(IMAGE_LISTS, IMAGE_LISTS),
        marks=(("human_preference",),),
        lists=(True, True),
        judge=_judge("human_preference", _preference, _PREFERENCE),
        rule=_PREFERENCE,
    ),
    Layout(  # HPDv2's test.json: ranks averaged over annotators, the lower the better
        title="ranked list",
        images=(IMAGE_LISTS, IMAGE_LISTS),
        marks=(("rank", "ranks", "ranking"),),
        lists=(True, True),
        judge=_judge("rank", _ranks, _RANKS),
        rule=_RANKS,
    ),
    Layout(
        title="scored list",
        images=(IMAGE_LISTS, IMAGE_LISTS),
        marks=(("scores", "score", "rewards"),),
        lists=(True, True),
        judge=_judge("scores", _scores, _SCORES),
        rule=_SCORES,
    ),
)
