"""Marks of people and of programs as numbers, and pairs from numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from seedpo.data.layouts.layout import ALONE, JUDGED, UNLABELLED, Marks, PairRule, Reason, Verdicts
from seedpo.errors import DataError

MOST_PAIRS = 20_000_000
"""Pairs that are made of one set's scores at most."""

_WORDS = {"true": 1.0, "false": 0.0}


def number(value: object) -> float:
    """A mark as a number: text such as "1", "0.5" or "true" too, as CSV and many exports have it; NaN for the rest."""
    if isinstance(value, str):
        text = value.strip().lower()
        if text in _WORDS:
            return _WORDS[text]
        value = text.replace("_", "?")  # Python takes 1_0 for 10
    elif not isinstance(value, int | float | np.number | np.bool_):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def numbers(values: Sequence[object]) -> NDArray[np.float64]:
    """Marks as numbers; NaN, which equals nothing, for whatever is none."""
    return np.fromiter((number(value) for value in values), dtype=np.float64, count=len(values))


def is_empty(value: object) -> bool:
    """Whether a cell says nothing: null, or text without a sign in it."""
    return value is None or (isinstance(value, str) and not value.strip())


def unjudged(marks: Marks, count: int) -> NDArray[np.bool_]:
    """Whether ``has_label`` says of each row that nobody judged it, (N,)."""
    return numbers(marks[JUDGED]) == 0 if JUDGED in marks else np.zeros(count, dtype=bool)


def verdicts_of(probability: NDArray[np.float64], rule: str, *, images: int = 2) -> Verdicts:
    """Verdicts where each row holds one pair, or one image by itself.

    Args:
        probability: that the first image is preferred, (N,); NaN where nobody judged, infinite where marks are wrong.
        rule: what would be right.
        images: of each row, 2 or 1.
    """
    is_pair = np.isfinite(probability)
    rows = np.flatnonzero(is_pair)
    reason = np.where(np.isnan(probability), 0, 1)
    return Verdicts(
        rows=np.stack([rows] * images, axis=1),
        items=np.full((len(rows), images), -1, dtype=np.int32),
        probability=probability[rows],
        reason=np.where(is_pair, -1, reason).astype(np.int16),
        reasons=(UNLABELLED, Reason("fault", rule)),
    )


def pairs_of_scores(
    scores: NDArray[np.float64], rule: PairRule
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Pairs of images of one prompt by their scores, higher is better.

    Two images whose scores are equal, or differ by less than ``rule.min_gap``, are a tie. ``all`` makes every pair;
    ``margin`` makes every pair that is no tie; ``best-worst`` makes one pair, of the best and the worst image, the
    first ones where several are.

    Args:
        scores: of K images, (K,), finite.
        rule: which pairs are made.

    Returns:
        Places of the first and of the second image, the first one smaller, and the probability (1, 0.5 or 0) that the
        first is preferred.
    """
    if rule.from_scores != "best-worst":
        _check_count(len(scores) * (len(scores) - 1) // 2)
    if len(scores) < 2:
        empty = np.zeros(0, dtype=np.int64)
        return empty, empty, np.zeros(0)
    if rule.from_scores == "best-worst":
        best, worst = int(np.argmax(scores)), int(np.argmin(scores))
        worst = worst if best != worst else 1  # all are equal: argmax and argmin are both 0
        first, second = np.array([min(best, worst)]), np.array([max(best, worst)])
    else:
        first, second = np.triu_indices(len(scores), 1)
    gap = scores[first] - scores[second]
    is_tie = (gap == 0) | (np.abs(gap) < rule.min_gap)
    probability = np.where(is_tie, 0.5, (gap > 0).astype(np.float64))
    chosen = ~is_tie if rule.from_scores == "margin" else np.ones(len(gap), dtype=bool)
    return first[chosen].astype(np.int64), second[chosen].astype(np.int64), probability[chosen]


def grouped_verdicts(
    groups: Sequence[object], scores: NDArray[np.float64], rule: PairRule, why: Mapping[int, Reason]
) -> Verdicts:
    """Verdicts where each row holds one image, and rows of one group are compared.

    Args:
        groups: what tells the prompts apart, for each of N rows.
        scores: of each row, (N,), higher is better; NaN for a row that is not compared.
        rule: which pairs are made.
        why: the reasons of rows that are not compared; without one nobody judged the row.
    """
    members: dict[object, list[int]] = {}
    for row, (group, score) in enumerate(zip(groups, scores.tolist(), strict=True)):
        if not math.isnan(score):
            members.setdefault(group, []).append(row)
    parts = []
    for rows in members.values():
        first, second, probability = pairs_of_scores(scores[rows], rule)
        places = np.array(rows, dtype=np.int64)
        parts.append((places[first], places[second], probability))
    first, second, probability = _joined(parts)
    order = np.lexsort((second, first))
    reasons = [UNLABELLED, ALONE, *dict.fromkeys(why.values())]
    reason = np.where(np.isnan(scores), 0, 1).astype(np.int16)
    for row, own in why.items():
        reason[row] = reasons.index(own)
    reason[first], reason[second] = -1, -1
    return Verdicts(
        rows=np.stack([first[order], second[order]], axis=1),
        items=np.full((len(first), 2), -1, dtype=np.int32),
        probability=probability[order],
        reason=reason,
        reasons=reasons,
    )


def listed_verdicts(scores: Sequence[NDArray[np.float64] | Reason], rule: PairRule) -> Verdicts:
    """Verdicts where each row holds a list of images of one prompt.

    Args:
        scores: of the images of each of N rows, higher is better; or why the row makes no pair.
        rule: which pairs are made.
    """
    parts, items = [], []
    reasons: list[Reason] = []
    reason = np.full(len(scores), -1, dtype=np.int16)
    for row, entry in enumerate(scores):
        why = entry if isinstance(entry, Reason) else ALONE
        if not isinstance(entry, Reason):
            first, second, probability = pairs_of_scores(entry, rule)
            parts.append((np.full(len(first), row), np.full(len(first), row), probability))
            items.append(np.stack([first, second], axis=1).astype(np.int32))
            if len(first):
                continue
        if why not in reasons:
            reasons.append(why)
        reason[row] = reasons.index(why)
    first, second, probability = _joined(parts)
    return Verdicts(
        rows=np.stack([first, second], axis=1),
        items=np.concatenate(items) if items else np.zeros((0, 2), dtype=np.int32),
        probability=probability,
        reason=reason,
        reasons=reasons,
    )


def _joined(
    parts: Sequence[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    _check_count(sum(len(probability) for _, _, probability in parts))
    if not parts:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0)
    first, second, probability = zip(*parts, strict=True)
    return (
        np.concatenate(first).astype(np.int64),
        np.concatenate(second).astype(np.int64),
        np.concatenate(probability),
    )


def _check_count(pairs: int) -> None:
    if pairs > MOST_PAIRS:
        raise DataError(f"the scores make {pairs:,} pairs, more than {MOST_PAIRS:,}; set pairs.from_scores=best-worst")
