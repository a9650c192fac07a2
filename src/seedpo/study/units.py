"""Which candidates of a group are judged together: every pair, a knockout, one by one, or several in one view."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import combinations, islice

from seedpo.study.records import Answer, Group, Unit
from seedpo.study.settings import Question, StudySettings

Match = tuple[int, int]
"""Indices of two candidates of a group, the lower one first."""

Members = tuple[int, ...]
"""Ascending indices of the candidates of a unit."""

Counts = Mapping[Unit, int]
"""Raters by unit."""

_BASES = 3000
"""Base views that are examined for the most even ones: all of up to 6 in 16."""


def units_of(group: Group, question: Question, *, seed: int) -> Sequence[Members]:
    """What is judged of a group that is not played as a knockout; of an attention check, its one unit.

    Args:
        group: of the study.
        question: its question.
        seed: of the views of best and worst.
    """
    count = len(group.candidates)
    if question.form == "single":
        return [(index,) for index in range(count)]
    if question.form == "pair":
        return all_matches(group) if group.expected is None else [_check_of(group)]
    return balanced_views(count, count if group.expected is not None else question.per_view, f"{seed}|{group.id}")


def is_knockout(group: Group, question: Question, settings: StudySettings) -> bool:
    """Whether a rater plays a knockout of a group's candidates."""
    several = group.expected is None and len(group.candidates) > 2
    return question.form == "pair" and settings.tournament == "knockout" and several


def units_per_rater(group: Group, question: Question, settings: StudySettings) -> int:
    """How many units of a group a rater judges who judges all: those of a knockout are k - 1 pairs."""
    if is_knockout(group, question, settings):
        return len(group.candidates) - 1
    return len(units_of(group, question, seed=settings.seed))


def all_matches(group: Group) -> Sequence[Match]:
    """All k (k - 1) / 2 pairs of k candidates. They show how all candidates rank, ties and cycles included."""
    return list(combinations(range(len(group.candidates)), 2))


def _check_of(group: Group) -> Match:
    """The better candidate of an attention check and the other one; of more than two, one of the first two."""
    other = 1 if group.expected == 0 else 0
    return min(group.expected or 0, other), max(group.expected or 0, other)


# Several in one view.


def balanced_views(count: int, size: int, seed: str) -> Sequence[Members]:
    """Views of ``size`` out of ``count`` candidates, in which all candidates and nearly all pairs occur equally often.

    A cyclic block design (R. C. Bose, Annals of Eugenics 9, 1939): a base view is shifted by 0 to ``count`` - 1 modulo
    ``count``, so that each candidate occurs ``size`` times, and each pair as often as the base view has its
    difference. Base views are chosen such that differences are even, and as many that every pair occurs. Where a
    difference set exists, as 3 in 7, 4 in 13 or 5 in 21, this is a balanced incomplete block design.

    Args:
        count: number of candidates, at least 2.
        size: of a view, at least 2.
        seed: which candidate has which number.

    Returns:
        ``count`` views or a multiple of it; one view if all candidates fit into one.
    """
    if count <= size:
        return [tuple(range(count))]
    names = random.Random(f"{seed}|views").sample(range(count), count)
    return [
        tuple(sorted(names[(place + shift) % count] for place in base))
        for base in _base_views(count, size)
        for shift in range(count)
    ]


@lru_cache(maxsize=64)
def _base_views(count: int, size: int) -> Sequence[Members]:
    bases: list[Members] = []
    differences = Counter(dict.fromkeys(range(1, count), 0))

    def unevenness(base: Members) -> tuple[int, int]:
        occurring = differences + Counter(_differences(base, count))
        amounts = [occurring[difference] for difference in range(1, count)]
        return sum(amount == 0 for amount in amounts), sum(amount * amount for amount in amounts)

    while min(differences.values()) == 0:
        best = min((base for base in _candidates(count, size) if _is_free(base, count)), key=unevenness)
        bases.append(best)
        differences.update(_differences(best, count))
    return bases


def _candidates(count: int, size: int) -> Iterator[Members]:
    """Base views that hold 0: all, or as many drawn ones as are examined."""
    every = ((0, *rest) for rest in combinations(range(1, count), size - 1))
    begun = list(islice(every, _BASES + 1))
    if len(begun) <= _BASES:
        yield from begun
        return
    draw = random.Random(f"{count}|{size}")
    for _ in range(_BASES):
        yield (0, *sorted(draw.sample(range(1, count), size - 1)))


def _differences(base: Members, count: int) -> list[int]:
    return [(first - second) % count for first in base for second in base if first != second]


def _is_free(base: Members, count: int) -> bool:
    """Whether all shifts of a base view differ."""
    return len({frozenset((place + shift) % count for place in base) for shift in range(count)}) == count


# Knockouts.


def knockout_order(group: Group, seed: int) -> Sequence[int]:
    """The order in which the candidates of a group enter its knockout, the same for all raters."""
    indices = list(range(len(group.candidates)))
    random.Random(f"{seed}|order|{group.id}").shuffle(indices)
    return indices


def next_match(entries: Sequence[int], answers: Mapping[Members, Answer]) -> tuple[int, Match] | None:
    """The next comparison of a rater's knockout: the better of two candidates meets the next one.

    k - 1 comparisons find the best of k candidates. After a tie, "both bad" or "skip" the earlier candidate stays. If
    the rater corrects an answer, another comparison may become necessary.

    Args:
        entries: candidates in the order in which they enter.
        answers: what the rater has answered in this group.

    Returns:
        The number of earlier comparisons, and the match; `None` if the knockout is over.
    """
    champion = entries[0]
    for stage, challenger in enumerate(entries[1:]):
        match = (min(champion, challenger), max(champion, challenger))
        if match not in answers:
            return stage, match
        if answers[match] in ("first", "second"):
            champion = match[answers[match] == "second"]
    return None


def finished(entries: Sequence[int], group: str, counts: Counts) -> int:
    """How many raters have reached the last comparison of a group's knockout.

    Each of them met the last candidate exactly once, whoever the champion was.

    Args:
        entries: candidates in the order in which they enter.
        group: id of the group.
        counts: raters by pair.
    """
    last = entries[-1]
    return sum(counts.get((group, (min(other, last), max(other, last))), 0) for other in entries[:-1])
