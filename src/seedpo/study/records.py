"""What a study consists of: groups of candidates, raters, what a rater was shown and answered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

Form = Literal["pair", "single", "best-worst"]
"""How a question is asked: which of two, like or dislike of one, or best and worst of several in one view."""

UNITS: Mapping[Form, str] = {"pair": "pairs", "single": "images", "best-worst": "views"}
"""What is judged at a time, in the plural, by form."""

Side = Literal["left", "right", "tie", "bad", "skip", "like", "dislike", "ranked"]
"""An answer as the page gives it. ``ranked`` comes with the places of the best and the worst candidate."""

Answer = Literal["first", "second", "tie", "bad", "skip", "like", "dislike", "ranked"]
"""An answer as it is stored: which candidate, wherever it was on the screen."""

UNDECIDED: frozenset[Answer] = frozenset({"bad", "skip"})
"""Answers that choose nothing. They are no answer to an attention check, whose unspoiled image may be bad too."""

Unit = tuple[str, tuple[int, ...]]
"""What is judged in one view: id of a group and the ascending indices of one or more of its candidates."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One of the things that are compared.

    Attributes:
        source: model, run or file it comes from; raters never see it.
        images: ids of its images. A set (question *diversity*) has several, the first one is the reference.
    """

    source: str
    images: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Group:
    """Candidates for one prompt and one question; raters see one, two or several of them at a time.

    Attributes:
        id: unique in the study.
        question: key of the question.
        prompt: what the images were drawn from.
        candidates: two or more.
        category: for tables by category; may be empty.
        expected: of an attention check the index of the candidate that the right answer points at: the better one of a
            pair, the one to dislike, or the worst of several; `None` for all other groups.
    """

    id: str
    question: str
    prompt: str
    candidates: tuple[Candidate, ...]
    category: str = ""
    expected: int | None = None


@dataclass(frozen=True, kw_only=True)
class Show:
    """Candidates of a group as one rater saw them.

    Attributes:
        token: unguessable; the page answers with it.
        rater: pseudonymous id.
        group: id of the group.
        order: indices of its candidates in their order on the screen; of a pair, the left one first.
        number: index of this show among the rater's shows, from 0.
        repeat_of: token of the show that this one repeats; `None` if it repeats none.
    """

    token: str
    rater: str
    group: str
    order: tuple[int, ...]
    number: int
    repeat_of: str | None = None

    @property
    def members(self) -> tuple[int, ...]:
        """The indices, ascending."""
        return tuple(sorted(self.order))

    @property
    def unit(self) -> Unit:
        """What was judged."""
        return self.group, self.members

    @property
    def first(self) -> int:
        """The lower index of a pair."""
        return self.members[0]

    @property
    def second(self) -> int:
        """The higher index of a pair."""
        return self.members[1]

    @property
    def flipped(self) -> bool:
        """Whether the second candidate of a pair is on the left."""
        return self.order[0] > self.order[-1]

    def answer(self, side: Side) -> Answer:
        """The answer that a side of the page means."""
        if side == "left":
            return "second" if self.flipped else "first"
        if side == "right":
            return "first" if self.flipped else "second"
        return side

    def fits(self, side: Side, places: tuple[int | None, ...]) -> bool:
        """Whether an answer comes with the places that belong to it: best and worst for ``ranked``, else none."""
        if side != "ranked":
            return not places
        return len(set(places)) == 2 and all(place is not None and 0 <= place < len(self.order) for place in places)

    def candidate(self, place: int | None) -> int | None:
        """The candidate at a place of the screen, from 0; `None` for `None`."""
        return None if place is None else self.order[place]

    def side(self, answer: Answer) -> Side:
        """The inverse of :meth:`answer`: what the rater pressed."""
        if answer == "first":
            return "right" if self.flipped else "left"
        if answer == "second":
            return "left" if self.flipped else "right"
        return answer


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """One counted answer with everything that analyses and exports need.

    Attributes:
        show: what was shown.
        question, prompt, category: of its group.
        candidates: in the order of ``show.members``.
        answer: the rater's last answer to this show.
        best, worst: indices in the group; `None` unless the answer is ``ranked``.
        expected: the right answer of an attention check; `None` for all other shows.
        expected_worst: index of the candidate that this right answer calls the worst; `None` unless it is ``ranked``.
        seconds: between display and answer, measured by the page; `None` if unknown.
        at: time of the vote, ISO 8601, UTC.
    """

    show: Show
    question: str
    prompt: str
    category: str
    candidates: tuple[Candidate, ...]
    answer: Answer
    best: int | None = None
    worst: int | None = None
    expected: Answer | None = None
    expected_worst: int | None = None
    seconds: float | None = None
    at: str = ""

    @property
    def first(self) -> Candidate:
        """The first candidate of a pair."""
        return self.candidates[0]

    @property
    def second(self) -> Candidate:
        """The second candidate of a pair."""
        return self.candidates[1]

    @property
    def regular(self) -> bool:
        """Whether this is neither an attention check nor a repetition."""
        return self.expected is None and self.show.repeat_of is None

    @property
    def passed(self) -> bool | None:
        """Whether an attention check was answered as expected; `None` if it was not answered, or this is no check."""
        if self.expected is None or self.answer in UNDECIDED:
            return None
        right = self.expected_worst is None or self.worst == self.expected_worst
        return self.answer == self.expected and right


@dataclass(frozen=True, kw_only=True)
class Rater:
    """A rater; nothing here says who the person is, unless the label does.

    Attributes:
        id: pseudonymous.
        label: the owner's note beside the link.
        consented: whether the rater agreed to the consent text.
        expired: whether the link's days are over.
        revoked: whether the owner ended the link.
        excluded: whether the answers are left out of counts, analyses and exports.
        created, expires: ISO 8601, UTC; ``expires`` is empty if the link never ends.
    """

    id: str
    label: str
    consented: bool
    expired: bool
    revoked: bool
    excluded: bool
    created: str
    expires: str


_RIGHT: Mapping[int, tuple[Answer, ...]] = {1: ("dislike",), 2: ("first", "second")}
"""The right answer of an attention check by number of candidates and place of the expected one."""


def judge(
    show: Show,
    group: Group,
    answer: Answer,
    *,
    best: int | None = None,
    worst: int | None = None,
    seconds: float | None = None,
    at: str = "",
) -> Judgement:
    """The judgement of a show.

    Args:
        show: what was shown.
        group: its group.
        answer, best, worst, seconds, at: see :class:`Judgement`.
    """
    expected: Answer | None = None
    if group.expected in show.members:
        expected = _RIGHT[len(show.members)][show.members.index(group.expected)] if len(show.members) < 3 else "ranked"
    return Judgement(
        show=show,
        question=group.question,
        prompt=group.prompt,
        category=group.category,
        candidates=tuple(group.candidates[index] for index in show.members),
        answer=answer,
        best=best,
        worst=worst,
        expected=expected,
        expected_worst=group.expected if expected == "ranked" else None,
        seconds=seconds,
        at=at,
    )


def pairs_of(judgement: Judgement) -> list[Judgement]:
    """What an answer says of pairs: every statistic of pairs and every export of pairs reads this.

    Best and worst of k candidates are 2 k - 3 choices: the best one before all others, and all others before the worst.
    All of them keep the show's token: they come from one answer and are not independent.

    Args:
        judgement: any answer.

    Returns:
        One judgement for each pair; an answer to a pair as it is; none for a like or a skipped view of several.
    """
    if judgement.answer != "ranked":
        return [judgement] if len(judgement.candidates) == 2 else []
    best, worst, show = judgement.best, judgement.worst, judgement.show
    candidates = dict(zip(show.members, judgement.candidates, strict=True))
    return [
        replace(
            judgement,
            show=replace(show, order=tuple(index for index in show.order if index in pair)),
            candidates=(candidates[pair[0]], candidates[pair[1]]),
            answer="first" if pair[0] == best or pair[1] == worst else "second",
            best=None,
            worst=None,
        )
        for pair in combinations(show.members, 2)
        if best in pair or worst in pair
    ]


def parts_of(judgements: Iterable[Judgement]) -> list[Judgement]:
    """What answers say of pairs and of single images: the pairs of a best and a worst of several, others as they are.

    A rater who saw a pair in several views counts with the first.
    """
    parts: dict[tuple[str, Unit], Judgement] = {}
    for judgement in judgements:
        for part in [judgement] if len(judgement.candidates) == 1 else pairs_of(judgement):
            parts.setdefault((part.show.rater, part.show.unit), part)
    return list(parts.values())


def rater_labels(label: str, number: int) -> list[str]:
    """A label for each of several raters."""
    return [label if number == 1 or not label else f"{label} {index + 1}" for index in range(number)]
