"""The questions to the people who judge a run: groups, pairs and votes, per round and in all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from seedpo.methods.presets import METHODS
from seedpo.study.records import UNITS, Candidate, Form, Group
from seedpo.study.settings import StudySettings
from seedpo.study.units import is_knockout, units_per_rater
from seedpo.training.settings import RunConfig

_WORDS: Mapping[Form, str] = {"pair": "every pair", "single": "every image", "best-worst": "best and worst"}
"""What people judge, by the form of the question."""


@dataclass(frozen=True, kw_only=True)
class Questions:
    """Questions to people.

    Attributes:
        groups: prompts with their images.
        pairs: two images that are compared, of a knockout as many as one rater compares; or views, see
            :attr:`People.unit`.
        votes: regular ones, without attention checks and repetitions.
    """

    groups: int
    pairs: int
    votes: int

    def times(self, number: int) -> Questions:
        """Multiplied by a number."""
        return Questions(groups=number * self.groups, pairs=number * self.pairs, votes=number * self.votes)

    def as_json(self) -> dict[str, int]:
        """As JSON values."""
        return {"groups": self.groups, "pairs": self.pairs, "votes": self.votes}


@dataclass(frozen=True, kw_only=True)
class People:
    """The judges of a run.

    Attributes:
        study: its folder.
        tournament: which images of a group are compared, in words.
        unit: what is judged at a time, in the plural: pairs, views or images.
        raters: of each pair.
        extra: share of a rater's pairs that are attention checks or repetitions, on top of what is counted.
        per_round: of all processes in one round.
        in_all: of all processes in the run.
    """

    study: str
    tournament: str
    unit: str
    raters: int
    extra: float
    per_round: Questions
    in_all: Questions

    def as_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "study": self.study,
            "raters_per_pair": self.raters,
            "per_round": self.per_round.as_json(),
            "in_all": self.in_all.as_json(),
        }


def questions_to_people(config: RunConfig, study: StudySettings | None, *, rounds: int, gpus: int) -> People | None:
    """The questions to people; `None` if there are none.

    Args:
        config: the run's settings.
        study: settings of the study, or of the one that would be created; `None` without a study.
        rounds: roll-outs of each process.
        gpus: processes, each of which asks about its own images.
    """
    if study is None:
        return None
    drawing = METHODS[config.method].source.settings(config)
    count = drawing.images_per_prompt
    group = Group(id="", question="", prompt="", candidates=(Candidate(source="", images=()),) * count)
    question = next((item for item in study.questions if item.key == config.feedback.question), study.questions[0])
    groups = gpus * drawing.prompts_per_rollout
    pairs = groups * units_per_rater(group, question, study)
    per_round = Questions(groups=groups, pairs=pairs, votes=pairs * study.raters_per_pair)
    return People(
        study=str(config.feedback.study),
        tournament="a knockout" if is_knockout(group, question, study) else _WORDS[question.form],
        unit=UNITS[question.form],
        raters=study.raters_per_pair,
        extra=study.repeats + study.checks,
        per_round=per_round,
        in_all=per_round.times(rounds),
    )
