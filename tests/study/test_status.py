"""How far a study is: what the database counts is what the answers say."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest

from seedpo.study.analysis.vote_statistics import sort_answers
from seedpo.study.folder import Study
from seedpo.study.records import Side
from seedpo.study.status import question_status, rater_status
from seedpo.study.votes import figures
from seedpo.study.votes.store import Store
from tests.study.small_study import Clock, pairs_of, small_study

PLAIN = {"bad": "tie"}
Opened = Callable[[Study, str], Store]


def answered_study(folder: Path, url: str, opened: Opened, clock: Clock) -> Store:
    """Ten raters, one of whom answers nothing and one of whom is excluded."""
    rng = random.Random(5)
    groups = [*pairs_of(9), *(replace(group, id=f"c{group.id}", expected=1) for group in pairs_of(3))]
    store = opened(small_study(folder, groups, checks=0.25, repeats=0.25, raters_per_pair=4, seed=3), url)
    raters = [store.add_rater(f"rater {number}")[0] for number in range(10)]
    for number, rater in enumerate(raters[1:]):
        for step in range(6 + number):
            show = store.turn(rater).show
            if show is None:
                break
            clock.pass_(seconds=1)
            side: Side = rng.choice(["left", "right", "tie", "bad", "skip"])
            seconds = None if step % 4 == 0 else rng.random() * 10
            store.vote(rater, show.token, side, key="k1", seconds=seconds)
            if step % 5 == 0:
                store.vote(rater, show.token, rng.choice(["left", "right"]), key="k2", seconds=2.0)
    store.exclude(raters[3])
    return store


def test_raters_are_counted_as_their_answers_say(
    tmp_path: Path, database: str, opened: Opened, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "_NAMES", 2)
    store = answered_study(tmp_path / "s", database, opened, clock)
    judgements = store.judgements(excluded=True)
    status = rater_status(store, store.figures())
    assert [line.rater for line in status] == store.raters()
    for line in status:
        own = [judgement for judgement in judgements if judgement.show.rater == line.rater.id]
        answers = sort_answers(own)
        times = [judgement.seconds for judgement in own if judgement.seconds is not None]
        assert (line.answered, line.skipped) == (len(own), answers.skipped)
        decided = [one.passed for one in answers.checks if one.answer not in ("bad", "skip")]
        assert (line.checks, line.checks_passed) == (len(decided), sum(decided))
        pairs = [tuple(PLAIN.get(one.answer, one.answer) for one in pair) for pair in answers.repeats]
        assert (line.repeats, line.repeats_same) == (len(pairs), sum(first == second for first, second in pairs))
        assert line.seconds == (pytest.approx(median(times)) if times else None)
        assert line.last == max((judgement.at for judgement in own), default="")
    assert sum(line.repeats for line in status) > 0
    assert sum(line.checks for line in status) > 0
    assert sum(line.skipped for line in status) > 0


def test_questions_are_counted_as_the_answers_say(tmp_path: Path, database: str, opened: Opened, clock: Clock) -> None:
    store = answered_study(tmp_path / "s", database, opened, clock)
    regular = [judgement for judgement in store.judgements() if judgement.regular]
    first, second = question_status(store.study, store.figures())
    assert first.sides == Counter(judgement.show.side(judgement.answer) for judgement in regular)
    assert first.answers == len(regular) > 20
    raters = Counter(judgement.show.unit for judgement in regular)
    assert (first.begun, first.complete) == (len(raters), sum(number >= 4 for number in raters.values()))
    assert first.groups == 9
    assert (second.answers, second.begun, second.groups, second.sides) == (0, 0, 0, {})


def test_pages_of_votes_show_one_moment(tmp_path: Path, database: str, opened: Opened, clock: Clock) -> None:
    store = answered_study(tmp_path / "s", database, opened, clock)
    now = store.judgements()
    pages = store.pages(number=7)
    first = next(pages)
    corrected = now[-1].show
    for rater in store.raters():
        show = store.turn(rater.id).show
        if show is not None:
            store.vote(rater.id, show.token, "left", key="later")
    store.vote(corrected.rater, corrected.token, "skip", key="later")
    rest = list(pages)
    assert [judgement for page in (first, *rest) for judgement in page] == now
    assert [len(page) for page in (first, *rest)] == [7] * (len(now) // 7) + [len(now) % 7] * (len(now) % 7 > 0)
    assert store.judgements() != now
    assert store.widest_view() == 2
