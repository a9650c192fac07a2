"""What a study consists of: groups of candidates, raters, what a rater was shown and answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Side = Literal["left", "right", "tie", "bad", "skip"]
"""An answer as the page gives it."""

Answer = Literal["first", "second", "tie", "bad", "skip"]
"""An answer as it is stored: which candidate, whichever side it was on."""

Pair = tuple[str, int, int]
"""Id of a group and the indices of two of its candidates, the lower one first."""


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
    """Candidates for one prompt and one question; raters see two of them at a time.

    Attributes:
        id: unique in the study.
        question: key of the question.
        prompt: what the images were drawn from.
        candidates: two or more.
        category: for tables by category; may be empty.
        expected: index of the better candidate of an attention check; `None` for all other groups.
    """

    id: str
    question: str
    prompt: str
    candidates: tuple[Candidate, ...]
    category: str = ""
    expected: int | None = None


@dataclass(frozen=True, kw_only=True)
class Show:
    """Two candidates of a group as one rater saw them.

    Attributes:
        token: unguessable; the page answers with it.
        rater: pseudonymous id.
        group: id of the group.
        first, second: indices of its candidates, first < second.
        flipped: whether the second one is on the left.
        number: index of this show among the rater's shows, from 0.
        repeat_of: token of the show that this one repeats; `None` if it repeats none.
    """

    token: str
    rater: str
    group: str
    first: int
    second: int
    flipped: bool
    number: int
    repeat_of: str | None = None

    @property
    def pair(self) -> Pair:
        """What was compared."""
        return self.group, self.first, self.second

    def answer(self, side: Side) -> Answer:
        """The answer that a side of the page means."""
        if side == "left":
            return "second" if self.flipped else "first"
        if side == "right":
            return "first" if self.flipped else "second"
        return side

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
        first, second: the candidates.
        answer: the rater's last answer to this show.
        expected: the right answer of an attention check; `None` for all other shows.
        seconds: between display and answer, measured by the page; `None` if unknown.
        at: time of the vote, ISO 8601, UTC.
    """

    show: Show
    question: str
    prompt: str
    category: str
    first: Candidate
    second: Candidate
    answer: Answer
    expected: Answer | None = None
    seconds: float | None = None
    at: str = ""

    @property
    def regular(self) -> bool:
        """Whether this is neither an attention check nor a repetition."""
        return self.expected is None and self.show.repeat_of is None

    @property
    def passed(self) -> bool:
        """Whether an attention check was answered as expected."""
        return self.answer == self.expected


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


def judge(show: Show, group: Group, answer: Answer, *, seconds: float | None = None, at: str = "") -> Judgement:
    """The judgement of a show.

    Args:
        show: what was shown.
        group: its group.
        answer, seconds, at: see :class:`Judgement`.
    """
    expected: dict[int | None, Answer] = {show.first: "first", show.second: "second"}
    return Judgement(
        show=show,
        question=group.question,
        prompt=group.prompt,
        category=group.category,
        first=group.candidates[show.first],
        second=group.candidates[show.second],
        answer=answer,
        expected=expected.get(group.expected),
        seconds=seconds,
        at=at,
    )


def rater_labels(label: str, number: int) -> list[str]:
    """A label for each of several raters."""
    return [label if number == 1 or not label else f"{label} {index + 1}" for index in range(number)]
