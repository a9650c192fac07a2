"""What a study is made to answer, as its database remembers it: the primary question and the contrasts.

``study.yaml`` can be edited after results are known. So the database keeps the aim that was in force when the first
vote came, and each later one with the number of answers that were there already. Analyses follow the first and name
the others.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

import sqlalchemy as sa

from seedpo.documents import parse_json
from seedpo.study.folder import Study
from seedpo.study.settings import StudySettings
from seedpo.study.votes.tables import as_text, registrations, shows, votes


@dataclass(frozen=True, kw_only=True)
class Aim:
    """What a study is made to answer. Two aims are equal whatever the order of contrasts and of their models.

    Attributes:
        primary: key of the primary question; `None`: all questions alike.
        contrasts: pairs of models, sorted; empty: all pairs.
    """

    primary: str | None = None
    contrasts: tuple[tuple[str, str], ...] = ()

    def asks(self, question: str, models: tuple[str, str]) -> bool:
        """Whether a comparison is one of those that the study is made for."""
        first, second = sorted(models)
        return self.primary in (None, question) and (not self.contrasts or (first, second) in self.contrasts)

    def __str__(self) -> str:
        pairs = ", ".join(f"{first} against {second}" for first, second in self.contrasts)
        return f"{self.primary or 'all questions'}, {pairs or 'all pairs of models'}"


@dataclass(frozen=True, kw_only=True)
class Registration:
    """An aim from the time on at which the database learnt it.

    Attributes:
        aim: what the study is made to answer.
        votes: answers that were there already.
        at: ISO 8601, UTC; empty if the database has not learnt it yet.
    """

    aim: Aim
    votes: int
    at: str


def aim_of(settings: StudySettings) -> Aim:
    """What ``study.yaml`` says now."""
    pairs = ((first, second) if first <= second else (second, first) for first, second in settings.contrasts)
    return Aim(primary=settings.primary, contrasts=tuple(sorted(pairs)))


def split(history: Sequence[Registration], now: Registration) -> tuple[Aim, tuple[Registration, ...]]:
    """The aim that verdicts follow, and the changes after the first vote.

    Args:
        history: what the database remembers, the oldest first.
        now: what ``study.yaml`` says.
    """
    whole = [*history, *([now] if not history or history[-1].aim != now.aim else [])]
    valid = max((row for row, item in enumerate(whole) if item.votes == 0), default=0)
    return whole[valid].aim, tuple(whole[valid + 1 :])


def record_aim(connection: sa.Connection, study: Study, now: datetime) -> None:
    """Adds the aim of a study if it is not the last one; call it in a transaction that has locked the study's row."""
    history, aim = read_registrations(connection, study.settings.id), aim_of(study.settings)
    if history and history[-1].aim == aim:
        return
    answers = (
        sa.select(sa.func.count())
        .select_from(votes.join(shows, shows.c.token == votes.c.show))
        .where(shows.c.study == study.settings.id)
    )
    connection.execute(
        sa.insert(registrations).values(
            study=study.settings.id,
            number=len(history),
            votes=connection.execute(answers).scalar_one(),
            aim=json.dumps(asdict(aim)),
            at=as_text(now),
        )
    )


def read_registrations(connection: sa.Connection, study: str) -> list[Registration]:
    """All aims that a study had, the oldest first.

    Args:
        connection: to a database with the tables.
        study: its id.
    """
    query = sa.select(registrations).where(registrations.c.study == study).order_by(registrations.c.number)
    return [Registration(aim=_aim_from(row.aim), votes=row.votes, at=row.at) for row in connection.execute(query)]


def _aim_from(text: str) -> Aim:
    values = parse_json(text)
    return Aim(primary=values["primary"], contrasts=tuple((first, second) for first, second in values["contrasts"]))
