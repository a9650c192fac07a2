"""``study.yaml``: what a person may write of a study by hand, typed and strict."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from seedpo.settings import Section
from seedpo.study.records import Side

Kind = Literal["collect", "study"]


class Question(Section):
    """One question.

    Attributes:
        key: its name in groups and tables.
        text: what the rater reads.
        shows: one image of each side, or a set of them of which the first is the reference.
        choices: what may be answered.
    """

    key: str
    text: str
    shows: Literal["image", "set"] = "image"
    choices: tuple[Side, ...] = ("left", "right", "tie", "bad", "skip")


class StudySettings(Section):
    """A study.

    Attributes:
        id: random; what its rows in a database are found by.
        title: what raters see above the page.
        kind: *collect* preferences for training, or a blinded *study* of models.
        questions: at least one.
        raters_per_pair: how many raters each pair shall have.
        tasks_per_rater: at most so many shows per rater, checks and repetitions included; none: no limit.
        order: *blocks*: a rater answers one question for all pairs before the next one comes, and raters begin with
            different ones; *mixed*: any question at any pair.
        tournament: of groups with more than two candidates: every pair, or as few as rank them.
        repeats: share of a rater's shows that repeat an earlier one with the sides exchanged, in [0, 0.5].
        checks: share of a rater's shows that are attention checks, in [0, 0.5].
        seed: of all that is drawn.
        enrolment: *links*: only personal links that were made; *open*: whoever opens the page gets one.
        link_days: days after which a personal link ends; none: never.
        consent: text that a rater agrees to; empty: nothing is asked.
        instructions: text shown before the first pair and on demand.
        database: URL of SQLAlchemy; none: SQLite in the study's folder.
    """

    id: str
    title: str = "Which image is better?"
    kind: Kind = "collect"
    questions: tuple[Question, ...] = Field(min_length=1)
    raters_per_pair: int = Field(default=1, ge=1)
    tasks_per_rater: int | None = Field(default=None, ge=1)
    # Studies without this key were made when there was no other order: they must not change it while votes come in.
    order: Literal["blocks", "mixed"] = "mixed"
    tournament: Literal["full", "knockout"] = "full"
    repeats: float = Field(default=0.0, ge=0.0, le=0.5)
    checks: float = Field(default=0.0, ge=0.0, le=0.5)
    seed: int = 0
    enrolment: Literal["links", "open"] = "links"
    link_days: float | None = Field(default=None, gt=0.0)
    consent: str = ""
    instructions: str = ""
    database: str | None = None

    def compares_all(self, candidates: int) -> bool:
        """Whether every pair of a group with so many candidates is compared, and not a knockout held among them."""
        return self.tournament == "full" or candidates <= 2
