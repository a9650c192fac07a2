"""Which two candidates of a group are compared."""

from __future__ import annotations

import pytest

from seedpo.study.records import Answer, Candidate, Group
from seedpo.study.tournament import Pair, all_pairs, finished, next_match, order


def group_of(size: int, name: str = "g") -> Group:
    members = tuple(Candidate(source=str(i), images=(f"{i:032x}",)) for i in range(size))
    return Group(id=name, question="q", prompt="", candidates=members)


def test_all_pairs_are_there_once_with_the_lower_index_first() -> None:
    assert list(all_pairs(group_of(3))) == [(0, 1), (0, 2), (1, 2)]


@pytest.mark.parametrize("best", range(5))
def test_the_best_wins_a_knockout_wherever_it_enters(best: int) -> None:
    entries = order(group_of(5), seed=3)
    answers: dict[Pair, Answer] = {}
    while match := next_match(entries, answers):
        assert match[0] == len(answers)
        low, high = match[1]
        # Candidates rank by their distance from the best one.
        answers[low, high] = "first" if abs(low - best) < abs(high - best) else "second"
    assert len(answers) == 4
    low, high = list(answers)[-1]
    assert best in (low, high)
    counts = {("g", *pair): 1 for pair in answers}
    assert finished(entries, "g", counts) == 1
    del counts["g", low, high]
    assert finished(entries, "g", counts) == 0


def test_the_order_is_of_the_group_and_the_seed() -> None:
    orders = {tuple(order(group_of(5, name), seed)) for name in ("g", "h") for seed in (0, 1, 2)}
    assert len(orders) > 2
    assert order(group_of(5), 1) == order(group_of(5), 1)
    assert all(sorted(found) == list(range(5)) for found in orders)
