"""Which two candidates of a group are compared: every pair, or as few as say which one is best."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import combinations

from seedpo.study.records import Answer, Group

Pair = tuple[int, int]
"""Indices of two candidates of a group, the lower one first."""


def all_pairs(group: Group) -> Sequence[Pair]:
    """All k (k - 1) / 2 pairs of k candidates: says how all of them rank, ties and circles included."""
    return list(combinations(range(len(group.candidates)), 2))


def order(group: Group, seed: int) -> Sequence[int]:
    """The order in which the candidates of a group enter its knockout: drawn once, the same for all raters."""
    indices = list(range(len(group.candidates)))
    random.Random(f"{seed}|order|{group.id}").shuffle(indices)
    return indices


def next_match(entries: Sequence[int], answers: Mapping[Pair, Answer]) -> tuple[int, Pair] | None:
    """The next comparison of a rater's knockout, in which the better of two candidates meets the next one.

    k - 1 comparisons find the best of k candidates. After a tie, "both bad" or "skip" the one that was there before
    stays. An answer that is corrected afterwards may ask for another comparison.

    Args:
        entries: candidates in the order in which they enter.
        answers: what the rater said of this group so far.

    Returns:
        How many comparisons came before, and the pair; none if the knockout is over.
    """
    standing = entries[0]
    for stage, challenger in enumerate(entries[1:]):
        pair = (min(standing, challenger), max(standing, challenger))
        if pair not in answers:
            return stage, pair
        if answers[pair] in ("first", "second"):
            standing = pair[answers[pair] == "second"]
    return None


def finished(entries: Sequence[int], name: str, counts: Mapping[tuple[str, int, int], int]) -> int:
    """How many raters have reached the last comparison of a group's knockout.

    Each of them met the last candidate once, whoever stood there by then.

    Args:
        entries: candidates in the order in which they enter.
        name: id of the group.
        counts: raters by group and pair.
    """
    last = entries[-1]
    return sum(counts.get((name, min(other, last), max(other, last)), 0) for other in entries[:-1])
