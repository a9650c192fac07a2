"""What a study is made of: groups of candidates, what a rater was shown, and what the rater answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Side = Literal["left", "right", "tie", "bad", "skip"]
"""An answer as the page says it."""

Answer = Literal["first", "second", "tie", "bad", "skip"]
"""An answer as it is stored: which candidate, whatever the sides were."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What competes.

    Attributes:
        source: model, run or file that it comes from; never told to a rater.
        images: ids of its images; several where a set is judged (diversity), the first being the reference.
    """

    source: str
    images: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Group:
    """Candidates for one prompt and one question, of which two are shown at a time.

    Attributes:
        id: unique in the study.
        question: key of the question.
        prompt: what the images were drawn from.
        candidates: two or more.
        category: for tables by category; empty if there is none.
        expected: of an attention check, the index of the candidate that is plainly better; else none.
    """

    id: str
    question: str
    prompt: str
    candidates: tuple[Candidate, ...]
    category: str = ""
    expected: int | None = None


@dataclass(frozen=True, kw_only=True)
class Show:
    """Two candidates of a group as they were laid before one rater.

    Attributes:
        token: unguessable; the page answers with it.
        rater: pseudonymous id.
        group: id of the group.
        first, second: indices of its candidates, first < second.
        flipped: whether the second one is on the left.
        number: which of the rater's shows this is, from 0.
        repeat_of: token of the show of which this is a repetition, or none.
    """

    token: str
    rater: str
    group: str
    first: int
    second: int
    flipped: bool
    number: int
    repeat_of: str | None = None

    def answer(self, side: Side) -> Answer:
        """What an answer of the page says of the candidates."""
        if side == "left":
            return "second" if self.flipped else "first"
        if side == "right":
            return "first" if self.flipped else "second"
        return side


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """One counted answer with all that analyses and exports need.

    Attributes:
        show: what was shown.
        question, prompt, category: of its group.
        first, second: the candidates.
        answer: the last one that the rater gave to this show.
        expected: of an attention check, the right answer; else none.
        seconds: between the display and the answer, as the page measured it; none if it did not.
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
