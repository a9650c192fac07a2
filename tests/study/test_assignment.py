"""What a rater sees next: pairs, sides, checks and repetitions, knockouts, and questions in blocks."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby, pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seedpo.study.assignment import (
    REPEAT_AFTER,
    Proposal,
    block_order,
    next_show,
    scheduled,
    total,
)
from seedpo.study.folder import Study, open_study
from seedpo.study.records import Answer, Candidate, Group, Judgement, Show, Unit, judge
from seedpo.study.settings import Question, StudySettings
from seedpo.study.votes.store import Store
from tests.study.small_study import pairs_of, small_study

FEW = settings(max_examples=12, deadline=None, derandomize=True)
KEYS = ("preference", "appeal", "alignment", "diversity")


def study_of(
    groups: int,
    *,
    candidates: int = 2,
    attention: int = 0,
    questions: Sequence[str] = KEYS[:1],
    form: str = "pair",
    **keys: object,
) -> Study:
    """For each question so many groups and attention checks."""
    size = {"pair": 2, "single": 1}.get(form, candidates)
    members = tuple(Candidate(source=f"m{i}", images=(f"{i:032x}",)) for i in range(candidates))
    tasks = [
        Group(id=f"{key}-{number}", question=key, prompt=f"p{number}", candidates=members)
        for number in range(groups)
        for key in questions
    ]
    checks = [
        Group(id=f"check-{key}-{number}", question=key, prompt="", candidates=members[:size], expected=number % size)
        for number in range(attention)
        for key in questions
    ]
    values = {"id": "s", "questions": tuple(Question(key=key, text=key, form=form) for key in questions), **keys}
    return Study(Path("study"), StudySettings.model_validate(values), (*tasks, *checks))


class Session:
    """Raters who answer in turn, and the counts that a store would keep."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.counts: Counter[Unit] = Counter()
        self.flips: Counter[Unit] = Counter()
        self.answers: dict[str, list[Judgement]] = {}

    def propose(self, rater: str, turn: int = 0) -> Proposal | None:
        own = self.answers.setdefault(rater, [])
        return next_show(self.study, own, self.counts, self.flips, rater=rater, turn=turn, token=f"{rater}-{len(own)}")

    def step(self, rater: str, answer: Answer = "first", turn: int = 0) -> Proposal | None:
        proposal = self.propose(rater, turn)
        if proposal is None:
            return None
        own = self.answers[rater]
        show = Show(token=f"{rater}-{len(own)}", rater=rater, number=len(own), **vars(proposal))
        own.append(judge(show, self.study.group(proposal.group), answer))
        if proposal.repeat_of is None:
            self.counts[show.unit] += 1
            self.flips[show.unit] += show.flipped
        return proposal

    def run(self, raters: int, seed: int) -> None:
        """Raters r0, r1, ... answer in a drawn order until nothing is left."""
        draw, active = random.Random(seed), list(range(raters))
        while active:
            number = draw.choice(active)
            if self.step(f"r{number}", turn=number) is None:
                active.remove(number)

    def blocks(self, rater: str) -> list[str]:
        return [question for question, _ in groupby(answer.question for answer in self.answers.get(rater, ()))]


@FEW
@given(
    groups=st.integers(1, 12),
    candidates=st.integers(2, 4),
    raters=st.integers(1, 4),
    more=st.integers(0, 2),
    seed=st.integers(0, 99),
)
def test_each_pair_gets_its_raters_and_nobody_sees_one_twice(
    groups: int, candidates: int, raters: int, more: int, seed: int
) -> None:
    study = study_of(groups, candidates=candidates, raters_per_pair=raters, seed=seed)
    session = Session(study)
    session.run(raters + more, seed)
    assert len(session.counts) == groups * candidates * (candidates - 1) // 2
    assert set(session.counts.values()) == {raters}
    for own in session.answers.values():
        seen = [answer.show.unit for answer in own]
        assert len(seen) == len(set(seen))
    assert all(abs(2 * session.flips[pair] - count) <= 1 for pair, count in session.counts.items())


