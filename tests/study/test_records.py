"""What was shown and answered: units, places on the screen, and the pairs that an answer speaks of."""

from __future__ import annotations

from itertools import permutations

import pytest

from seedpo.study.records import Answer, Candidate, Group, Judgement, Show, judge, pairs_of

GROUP = Group(
    id="g",
    question="q",
    prompt="p",
    candidates=tuple(Candidate(source=f"m{index}", images=(f"{index:032x}",)) for index in range(6)),
)


def judged(order: tuple[int, ...], answer: Answer, best: int | None = None, worst: int | None = None) -> Judgement:
    show = Show(token="t", rater="r", group="g", order=order, number=0)
    return judge(show, GROUP, answer, best=best, worst=worst)


@pytest.mark.parametrize("order", [(1, 3, 4), (4, 0, 5, 2), (5, 4, 3, 2, 1, 0)])
def test_best_and_worst_are_the_choices_that_follow_from_them(order: tuple[int, ...]) -> None:
    for best, worst in permutations(order, 2):
        pairs = pairs_of(judged(order, "ranked", best, worst))
        won = set()
        for pair in pairs:
            assert [candidate.source for candidate in pair.candidates] == [f"m{at}" for at in pair.show.members]
            assert pair.show.order == tuple(index for index in order if index in pair.show.members)
            assert (pair.show.token, pair.best, pair.worst) == ("t", None, None)
            winner = pair.show.members[pair.answer == "second"]
            won.add((winner, sum(pair.show.members) - winner))
        middle = set(order) - {best, worst}
        assert won == {(best, other) for other in {*middle, worst}} | {(other, worst) for other in middle}
        assert len(pairs) == 2 * len(order) - 3


def test_a_pair_stays_as_it_is_and_a_like_says_nothing_of_pairs() -> None:
    pair = judged((3, 1), "tie")
    assert pairs_of(pair) == [pair]
    assert pairs_of(judged((3,), "like")) == []
    assert pairs_of(judged((3, 1, 2), "skip")) == []


def test_only_a_ranking_comes_with_places_and_they_are_two_of_those_on_the_screen() -> None:
    show = judged((4, 0, 5), "skip").show
    assert show.fits("ranked", (0, 2))
    assert show.fits("skip", ())
    assert not any(show.fits("ranked", places) for places in [(), (1, 1), (0, 3), (-1, 0), (None, 1)])
    assert not show.fits("left", (0, 1))
    assert (show.candidate(0), show.candidate(None), show.unit) == (4, None, ("g", (0, 4, 5)))
