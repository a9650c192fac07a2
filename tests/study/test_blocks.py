"""Questions in blocks: one after the other for a rater, each as often first, and all other promises kept."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby, pairwise
from pathlib import Path

import pytest

from seedpo.study.assignment import next_show, total
from seedpo.study.blocks import block_order
from seedpo.study.folder import Study, open_study
from seedpo.study.records import Candidate, Group, Judgement, Show
from seedpo.study.schedule import REPEAT_AFTER
from seedpo.study.settings import Question, StudySettings
from seedpo.study.store import Store
from tests.study.small_study import pairs_of, small_study

KEYS = ("preference", "appeal", "alignment", "diversity")


def study_of(pairs: int, *, candidates: int = 2, attention: int = 0, **keys: object) -> Study:
    """Of each question so many groups, and so many attention checks."""
    members = tuple(Candidate(source=f"m{i}", images=(f"{i:032x}",)) for i in range(candidates))
    groups = [
        Group(id=f"{key}-{number}", question=key, prompt=f"p{number}", candidates=members)
        for number in range(pairs)
        for key in KEYS
    ]
    groups += [
        Group(id=f"check-{key}-{number}", question=key, prompt="", candidates=members[:2], expected=0)
        for number in range(attention)
        for key in KEYS
    ]
    values = {"id": "s", "questions": tuple(Question(key=key, text=key) for key in KEYS), "order": "blocks", **keys}
    return Study(Path("study"), StudySettings.model_validate(values), tuple(groups))


class Session:
    """Raters who answer in turn, and the counts that a store would keep."""

    def __init__(self, study: Study, raters: int) -> None:
        self.study = study
        self.counts: Counter[tuple[str, int, int]] = Counter()
        self.flips: Counter[tuple[str, int, int]] = Counter()
        self.own: list[list[Judgement]] = [[] for _ in range(raters)]

    def step(self, rater: int) -> bool:
        own = self.own[rater]
        found = next_show(self.study, own, self.counts, rater=f"r{rater}", turn=rater, flips=self.flips)
        if found is None:
            return False
        group = self.study.group(found.group)
        show = Show(token=f"{rater}-{len(own)}", rater=f"r{rater}", number=len(own), **vars(found))
        own.append(
            Judgement(
                show=show,
                question=group.question,
                prompt=group.prompt,
                category="",
                first=group.candidates[found.first],
                second=group.candidates[found.second],
                answer="first",
                expected=None if group.expected is None else "first",
            )
        )
        if found.repeat_of is None:
            key = (found.group, found.first, found.second)
            self.counts[key] += 1
            self.flips[key] += found.flipped
        return True

    def run(self, seed: int) -> None:
        draw, active = random.Random(seed), list(range(len(self.own)))
        while active:
            rater = draw.choice(active)
            if not self.step(rater):
                active.remove(rater)

    def blocks(self, rater: int) -> list[str]:
        return [question for question, _ in groupby(answer.question for answer in self.own[rater])]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_each_question_is_at_each_place_and_after_each_other_one_equally_often(count: int) -> None:
    keys = [f"q{number}" for number in range(count)]
    for seed in range(3):
        rows = [block_order(keys, turn, seed=seed) for turn in range(2 * count)]
        assert all(sorted(row) == keys for row in rows)
        for part in (rows[:count], rows[count:]):
            assert all(len({row[place] for row in part}) == count for place in range(count))
        follows = Counter(pair for row in rows for pair in pairwise(row))
        assert set(follows.values()) <= {2}
        assert len(follows) == count * (count - 1)


def test_the_order_of_blocks_follows_from_the_seed() -> None:
    orders = [tuple(tuple(block_order(KEYS, turn, seed=seed)) for turn in range(4)) for seed in range(5)]
    assert orders[0] == tuple(tuple(block_order(KEYS, turn, seed=0)) for turn in range(4))
    assert len(set(orders)) > 1


@pytest.mark.parametrize(("candidates", "tournament"), [(2, "full"), (3, "full"), (3, "knockout")])
def test_one_question_after_the_other_and_every_pair_gets_its_raters(candidates: int, tournament: str) -> None:
    study = study_of(4, candidates=candidates, raters_per_pair=4, tournament=tournament)
    session = Session(study, raters=4)
    session.run(seed=1)
    assert all(sorted(session.blocks(rater)) == sorted(KEYS) for rater in range(4)), "no question comes back"
    assert len({session.blocks(rater)[0] for rater in range(4)}) == 4
    answered = Counter((answer.show.rater, answer.show.group) for own in session.own for answer in own)
    matches = candidates * (candidates - 1) // 2 if tournament == "full" else candidates - 1
    assert set(answered.values()) == {matches}
    assert len(answered) == 4 * 16
    if tournament == "full":
        assert set(session.counts.values()) == {4}
        assert all(2 * session.flips[key] == count for key, count in session.counts.items())


def test_more_raters_than_needed_share_the_pairs_and_none_gets_too_many() -> None:
    session = Session(study_of(6, raters_per_pair=2), raters=7)
    session.run(seed=2)
    assert len(session.counts) == 24
    assert set(session.counts.values()) == {2}
    assert all(len(session.blocks(rater)) == len(set(session.blocks(rater))) for rater in range(7))


def test_a_knockout_that_someone_plays_is_not_given_again_while_other_questions_wait() -> None:
    session = Session(study_of(1, candidates=3, tournament="knockout"), raters=2)
    first = session.step(0) and session.own[0][0].question
    while first not in session.blocks(1) and session.step(1):
        pass
    assert session.blocks(1)[:3] == [key for key in block_order(KEYS, 1, seed=0) if key != first]


def test_checks_and_repetitions_stay_in_their_blocks_and_near_their_shares() -> None:
    study = study_of(20, attention=6, checks=0.1, repeats=0.1)
    session = Session(study, raters=1)
    told = []
    while True:
        told.append(total(study, session.own[0], session.counts, rater="r0"))
        if not session.step(0):
            break
    own = session.own[0]
    assert len(session.blocks(0)) == 4
    checks = [answer for answer in own if answer.expected is not None]
    repeats = [answer for answer in own if answer.show.repeat_of is not None]
    assert len(own) - len(checks) - len(repeats) == 80
    assert abs(len(checks) - 0.1 * len(own)) <= 2
    assert abs(len(repeats) - 0.1 * len(own)) <= 2
    original = {answer.show.token: answer for answer in own}
    for answer in repeats:
        before = original[answer.show.repeat_of or ""]
        assert before.question == answer.question
        assert answer.show.number - before.show.number > REPEAT_AFTER
    assert told[-1] == len(own)
    assert all(abs(value - len(own)) <= 3 for value in told), "the progress bar knows the end"


def test_mixed_questions_stay_mixed() -> None:
    session = Session(study_of(10, order="mixed"), raters=1)
    session.run(seed=0)
    assert len(session.blocks(0)) > 8


def test_raters_of_a_store_begin_with_different_questions(tmp_path: Path) -> None:
    questions = tuple(Question(key=key, text=key) for key in KEYS[:2])
    pairs = pairs_of(3)
    others = [replace(group, id=f"other-{group.id}", question=KEYS[1]) for group in pairs]
    study = small_study(tmp_path / "study", pairs + others, order="blocks", raters_per_pair=4, questions=questions)
    store = Store.open(study)
    try:
        raters = [name for name, _ in store.add_raters([""] * 4)]
        raters.sort(key=[rater.id for rater in store.raters()].index)
        begun = [_all_answered(store, study, rater) for rater in raters]
    finally:
        store.close()
    keys = list(KEYS[:2])
    assert all(blocks in (keys, keys[::-1]) for blocks in begun)
    assert begun.count(keys) == 2


def _all_answered(store: Store, study: Study, rater: str) -> Sequence[str]:
    asked = []
    while (show := store.next(rater)) is not None:
        asked.append(study.group(show.group).question)
        likely = store.upcoming(rater)
        store.vote(rater, show.token, "left", key=f"key-{len(asked)}")
        following = store.next(rater)
        assert {(one.group, one.first) for one in likely} == (
            {(following.group, following.first)} if following else set()
        )
    return [question for question, _ in groupby(asked)]


def test_studies_without_the_key_are_read_and_stay_mixed(tmp_path: Path) -> None:
    folder = small_study(tmp_path / "study", order="blocks").folder
    file = folder / "study.yaml"
    assert open_study(folder).settings.order == "blocks"
    file.write_text(file.read_text(encoding="utf-8").replace("order: blocks\n", ""), encoding="utf-8")
    assert open_study(folder).settings.order == "mixed"