def test_fewest_raters_come_first() -> None:
    session = Session(study_of(20, raters_per_pair=3))
    for number in range(20):
        session.step(f"r{number % 4}")
    assert set(session.counts.values()) == {1}
    assert len(session.counts) == 20


def test_the_order_depends_on_seed_and_rater_alone() -> None:
    def shown(seed: int, rater: str = "a") -> list[Proposal | None]:
        session = Session(study_of(12, attention=3, checks=0.2, repeats=0.2, seed=seed))
        return [session.step(rater) for _ in range(12)]

    assert shown(1) == shown(1)
    assert shown(1) != shown(2)
    assert shown(1) != shown(1, "b")


def require_repetitions_are_fair(own: Sequence[Judgement]) -> None:
    """Each repeats a regular show of the same question once, a while later."""
    by_token = {answer.show.token: answer for answer in own}
    repeats = [answer for answer in own if answer.show.repeat_of is not None]
    for answer in repeats:
        original = by_token[answer.show.repeat_of or ""]
        assert original.regular
        assert original.question == answer.question
        assert original.show.unit == answer.show.unit
        assert answer.show.number - original.show.number > REPEAT_AFTER
    assert len({answer.show.repeat_of for answer in repeats}) == len(repeats)


@FEW
@given(
    seed=st.integers(0, 99),
    checks=st.sampled_from([0.0, 0.1, 0.25]),
    repeats=st.sampled_from([0.0, 0.1, 0.2]),
    order=st.sampled_from(["mixed", "blocks"]),
)
def test_checks_and_repeats_come_at_their_shares_and_the_total_is_known(
    seed: int, checks: float, repeats: float, order: str
) -> None:
    questions = KEYS[: 1 if order == "mixed" else 4]
    study = study_of(
        60 // len(questions), attention=10, questions=questions, checks=checks, repeats=repeats, seed=seed, order=order
    )
    session, totals = Session(study), []
    while True:
        totals.append(total(study, session.answers.get("a", []), session.counts, rater="a"))
        if session.step("a") is None:
            break
    own = session.answers["a"]
    attention = [answer for answer in own if answer.expected]
    repeated = [answer for answer in own if answer.show.repeat_of]
    assert len([answer for answer in own if answer.regular]) == 60
    tolerance = 1.5 if order == "mixed" else 3.0
    assert abs(len(attention) - min(checks * len(own), 10 * len(questions))) <= tolerance
    assert abs(len(repeated) - repeats * len(own)) <= tolerance
    assert len({answer.show.group for answer in attention}) == len(attention)
    require_repetitions_are_fair(own)
    assert len(session.blocks("a")) == len(questions)
    assert totals[-1] == len(own)
    assert all(abs(value - len(own)) <= 2 * tolerance for value in totals), "the progress bar knows the end"


