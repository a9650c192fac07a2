"""What a rater sees next."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seedpo.study.assignment import Proposal, next_show, total
from seedpo.study.folder import Study
from seedpo.study.records import Candidate, Group, Judgement, Show
from seedpo.study.schedule import REPEAT_AFTER, scheduled
from seedpo.study.settings import Question, StudySettings
from seedpo.study.tournament import next_match

FEW = settings(max_examples=12, deadline=None, derandomize=True)


def study_of(groups: int, *, candidates: int = 2, attention: int = 0, **keys: object) -> Study:
    values = {"id": "s", "questions": (Question(key="preference", text="?"),), **keys}
    members = tuple(Candidate(source=f"m{i}", images=(f"{i:032x}",)) for i in range(candidates))
    found = [Group(id=f"g{i}", question="preference", prompt=f"p{i}", candidates=members) for i in range(groups)] + [
        Group(id=f"c{i}", question="preference", prompt="", candidates=members[:2], expected=i % 2)
        for i in range(attention)
    ]
    return Study(Path("study"), StudySettings.model_validate(values), tuple(found))


class Session:
    """Raters who answer in turn, and the counts that a store would keep."""

    def __init__(self, study: Study, *, with_flips: bool = True) -> None:
        self.study, self.with_flips = study, with_flips
        self.counts: Counter[tuple[str, int, int]] = Counter()
        self.flips: Counter[tuple[str, int, int]] = Counter()
        self.answers: dict[str, list[Judgement]] = {}

    def propose(self, rater: str) -> Proposal | None:
        own = self.answers.setdefault(rater, [])
        return next_show(self.study, own, self.counts, rater=rater, flips=self.flips if self.with_flips else None)

    def step(self, rater: str, answer: str = "first") -> Proposal | None:
        found = self.propose(rater)
        if found is None:
            return None
        own, group = self.answers[rater], self.study.group(found.group)
        show = Show(
            token=f"{rater}-{len(own)}",
            rater=rater,
            group=found.group,
            first=found.first,
            second=found.second,
            flipped=found.flipped,
            number=len(own),
            repeat_of=found.repeat_of,
        )
        own.append(
            Judgement(
                show=show,
                question=group.question,
                prompt=group.prompt,
                category="",
                first=group.candidates[found.first],
                second=group.candidates[found.second],
                answer=answer,  # type: ignore[arg-type]
                expected=None if group.expected is None else "first",
            )
        )
        if found.repeat_of is None:
            key = (found.group, found.first, found.second)
            self.counts[key] += 1
            self.flips[key] += found.flipped
        return found

    def run(self, raters: list[str], seed: int) -> None:
        draw, active = random.Random(seed), list(raters)
        while active:
            rater = draw.choice(active)
            if self.step(rater) is None:
                active.remove(rater)

    def surplus(self, rater: str) -> int:
        return sum(1 if answer.show.flipped else -1 for answer in self.answers[rater])


@FEW
@given(
    groups=st.integers(1, 12),
    candidates=st.integers(2, 4),
    raters=st.integers(1, 4),
    more=st.integers(0, 2),
    seed=st.integers(0, 99),
    with_flips=st.booleans(),
)
def test_each_pair_gets_its_raters_and_nobody_sees_one_twice(
    groups: int, candidates: int, raters: int, more: int, seed: int, with_flips: bool
) -> None:
    study = study_of(groups, candidates=candidates, raters_per_pair=raters, seed=seed)
    session = Session(study, with_flips=with_flips)
    session.run([f"r{i}" for i in range(raters + more)], seed)
    assert len(session.counts) == groups * candidates * (candidates - 1) // 2
    assert set(session.counts.values()) == {raters}
    for own in session.answers.values():
        seen = [(answer.show.group, answer.show.first, answer.show.second) for answer in own]
        assert len(seen) == len(set(seen))
    assert all(abs(2 * session.flips[key] - count) <= 1 for key, count in session.counts.items())


@pytest.mark.parametrize("raters", [1, 3])
def test_sides_of_each_rater_are_even_to_within_one_while_there_is_a_choice(raters: int) -> None:
    session = Session(study_of(60, raters_per_pair=raters, seed=4))
    for _ in range(20):
        for rater in range(raters * 2):
            session.step(f"r{rater}")
            assert abs(session.surplus(f"r{rater}")) <= 1
    assert sum(session.counts.values()) == 20 * raters * 2


def test_fewest_raters_come_first() -> None:
    session = Session(study_of(20, raters_per_pair=3))
    for number in range(20):
        session.step(f"r{number % 4}")
    assert set(session.counts.values()) == {1}
    assert len(session.counts) == 20


def test_the_same_seed_gives_the_same_order_and_another_seed_another() -> None:
    def shown(seed: int, rater: str = "a") -> list[Proposal | None]:
        session = Session(study_of(12, attention=3, checks=0.2, repeats=0.2, seed=seed))
        return [session.step(rater) for _ in range(12)]

    assert shown(1) == shown(1)
    assert shown(1) != shown(2)
    assert shown(1) != shown(1, "b")


@FEW
@given(seed=st.integers(0, 99), checks=st.sampled_from([0.0, 0.1, 0.25]), repeats=st.sampled_from([0.0, 0.1, 0.2]))
def test_checks_and_repeats_come_at_their_shares(seed: int, checks: float, repeats: float) -> None:
    study = study_of(60, attention=40, checks=checks, repeats=repeats, seed=seed)
    session = Session(study)
    while session.step("a"):
        pass
    own = session.answers["a"]
    repeated = [answer for answer in own if answer.show.repeat_of]
    attention = [answer for answer in own if answer.expected]
    assert abs(len(attention) - checks * len(own)) <= 1.5
    assert abs(len(repeated) - repeats * len(own)) <= 1.5
    assert len(own) - len(repeated) - len(attention) == 60
    by_token = {answer.show.token: answer for answer in own}
    for answer in repeated:
        original = by_token[answer.show.repeat_of or ""]
        assert original.show.flipped is not answer.show.flipped
        assert answer.show.number - original.show.number > REPEAT_AFTER
        assert original.expected is None
        assert original.show.repeat_of is None
    assert len({answer.show.repeat_of for answer in repeated}) == len(repeated)
    assert len({answer.show.group for answer in attention}) == len(attention)


def test_places_of_checks_are_drawn_within_their_blocks() -> None:
    steps = [scheduled(0.1, number, "seed") for number in range(1000)]
    places = [number for number, (before, now) in enumerate(pairwise([0, *steps])) if now > before]
    assert steps[-1] == 100
    assert [place // 10 for place in places] == list(range(100))
    assert len({place % 10 for place in places}) == 10


def test_a_rater_who_stops_midway_leaves_no_pair_unreachable() -> None:
    for tournament in ("full", "knockout"):
        study = study_of(6, candidates=3, tournament=tournament)
        session = Session(study)
        for _ in range(3):
            session.step("gone")
        assert session.answers["gone"][-1].show.group
        # What the first one held and never answered is free again, as the store frees it after a while.
        lost = session.answers["gone"].pop().show
        session.counts[lost.group, lost.first, lost.second] -= 1
        session.flips[lost.group, lost.first, lost.second] -= lost.flipped
        while session.step("other"):
            pass
        if tournament == "full":
            assert set(session.counts.values()) == {1}
            continue
        done = set()
        for rater in session.answers:
            for group in study.groups:
                given = [answer for answer in session.answers[rater] if answer.show.group == group.id]
                done |= {group.id} if len(given) == 2 else set()
        assert done == {group.id for group in study.groups}


def test_a_knockout_finds_the_best_in_one_comparison_less_than_there_are_candidates() -> None:
    study = study_of(5, candidates=4, tournament="knockout")
    session = Session(study)
    assert total(study, [], session.counts, rater="a") == 15
    groups = []
    while (found := session.propose("a")) is not None:
        session.step("a", "first" if found.first == 2 else "second" if found.second == 2 else "tie")
        groups.append(found.group)
    assert [len(list(filter(lambda name: name == group, groups))) for group in dict.fromkeys(groups)] == [3] * 5
    assert all(before == after for before, after in zip(groups[::3], groups[2::3], strict=True))
    last = session.answers["a"][2::3]
    assert all(2 in (answer.show.first, answer.show.second) for answer in last)


def test_the_better_one_stays_and_a_tie_changes_nothing() -> None:
    assert next_match([2, 0, 1], {}) == (0, (0, 2))
    assert next_match([2, 0, 1], {(0, 2): "first"}) == (1, (0, 1))
    assert next_match([2, 0, 1], {(0, 2): "tie"}) == (1, (1, 2))
    assert next_match([2, 0, 1], {(0, 2): "second", (1, 2): "bad"}) is None


def test_nobody_gets_more_than_the_tasks_that_are_allowed() -> None:
    session = Session(study_of(9, tasks_per_rater=4))
    assert total(session.study, [], session.counts, rater="a") == 4
    assert [session.step("a") is None for _ in range(5)] == [False] * 4 + [True]


@pytest.mark.parametrize(("checks", "repeats"), [(0.0, 0.0), (0.1, 0.1)])
def test_the_total_is_told_from_the_beginning(checks: float, repeats: float) -> None:
    study = study_of(30, attention=10, checks=checks, repeats=repeats)
    session = Session(study)
    told = []
    while True:
        told.append(total(study, session.answers.get("a", []), session.counts, rater="a"))
        if session.step("a") is None:
            break
    end = len(session.answers["a"])
    assert told[-1] == end
    assert all(abs(value - end) <= 2 for value in told)
