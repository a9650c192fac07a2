"""Layouts in which each row holds a prompt and a list of images of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from seedpo.data.layouts.layout import UNLABELLED, Judge, Layout, Marks, PairRule, Reason, Verdicts
from seedpo.data.layouts.marks import listed_verdicts, numbers, unjudged

Scores = Callable[[Sequence[object]], NDArray[np.float64] | None]
"""Scores of the images of one row, higher is better, of the row's marks; ``None`` where the marks are wrong."""

IMAGE_LISTS = ("image_path", "file_path", "images", "generations")
"""Names of a column that holds a list of images."""


def _judge(column: str, scores: Scores, rule: str, *, ties: bool = True) -> Judge:
    def judge(marks: Marks, count: int, pair_rule: PairRule) -> Verdicts:
        left_out = unjudged(marks, count)
        entries: list[NDArray[np.float64] | Reason] = []
        for row, (cell, images) in enumerate(zip(marks[column], marks[IMAGE_LISTS[0]], strict=True)):
            known = scores(cell) if isinstance(cell, list | tuple) and len(cell) == images else None
            if left_out[row] or cell is None:
                entries.append(UNLABELLED)
            else:
                entries.append(Reason("fault", rule) if known is None else known)
        if not ties and pair_rule.from_scores == "all":
            pair_rule = replace(pair_rule, from_scores="margin")
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


def _rejected(marks: Marks, count: int, _: PairRule) -> Verdicts:
    """One pair of the chosen image with each rejected one."""
    rows: list[int] = []
    items: list[int] = []
    reason = np.full(count, -1, dtype=np.int16)
    left_out = unjudged(marks, count)
    for row, length in enumerate(marks["rejected"]):
        if left_out[row] or not isinstance(length, int) or not length:
            reason[row] = 0 if left_out[row] else 1
            continue
        rows += [row] * abs(length)
        items += range(length) if length > 0 else [-1]
    return Verdicts(
        rows=np.array([rows, rows], dtype=np.int64).T.reshape(-1, 2),
        items=np.array([[-1] * len(rows), items], dtype=np.int32).T.reshape(-1, 2),
        probability=np.ones(len(rows)),
        reason=reason,
        reasons=(UNLABELLED, Reason("fault", _REJECTED)),
    )


_REJECTED = "rejected must hold an image or a list of images"
_PREFERENCE = "human_preference must be a list with 1 for the preferred image and 0 for each other one"
_RANKS = "ranks must be a list of numbers, one for each image, the best image lowest"
_SCORES = "scores must be a list of numbers, one for each image, the best image highest"

LAYOUTS = (
    Layout(
        title="chosen, and a list of rejected images",
        images=(("chosen",), ("rejected",)),
        marks=(("rejected",),),
        lists=(False, True),
        judge=_rejected,
        rule=_REJECTED,
        counted=("rejected",),
    ),
    Layout(  # zhwang/HPDv2 and ymhao/HPDv2 on the hub, train.json; the column is file_path or image_path
        title="HPDv2 (train.json)",
        images=(IMAGE_LISTS, IMAGE_LISTS),
        marks=(("human_preference",), IMAGE_LISTS),
        counted=IMAGE_LISTS[:1],
        lists=(True, True),
        judge=_judge("human_preference", _preference, _PREFERENCE),
        rule=_PREFERENCE,
    ),
    Layout(  # HPDv2's test.json: ranks averaged over annotators, the lower the better
        title="ranked list",
        images=(IMAGE_LISTS, IMAGE_LISTS),
        marks=(("rank", "ranks", "ranking"), IMAGE_LISTS),
        counted=IMAGE_LISTS[:1],
        lists=(True, True),
        judge=_judge("rank", _ranks, _RANKS),
        rule=_RANKS,
    ),
    Layout(
        title="scored list",
        images=(IMAGE_LISTS, IMAGE_LISTS),
        marks=(("scores", "score", "rewards"), IMAGE_LISTS),
        counted=IMAGE_LISTS[:1],
        lists=(True, True),
        judge=_judge("scores", _scores, _SCORES),
        rule=_SCORES,
    ),
    Layout(  # D3PO's scores, see seedpo.data.tables.d3po
        title="D3PO",
        images=(IMAGE_LISTS, IMAGE_LISTS),
        marks=(("human_prefer",), IMAGE_LISTS),
        counted=IMAGE_LISTS[:1],
        lists=(True, True),
        judge=_judge("human_prefer", _scores, _SCORES, ties=False),
        rule=_SCORES,
    ),
)