def test_places_of_checks_are_drawn_within_their_blocks() -> None:
    steps = [scheduled(0.1, number, "seed") for number in range(1000)]
    places = [number for number, (before, now) in enumerate(pairwise([0, *steps])) if now > before]
    assert steps[-1] == 100
    assert [place // 10 for place in places] == list(range(100))
    assert len({place % 10 for place in places}) == 10


@pytest.mark.parametrize("tournament", ["full", "knockout"])
def test_a_rater_who_stops_midway_leaves_no_pair_unreachable(tournament: str) -> None:
    study = study_of(6, candidates=3, tournament=tournament)
    session = Session(study)
    for _ in range(3):
        session.step("gone")
    # What the first one held and never answered is free again, as the store frees it after a while.
    lost = session.answers["gone"].pop().show
    session.counts[lost.unit] -= 1
    session.flips[lost.unit] -= lost.flipped
    while session.step("other"):
        pass
    if tournament == "full":
        assert set(session.counts.values()) == {1}
        return
    answered = Counter((answer.show.rater, answer.show.group) for own in session.answers.values() for answer in own)
    assert {group for (_, group), count in answered.items() if count == 2} == {group.id for group in study.groups}


def test_nobody_gets_more_than_the_allowed_tasks() -> None:
    session = Session(study_of(9, tasks_per_rater=4))
    assert total(session.study, [], session.counts, rater="a") == 4
    assert [session.step("a") is None for _ in range(5)] == [False] * 4 + [True]


# Knockouts.


def test_a_rater_plays_one_knockout_after_the_other() -> None:
    study = study_of(5, candidates=4, tournament="knockout")
    session = Session(study)
    assert total(study, [], session.counts, rater="a") == 15
    while (proposal := session.propose("a")) is not None:
        first, second = sorted(proposal.order)
        session.step("a", "first" if first == 2 else "second" if second == 2 else "tie")
    own = session.answers["a"]
    assert [len(list(answers)) for _, answers in groupby(own, key=lambda answer: answer.show.group)] == [3] * 5
    assert all(2 in (answer.show.first, answer.show.second) for answer in own[2::3])


# Questions in blocks.


def test_each_question_is_at_each_place_and_after_each_other_one_equally_often() -> None:
    for count in (1, 2, 3, 4, 5):
        keys = [f"q{number}" for number in range(count)]
        for seed in range(3):
            rows = [block_order(keys, turn, seed=seed) for turn in range(2 * count)]
            assert all(sorted(row) == keys for row in rows)
            for half in (rows[:count], rows[count:]):
                assert all(len({row[place] for row in half}) == count for place in range(count))
            follows = Counter(pair for row in rows for pair in pairwise(row))
            assert set(follows.values()) <= {2}
            assert len(follows) == count * (count - 1)


def test_the_order_of_blocks_depends_on_the_seed() -> None:
    orders = [tuple(tuple(block_order(KEYS, turn, seed=seed)) for turn in range(4)) for seed in range(5)]
    assert orders[0] == tuple(tuple(block_order(KEYS, turn, seed=0)) for turn in range(4))
    assert len(set(orders)) > 1


@pytest.mark.parametrize(("candidates", "tournament"), [(2, "full"), (3, "full"), (3, "knockout")])
def test_one_question_after_the_other_and_every_pair_gets_its_raters(candidates: int, tournament: str) -> None:
    study = study_of(4, candidates=candidates, questions=KEYS, raters_per_pair=4, tournament=tournament, order="blocks")
    session = Session(study)
    session.run(4, seed=1)
    assert all(sorted(session.blocks(rater)) == sorted(KEYS) for rater in session.answers), "no question comes back"
    assert len({session.blocks(rater)[0] for rater in session.answers}) == 4
    answered = Counter((answer.show.rater, answer.show.group) for own in session.answers.values() for answer in own)
    matches = candidates * (candidates - 1) // 2 if tournament == "full" else candidates - 1
    assert set(answered.values()) == {matches}
    assert len(answered) == 4 * 16
    if tournament == "full":
        assert set(session.counts.values()) == {4}
        assert all(2 * session.flips[pair] == count for pair, count in session.counts.items())


def test_more_raters_than_needed_share_the_pairs_of_blocks() -> None:
    session = Session(study_of(6, questions=KEYS, raters_per_pair=2, order="blocks"))
    session.run(7, seed=2)
    assert len(session.counts) == 24
    assert set(session.counts.values()) == {2}
    assert all(len(session.blocks(rater)) == len(set(session.blocks(rater))) for rater in session.answers)


def test_a_knockout_that_someone_plays_is_not_given_again_while_other_questions_wait() -> None:
    session = Session(study_of(1, candidates=3, questions=KEYS, tournament="knockout", order="blocks"))
    assert session.step("a")
    first = session.answers["a"][0].question
    while first not in session.blocks("b") and session.step("b", turn=1):
        pass
    assert session.blocks("b")[:3] == [key for key in block_order(KEYS, 1, seed=0) if key != first]


def test_mixed_questions_stay_mixed() -> None:
    session = Session(study_of(10, questions=KEYS, order="mixed"))
    session.run(1, seed=0)
    assert len(session.blocks("r0")) > 8


def test_raters_of_a_store_begin_with_different_questions(tmp_path: Path) -> None:
    questions = tuple(Question(key=key, text=key) for key in KEYS[:2])
    pairs = pairs_of(3)
    others = [replace(group, id=f"other-{group.id}", question=KEYS[1]) for group in pairs]
    study = small_study(tmp_path / "study", pairs + others, order="blocks", raters_per_pair=4, questions=questions)
    store = Store.open(study)
    try:
        raters = [name for name, _ in store.add_raters([""] * 4)]
        raters.sort(key=[rater.id for rater in store.raters()].index)
        blocks = [_all_answered(store, study, rater) for rater in raters]
    finally:
        store.close()
    keys = list(KEYS[:2])
    assert all(order in (keys, keys[::-1]) for order in blocks)
    assert blocks.count(keys) == 2


def _all_answered(store: Store, study: Study, rater: str) -> Sequence[str]:
    """Answers everything; gives the questions in their order. What was foretold each time comes next."""
    questions = []
    while (show := store.turn(rater).show) is not None:
        questions.append(study.group(show.group).question)
        foretold = {(proposal.group, min(proposal.order)) for proposal in store.turn(rater).upcoming}
        store.vote(rater, show.token, "left", key=f"key-{len(questions)}")
        following = store.turn(rater).show
        assert foretold == ({(following.group, following.first)} if following else set())
    return [question for question, _ in groupby(questions)]


def test_studies_without_the_key_stay_mixed(tmp_path: Path) -> None:
    folder = small_study(tmp_path / "study", order="blocks").folder
    file = folder / "study.yaml"
    assert open_study(folder).settings.order == "blocks"
    file.write_text(file.read_text(encoding="utf-8").replace("order: blocks\n", ""), encoding="utf-8")
    assert open_study(folder).settings.order == "mixed"


# Single images, and several in one view.


@pytest.mark.parametrize(("form", "units"), [("single", 5), ("best-worst", 5)])
def test_every_image_or_view_gets_its_raters_and_nobody_sees_one_twice(form: str, units: int) -> None:
    study = study_of(6, candidates=5, form=form, raters_per_pair=2, seed=3)
    session = Session(study)
    assert total(study, [], session.counts, rater="r0") == 6 * units
    session.run(3, seed=1)
    assert len(session.counts) == 6 * units
    assert set(session.counts.values()) == {2}
    for own in session.answers.values():
        seen = [answer.show.unit for answer in own]
        assert len(seen) == len(set(seen))
        assert {len(members) for _, members in seen} == {1 if form == "single" else 4}


def test_the_fewest_raters_come_first_for_images_and_views_too() -> None:
    session = Session(study_of(4, candidates=5, form="single", raters_per_pair=3))
    for number in range(20):
        session.step(f"r{number % 4}")
    assert set(session.counts.values()) == {1}


def test_every_place_of_a_view_is_equally_likely() -> None:
    study = study_of(1, candidates=4, form="best-worst")
    shown = [next_show(study, [], {}, {}, rater="r", token=f"{number}") for number in range(2400)]
    orders = Counter(proposal.order for proposal in shown if proposal is not None)
    assert len(orders) == 24
    assert sum((count - 100) ** 2 / 100 for count in orders.values()) < 49.7  # chi-square, 23 degrees: 0.999


@pytest.mark.parametrize("form", ["single", "best-worst"])
def test_checks_and_repetitions_of_other_forms(form: str) -> None:
    session = Session(study_of(10, candidates=4, attention=6, form=form, checks=0.2, repeats=0.1))
    session.run(1, seed=0)
    own = session.answers["r0"]
    checks = [answer for answer in own if answer.expected is not None]
    assert len(checks) >= 2
    assert {answer.expected for answer in checks} == {"dislike" if form == "single" else "ranked"}
    if form == "single":
        assert [replace(answer, answer="dislike").passed for answer in checks] == [True] * len(checks)
        assert not any(replace(answer, answer="like").passed for answer in checks)
        return
    require_repetitions_are_fair(own)
    for answer in checks:
        worst = answer.expected_worst
        best = next(index for index in answer.show.members if index != worst)
        assert replace(answer, answer="ranked", best=best, worst=worst).passed
        assert not replace(answer, answer="ranked", best=worst, worst=best).passed
        assert not replace(answer, answer="skip").passed
