"""From answers to votes: what counts, what is left out, and the columns that statistics take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from seedpo.study.records import Answer, Judgement

POINTS: Mapping[Answer, float] = {"first": 1.0, "tie": 0.5, "bad": 0.5, "second": 0.0}
"""What an answer is worth to the first candidate: "both bad" is worth as much as a tie; a skipped pair is no vote."""


@dataclass(frozen=True, kw_only=True)
class Sorting:
    """Answers by what they are for.

    Attributes:
        votes: answers to a pair shown for the first time; what everything is counted from.
        checks: answers to attention checks.
        repeats: the first and the second answer of a rater to the same pair, neither skipped.
        skipped: pairs that were skipped, checks and repetitions not among them.
    """

    votes: tuple[Judgement, ...]
    checks: tuple[Judgement, ...]
    repeats: tuple[tuple[Judgement, Judgement], ...]
    skipped: int


@dataclass(frozen=True, eq=False)
class Columns:
    """Votes as columns of equal length N.

    Attributes:
        raters, prompts: whose and of what each vote is, counted from 0.
        points: to the first candidate: 1, 0.5 or 0.
    """

    raters: NDArray[np.int64]
    prompts: NDArray[np.int64]
    points: NDArray[np.float64]


def sort_answers(judgements: Iterable[Judgement]) -> Sorting:
    """Tells votes from checks, repetitions and skipped pairs."""
    given = list(judgements)
    by_token = {one.show.token: one for one in given}
    votes, checks, repeats, skipped = [], [], [], 0
    for one in given:
        if one.expected is not None:
            checks.append(one)
        elif one.show.repeat_of is not None:
            original = by_token.get(one.show.repeat_of)
            if original is not None and "skip" not in (one.answer, original.answer):
                repeats.append((original, one))
        elif one.answer == "skip":
            skipped += 1
        else:
            votes.append(one)
    return Sorting(votes=tuple(votes), checks=tuple(checks), repeats=tuple(repeats), skipped=skipped)


def plain(answer: Answer) -> str:
    """The answer where ties and "both bad" are one."""
    return "tie" if answer == "bad" else answer


def on_left(judgement: Judgement) -> bool | None:
    """Whether the candidate on the left was chosen; nothing if neither was."""
    if judgement.answer not in ("first", "second"):
        return None
    return (judgement.answer == "second") == judgement.show.flipped


def by_sources(votes: Iterable[Judgement]) -> dict[tuple[str, str], list[Judgement]]:
    """Votes of each pair of sources, each turned so that the source that comes first by name is the first candidate.

    Pairs of two images of one source say nothing of sources and are left out.
    """
    found: dict[tuple[str, str], list[Judgement]] = {}
    for vote in votes:
        if vote.first.source != vote.second.source:
            turned = vote if vote.first.source < vote.second.source else exchanged(vote)
            found.setdefault((turned.first.source, turned.second.source), []).append(turned)
    return dict(sorted(found.items()))


def exchanged(vote: Judgement) -> Judgement:
    """The same vote with its candidates in the other order."""
    other: dict[Answer, Answer] = {"first": "second", "second": "first"}
    return replace(vote, first=vote.second, second=vote.first, answer=other.get(vote.answer, vote.answer))


def columns(votes: Sequence[Judgement]) -> Columns:
    """The votes as columns."""
    return Columns(
        raters=codes([vote.show.rater for vote in votes]),
        prompts=codes([vote.prompt for vote in votes]),
        points=np.array([POINTS[vote.answer] for vote in votes], dtype=np.float64),
    )


def codes(names: Sequence[str]) -> NDArray[np.int64]:
    """Names as numbers from 0, in the order of the alphabet, so that results do not depend on the order of votes."""
    numbers = {name: index for index, name in enumerate(sorted(set(names)))}
    return np.array([numbers[name] for name in names], dtype=np.int64)
