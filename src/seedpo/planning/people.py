"""What people are asked in a run that they judge: groups, pairs and votes, per round and in all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from seedpo.study.settings import StudySettings
from seedpo.training.settings import RunConfig


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Questions to people.

    Attributes:
        groups: prompts with their images.
        pairs: two images that are compared; of a knockout as many as one rater compares.
        votes: regular ones, without attention checks and repetitions.
    """

    groups: int
    pairs: int
    votes: int

    def times(self, number: int) -> Asked:
        """So many times as much."""
        return Asked(groups=number * self.groups, pairs=number * self.pairs, votes=number * self.votes)

    def as_json(self) -> dict[str, int]:
        """As JSON values."""
        return {"groups": self.groups, "pairs": self.pairs, "votes": self.votes}


@dataclass(frozen=True, kw_only=True)
class People:
    """The judges of a run.

    Attributes:
        study: its folder.
        tournament: what of a group is compared, in words.
        raters: of each pair.
        extra: share of a rater's pairs that are attention checks or repetitions, on top of what is counted.
        per_round: what all processes ask in one round.
        in_all: what they ask in the run.
    """

    study: str
    tournament: str
    raters: int
    extra: float
    per_round: Asked
    in_all: Asked

    def as_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "study": self.study,
            "raters_per_pair": self.raters,
            "per_round": self.per_round.as_json(),
            "in_all": self.in_all.as_json(),
        }


def people_asked(config: RunConfig, study: StudySettings | None, *, rounds: int, gpus: int) -> People | None:
    """What people are asked; none: nobody is.

    Args:
        config: the run's settings.
        study: those of the study, or of the one that would be made; none: nobody is asked.
        rounds: roll-outs of each process.
        gpus: processes, each of which asks about its own images.
    """
    if study is None:
        return None
    count = config.trajectories.images_per_prompt
    full = study.compares_all(count)
    groups = gpus * config.trajectories.prompts_per_rollout
    pairs = groups * (count * (count - 1) // 2 if full else count - 1)
    per_round = Asked(groups=groups, pairs=pairs, votes=pairs * study.raters_per_pair)
    return People(
        study=str(config.feedback.study),
        tournament="every pair" if full else "a knockout",
        raters=study.raters_per_pair,
        extra=study.repeats + study.checks,
        per_round=per_round,
        in_all=per_round.times(rounds),
    )
