"""Which candidates are judged together: pairs, knockouts, single images, views of several."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import combinations

import pytest

from seedpo.study.records import Answer, Candidate, Group
from seedpo.study.settings import Question, StudySettings
from seedpo.study.units import (
    Match,
    all_matches,
    balanced_views,
    finished,
    is_knockout,
    knockout_order,
    next_match,
    units_of,
)

# Views of several.


@pytest.mark.parametrize(
    ("count", "size", "times"), [(7, 3, 1), (13, 4, 1), (21, 5, 1), (7, 4, 2), (5, 4, 3), (7, 6, 5)]
)
def test_where_a_difference_set_exists_every_pair_occurs_equally_often(count: int, size: int, times: int) -> None:
    occurring = Counter(pair for view in balanced_views(count, size, "seed") for pair in combinations(view, 2))
    assert occurring == Counter(dict.fromkeys(combinations(range(count), 2), times))


@pytest.mark.parametrize("size", [3, 4, 5, 6])
def test_views_are_balanced_and_leave_no_pair_out(size: int) -> None:
    for count in range(size + 1, 14):
        views = balanced_views(count, size, "seed")
        assert all(len(set(view)) == size and list(view) == sorted(view) for view in views)
        assert len(set(views)) == len(views)
        assert set(Counter(index for view in views for index in view).values()) == {len(views) * size // count}
        occurring = Counter(pair for view in views for pair in combinations(view, 2))
        assert set(occurring) == set(combinations(range(count), 2))
        assert max(occurring.values()) - min(occurring.values()) <= 1


def test_many_candidates_take_drawn_base_views_and_the_seed_decides_who_meets_whom() -> None:
    views = balanced_views(30, 5, "a")
    assert {pair for view in views for pair in combinations(view, 2)} == set(combinations(range(30), 2))
    assert views == balanced_views(30, 5, "a")
    assert set(views) != set(balanced_views(30, 5, "b"))


def test_what_fits_into_one_view_is_one_view() -> None:
    assert balanced_views(4, 4, "seed") == balanced_views(4, 6, "other") == [(0, 1, 2, 3)]


def test_units_follow_the_form() -> None:
    group, check = group_of(5), replace(group_of(3), expected=2)
    single, pair, several = (
        Question(key="q", text="?", form="single"),
        Question(key="q", text="?"),
        Question(key="q", text="?", form="best-worst", per_view=3),
    )
    assert units_of(group, single, seed=0) == [(0,), (1,), (2,), (3,), (4,)]
    assert list(units_of(group, pair, seed=0)) == list(combinations(range(5), 2))
    assert [len(view) for view in units_of(group, several, seed=0)] == [3] * 5
    assert [list(units_of(check, form, seed=0)) for form in (pair, several)] == [[(0, 2)], [(0, 1, 2)]]
    knockout = StudySettings(id="s", questions=(pair,), tournament="knockout")
    assert is_knockout(group, pair, knockout)
    assert not any([is_knockout(group_of(2), pair, knockout), is_knockout(check, pair, knockout)])


# Knockouts.


def test_the_better_one_stays_and_a_tie_changes_nothing() -> None:
    assert next_match([2, 0, 1], {}) == (0, (0, 2))
    assert next_match([2, 0, 1], {(0, 2): "first"}) == (1, (0, 1))
    assert next_match([2, 0, 1], {(0, 2): "tie"}) == (1, (1, 2))
    assert next_match([2, 0, 1], {(0, 2): "second", (1, 2): "bad"}) is None


def group_of(size: int, name: str = "g") -> Group:
    members = tuple(Candidate(source=str(i), images=(f"{i:032x}",)) for i in range(size))
    return Group(id=name, question="q", prompt="", candidates=members)


def test_all_matches_occur_once_with_the_lower_index_first() -> None:
    assert list(all_matches(group_of(3))) == [(0, 1), (0, 2), (1, 2)]


def test_the_best_wins_a_knockout_wherever_it_enters() -> None:
    entries = knockout_order(group_of(5), seed=3)
    for best in range(5):
        answers: dict[Match, Answer] = {}
        while match := next_match(entries, answers):
            assert match[0] == len(answers)
            low, high = match[1]
            # Candidates rank by their distance from the best one.
            answers[low, high] = "first" if abs(low - best) < abs(high - best) else "second"
        assert len(answers) == 4
        low, high = list(answers)[-1]
        assert best in (low, high)
        counts = {("g", match): 1 for match in answers}
        assert finished(entries, "g", counts) == 1
        del counts["g", (low, high)]
        assert finished(entries, "g", counts) == 0


def test_the_order_of_entry_depends_on_group_and_seed() -> None:
    orders = {tuple(knockout_order(group_of(5, name), seed)) for name in ("g", "h") for seed in (0, 1, 2)}
    assert len(orders) > 2
    assert knockout_order(group_of(5), 1) == knockout_order(group_of(5), 1)
    assert all(sorted(order) == list(range(5)) for order in orders)
