"""How far a study is: figures for its admin page and for the command line."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from seedpo.study.analysis.vote_statistics import summaries
from seedpo.study.analysis.wording import change_words
from seedpo.study.folder import Study, open_study
from seedpo.study.records import UNITS, Rater, Show, Unit
from seedpo.study.votes.figures import Figures, RaterFigures
from seedpo.study.votes.registration import Registration, aim_of, split
from seedpo.study.votes.store import Store
from seedpo.study.votes.tables import indices_of


@dataclass(frozen=True, kw_only=True)
class QuestionStatus:
    """Status of one question; attention checks and repetitions do not count.

    Attributes:
        key, text: of the question.
        groups: number of groups.
        answers: number of counted answers.
        begun: pairs, images or views with at least one answer.
        complete: how many of them have as many raters as wanted.
        sides: how often each side or answer was chosen.
    """

    key: str
    text: str
    groups: int
    answers: int
    begun: int
    complete: int
    sides: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class RaterStatus:
    """Status of one rater.

    Attributes:
        rater: the rater.
        answered: number of answered shows, checks and repetitions included.
        skipped: how many units the rater skipped; checks and repetitions do not count.
        checks, checks_passed: answered attention checks, and those answered as expected.
        repeats, repeats_same: units answered twice, and those answered twice alike.
        seconds: median time per answer; `None` if unknown.
        last: time of the last answer, ISO 8601, UTC; empty if there is none.
    """

    rater: Rater
    answered: int
    skipped: int
    checks: int
    checks_passed: int
    repeats: int
    repeats_same: int
    seconds: float | None
    last: str


def rater_status(store: Store, figures: Figures) -> list[RaterStatus]:
    """The status of each rater, including raters without an answer and excluded ones."""
    raters = store.raters()
    checks = {group.id for group in store.study.groups if group.expected is not None}
    skipped: Counter[str] = Counter()
    for row in figures.skips:
        skipped[row.rater] += row.number if row.group not in checks else 0
    names = [rater.id for rater in raters]
    attention = summaries(store.attention(), left_out=(), fast_seconds=0.0, raters=names)
    by_name = {summary.rater: summary for summary in attention}
    nothing = RaterFigures(answered=0, last="", seconds=None)
    return [
        RaterStatus(
            rater=rater,
            skipped=skipped[rater.id],
            **vars(figures.raters.get(rater.id, nothing)),
            **{
                name: getattr(by_name[rater.id], name)
                for name in ("checks", "checks_passed", "repeats", "repeats_same")
            },
        )
        for rater in raters
    ]


def question_status(study: Study, figures: Figures) -> list[QuestionStatus]:
    """The status of each question, in the order of ``study.yaml``."""
    groups = Counter(group.question for group in study.groups if group.expected is None)
    raters: dict[str, Counter[Unit]] = defaultdict(Counter)
    sides: dict[str, Counter[str]] = defaultdict(Counter)
    for row in figures.answers:
        group = study.group(row.group)
        if group.expected is None:
            show = Show(token="", rater="", group=row.group, order=indices_of(row.places), number=0)
            raters[group.question][show.unit] += row.number
            sides[group.question][show.side(row.answer)] += row.number
    return [
        QuestionStatus(
            key=question.key,
            text=question.text,
            groups=groups[question.key],
            answers=sides[question.key].total(),
            begun=len(raters[question.key]),
            complete=sum(number >= study.settings.raters_per_pair for number in raters[question.key].values()),
            sides=dict(sides[question.key]),
        )
        for question in study.settings.questions
    ]


def aim_words(store: Store, figures: Figures) -> str:
    """What a comparison of models was made to answer, as the database remembers it; empty for a collection."""
    settings = store.study.settings
    if settings.kind != "study":
        return ""
    answers = sum(rater.answered for rater in figures.raters.values())
    aim, changes = split(store.registrations(), Registration(aim=aim_of(settings), votes=answers, at=""))
    return change_words(aim, changes) or f"Made to answer: {aim}."


def status_lines(folder: Path, *, url: str | None = None) -> list[str]:
    """The status of a study in words.

    Args:
        folder: of the study.
        url: of the database; `None`: the study's own.

    Raises:
        SeedpoError: the study or its database cannot be used.
    """
    study = open_study(folder, verify=False)
    with Store.open(study, url, write=False) as store:
        figures = store.figures()
        questions = question_status(store.study, figures)
        raters, aim = rater_status(store, figures), aim_words(store, figures)
    lines = [f"{study.settings.title} ({study.settings.kind}, {len(study.groups)} groups)", *([aim] if aim else [])]
    lines += [
        f"  {line.key}: {line.answers} answers; {line.complete} of {line.begun} begun {UNITS[question.form]} complete"
        for line, question in zip(questions, study.settings.questions, strict=True)
    ]
    lines.append(f"{len(raters)} raters, {sum(status.answered > 0 for status in raters)} have answered")
    return lines + [f"  {_rater_line(status)}" for status in raters]


def rater_row(status: RaterStatus) -> dict[str, str | bool]:
    """A line of the admin page: texts by column, and whether the link is revoked and the rater excluded."""
    rater = status.rater
    return {
        "id": rater.id,
        "label": rater.label,
        "answered": str(status.answered),
        "skipped": str(status.skipped),
        "checks": f"{status.checks_passed} of {status.checks}" if status.checks else "",
        "repeats": f"{status.repeats_same} of {status.repeats}" if status.repeats else "",
        "seconds": "" if status.seconds is None else f"{status.seconds:.1f}",
        "last": status.last[:16].replace("T", " "),
        "link": ", ".join(_states(rater)) or (f"ends {rater.expires[:10]}" if rater.expires else "valid"),
        "revoked": rater.revoked,
        "excluded": rater.excluded,
    }


def _states(rater: Rater) -> list[str]:
    return [word for word in ("revoked", "expired", "excluded") if getattr(rater, word)]


def _rater_line(status: RaterStatus) -> str:
    rater = status.rater
    name = f"{rater.id} ({rater.label})" if rater.label else rater.id
    parts = [f"{status.answered} answers"]
    if status.checks:
        parts.append(f"checks {status.checks_passed}/{status.checks}")
    if status.repeats:
        parts.append(f"repeats {status.repeats_same}/{status.repeats}")
    return f"{name}: {', '.join(parts + _states(rater))}"
