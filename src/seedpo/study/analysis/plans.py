"""``seedpo study plan``: the table of how many raters and prompts a difference needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from seedpo.core.stats.two_way import LEAST_RATERS
from seedpo.errors import ConfigError, DataError
from seedpo.pages.wording import count
from seedpo.study.analysis.power import MOST_PROMPTS, Components, Goal, Plan, components_of, effect_of, plan
from seedpo.study.analysis.vote_statistics import by_sources, sort_answers
from seedpo.study.folder import open_study
from seedpo.study.votes.store import Store

USUAL_RATERS = (5, 6, 8, 10, 12, 16, 20, 30, 50)
"""Numbers of raters in the table."""

USUAL = {"ties": 0.1, "rater-sd": 0.5, "prompt-sd": 0.7}
"""Share of ties, and how far raters and prompts differ in logits, where nothing is said."""

SECONDS = 8.0
"""Per vote, where nothing is known."""

HEADING = ("raters", "prompts", "votes", "votes per rater", "minutes per rater")


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """What is taken for granted about votes.

    Attributes:
        components: of a vote's variance.
        seconds: per vote.
        words: where they come from.
    """

    components: Components
    seconds: float
    words: str


def assumptions_of(
    goal: Goal,
    *,
    pilot: Path | None = None,
    question: str | None = None,
    url: str | None = None,
    ties: float | None = None,
    rater_sd: float | None = None,
    prompt_sd: float | None = None,
    seconds: float | None = None,
) -> Assumptions:
    """What a plan rests on: numbers, or the votes of a pilot study.

    Args:
        goal: of the study.
        pilot: folder of a study whose votes say what ``ties``, ``rater_sd`` and ``prompt_sd`` would.
        question, url: of the pilot, see :func:`of_pilot`.
        ties, rater_sd, prompt_sd: see :func:`seedpo.study.analysis.power.effect_of`; `None`: :data:`USUAL`.
        seconds: per vote; `None`: the pilot's median, else :data:`SECONDS`.

    Raises:
        ConfigError: arguments that contradict each other.
    """
    spread = {"ties": ties, "rater-sd": rater_sd, "prompt-sd": prompt_sd}
    if pilot is not None:
        given = [name for name, value in spread.items() if value is not None]
        if given:
            raise ConfigError(f"--{given[0]} and --pilot contradict each other: the pilot's votes say it; drop one")
        return of_pilot(pilot, url=url, question=question, seconds=seconds)
    for name, value in (("question", question), ("database", url)):
        if value is not None:
            raise ConfigError(f"--{name} is about a pilot study: add --pilot STUDY, or leave it out")
    share, raters, prompts = (USUAL[name] if value is None else value for name, value in spread.items())
    effect = effect_of(goal.rate, ties=share, rater_sd=raters, prompt_sd=prompts)
    return Assumptions(
        components=effect.components,
        seconds=SECONDS if seconds is None else seconds,
        words=f"Assumed: {share:.0%} ties; raters differ by {raters:g} and prompts by {prompts:g} logits (sd).",
    )


def of_pilot(folder: Path, *, url: str | None, question: str | None, seconds: float | None) -> Assumptions:
    """Assumptions from the votes of a pilot study.

    Args:
        folder: of the study.
        url: of its database; `None`: its own.
        question: whose votes are read; `None`: the primary one, else the first one on pairs.
        seconds: per vote; `None`: the pilot's median.

    Raises:
        ConfigError: the study has no such question.
        DataError: its votes show no components.
    """
    study = open_study(folder)
    settings = study.settings
    with Store.open(study, url, write=False) as store:
        votes = sort_answers(store.judgements()).votes
    keys = [entry.key for entry in settings.questions]
    if question is not None and question not in keys:
        raise ConfigError(f"--question {question}: study {folder} asks {', '.join(keys)}")
    asked = [key for key in (question, settings.primary) if key is not None] or keys
    for key in asked:
        own = [vote for vote in votes if vote.question == key]
        pairs = by_sources(own)
        if pairs:
            break
    else:
        raise DataError(f"study {folder} has no vote on a pair of models for {', '.join(asked)}")
    components = components_of(own)
    times = [vote.seconds for vote in own if vote.seconds is not None]
    raters, total = len({vote.show.rater for vote in own}), sum(map(len, pairs.values()))
    of_raters, of_prompts = (f"{100 * math.sqrt(part):.0f}" for part in (components.raters, components.prompts))
    source = f"From {total} votes of {raters} raters on {key!r} in {folder}"
    return Assumptions(
        components=components,
        seconds=seconds if seconds is not None else median(times) if times else SECONDS,
        words=f"{source}: rates of raters differ by {of_raters} points, those of prompts by {of_prompts} (sd).",
    )


def plan_lines(goal: Goal, given: Assumptions, *, raters: Sequence[int], per_pair: int, models: int) -> list[str]:
    """The table and what it rests on, line by line.

    Args:
        goal: what the study is to show.
        given: what is taken for granted.
        raters: their numbers, one row each.
        per_pair: raters who compare each pair of images.
        models: every pair of them is compared on every prompt.
    """
    plans = [plan(goal, given.components, raters=number, per_pair=per_pair, models=models) for number in raters]
    each = f"each of {goal.contrasts} contrasts" if goal.contrasts > 1 else "one contrast"
    aim = f"To show {goal.rate:.3g} against 0.5 in {each} with power {goal.power:g}, errors at {1 - goal.level:.3g}"
    lines = [f"{aim}, {count(per_pair, 'rater')} per pair, {models} models:"]
    lines += _aligned([HEADING, *(_cells(row, given.seconds) for row in plans)])
    lines.append(given.words)
    if any(row.prompts is None for row in plans):
        why = f"no verdict below {LEAST_RATERS} raters, or not reached with {MOST_PROMPTS} prompts since raters differ"
        lines.append(f"-: {why}.")
    return lines


def _cells(row: Plan, seconds: float) -> tuple[str, ...]:
    if row.prompts is None:
        return (str(row.raters), "-", "-", "-", "-")
    votes = row.votes_per_rater
    total, minutes = round(votes * row.raters), round(votes * seconds / 60.0)
    return (str(row.raters), str(row.prompts), str(total), str(math.ceil(votes - 1e-9)), str(minutes or "<1"))


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
