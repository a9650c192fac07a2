"""Counts of many units at once say what counts of single units say."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np

from seedpo.study.assignment import next_show, total
from seedpo.study.folder import Study
from seedpo.study.records import Show, Unit, judge
from seedpo.study.unit_counts import UnitCounts, Units, numbers_of
from tests.study.small_study import pairs_of, small_study


def drawn_counts(study: Study, draw: random.Random) -> dict[Unit, int]:
    pairs = [(0, 1), (0, 2), (1, 2)]
    return {(group.id, pair): draw.randrange(4) for group in study.groups for pair in pairs if draw.random() < 0.9}


def test_numbers_follow_every_change() -> None:
    draw = random.Random(1)
    units: list[Unit] = [(f"g{number}", (0, 1)) for number in range(20)]
    lists = [Units(units), Units(units[5:12]), Units([])]
    counts, plain = UnitCounts(), dict.fromkeys(units, 0)
    for _ in range(300):
        unit = draw.choice([*units, ("elsewhere", (0, 1))])
        change = draw.choice((-1, 1))
        counts[unit] += change
        plain[unit] = plain.get(unit, 0) + change
        listed = draw.choice(lists)
        assert numbers_of(counts, listed).tolist() == [plain[unit] for unit in listed.units]
        assert numbers_of(plain, listed).tolist() == [plain[unit] for unit in listed.units]


def test_lists_that_are_no_longer_asked_for_are_let_go() -> None:
    counts = UnitCounts()
    for number in range(40):
        counts["g", (0, 1)] = number
        listed = Units([("g", (0, 1))])
        assert np.array_equal(counts.of(listed), [number])
    assert len(counts._kept) < 40


def test_the_choice_is_that_of_a_search_through_all_units(tmp_path: Path) -> None:
    draw = random.Random(2)
    full = small_study(tmp_path / "full", pairs_of(12, candidates=3), raters_per_pair=3)
    knockout = replace(full, settings=full.settings.model_copy(update={"tournament": "knockout"}))
    for round_ in range(60):
        study = draw.choice((full, knockout))
        plain, kept = drawn_counts(study, draw), UnitCounts()
        for unit, number in plain.items():
            kept[unit] = number
        own = [
            judge(Show(token=f"t{number}", rater="r", group=group.id, order=(0, 1), number=number), group, "first")
            for number, group in enumerate(draw.sample(study.groups, draw.randrange(12)))
        ]
        proposals = [next_show(study, own, counts, {}, rater="r", token=f"{round_}") for counts in (plain, kept)]
        assert proposals[0] == proposals[1]
        assert total(study, own, plain, rater="r") == total(study, own, kept, rater="r")
        if study is full and proposals[0] is not None:
            answered = {answer.show.unit for answer in own}
            pairs = [(group.id, pair) for group in study.groups for pair in [(0, 1), (0, 2), (1, 2)]]
            rest = [plain.get(unit, 0) for unit in pairs if unit not in answered]
            shown = (proposals[0].group, (min(proposals[0].order), max(proposals[0].order)))
            assert shown not in answered
            assert plain.get(shown, 0) == min(rest)
            wanted = sum(number < 3 for number in rest)
            assert total(study, own, plain, rater="r") == len(own) + wanted
