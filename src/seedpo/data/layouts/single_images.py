"""Layouts in which each row holds one image, and rows of one prompt are compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from seedpo.data.layouts.layout import Judge, Layout, Marks, PairRule, Reason, Verdicts
from seedpo.data.layouts.marks import grouped_verdicts, is_empty, numbers, unjudged, verdicts_of
from seedpo.data.layouts.prompts import prompt_text

Scores = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Scores, higher is better, of marks, (N,); NaN for a wrong mark."""

IMAGES = ("image", "image_path")
"""Names of a column that holds one image."""

IMAGE_ID = "image_uid"
"""Column that tells the images of a prompt apart: what several people say of one image is averaged."""


def _judge(column: str, scores: Scores, rule: str, *, ties: bool = True) -> Judge:
    def judge(marks: Marks, count: int, pair_rule: PairRule) -> Verdicts:
        left_out = unjudged(marks, count) | np.array([is_empty(cell) for cell in marks[column]], dtype=bool)
        values = np.where(left_out, np.nan, scores(numbers(marks[column])))
        groups = list(marks["prompt_id"] if "prompt_id" in marks else map(prompt_text, marks["prompt"]))
        wrong = np.isnan(values) & ~left_out
        why = dict.fromkeys(np.flatnonzero(wrong).tolist(), Reason("fault", rule))
        for row, group in enumerate(groups):
            if not isinstance(group, str | int | float):
                values[row], groups[row] = np.nan, None
                if row not in why and not left_out[row]:
                    why[row] = Reason("fault", "prompt_id or prompt must tell which rows show one prompt")
        if not ties and pair_rule.from_scores == "all":
            pair_rule = replace(pair_rule, from_scores="margin")
        first_of = _first_rows(groups, marks.get(IMAGE_ID), values)
        verdicts = grouped_verdicts(groups, _averaged(values, first_of), pair_rule, why)
        return replace(verdicts, reason=verdicts.reason[first_of])

    return judge


def _first_rows(
    groups: Sequence[object], images: Sequence[object] | None, values: NDArray[np.float64]
) -> NDArray[np.int64]:
    """For each row the first judged row of the same image and prompt, (N,); its own where images have no ids."""
    rows = np.arange(len(values))
    if images is None:
        return rows
    first: dict[tuple[object, object], int] = {}
    judged = [row for row in rows.tolist() if not np.isnan(values[row]) and isinstance(images[row], str | int)]
    for row in judged:
        rows[row] = first.setdefault((groups[row], images[row]), row)
    return rows


def _averaged(values: NDArray[np.float64], first_of: NDArray[np.int64]) -> NDArray[np.float64]:
    """The mean over the rows of an image in its first row, and NaN in its others."""
    rows = np.arange(len(values))
    sums = np.bincount(first_of, weights=values, minlength=len(values))
    counts = np.bincount(first_of, minlength=len(values))
    return np.where(first_of == rows, sums / np.maximum(counts, 1), np.nan)


def _of_rank(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.isfinite(values), -values, np.nan)


def _of_score(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.isfinite(values), values, np.nan)


def _of_like(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.isin(values, (0.0, 1.0)), values, np.nan)


def _likes(marks: Marks, count: int, _: PairRule) -> Verdicts:
    """Each row is a like of its own, whoever else judged the image."""
    left_out = unjudged(marks, count) | np.array([is_empty(cell) for cell in marks["liked"]], dtype=bool)
    values = _of_like(numbers(marks["liked"]))
    right = np.where(np.isnan(values), np.inf, values)
    return verdicts_of(np.where(left_out, np.nan, right), _LIKE, images=1)


_RANK = "rank must be a number, the best image lowest"
_SCORE = "score must be a number, the best image highest"
_LIKE = "liked must be 1 or true for a liked image, 0 or false for another"
_PROMPT = (("prompt", "caption"),)

LAYOUTS = (
    Layout(  # THUDM/ImageRewardDB (zai-org/ImageRewardDB) on the hub: one image a row, rank 1 is the best of its prompt
        title="ranked images (ImageRewardDB)",
        images=(IMAGES, IMAGES),
        marks=(("rank",), *_PROMPT),
        optional=(("prompt_id",), ("has_label",), (IMAGE_ID,)),
        judge=_judge("rank", _of_rank, _RANK),
        rule=_RANK,
        several_rows=True,
    ),
    Layout(
        title="scored images",
        images=(IMAGES, IMAGES),
        marks=(("score", "reward"), *_PROMPT),
        optional=(("prompt_id",), ("has_label",), (IMAGE_ID,)),
        judge=_judge("score", _of_score, _SCORE),
        rule=_SCORE,
        several_rows=True,
    ),
    Layout(
        title="likes of single images",
        images=(IMAGES, IMAGES),
        marks=(("liked", "like", "label"), *_PROMPT),
        optional=(("prompt_id",), ("has_label",), (IMAGE_ID,)),
        judge=_judge("liked", _of_like, _LIKE, ties=False),
        likes=_likes,
        rule=_LIKE,
        several_rows=True,
    ),
)
