from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest

from seedpo.data.layouts import PairRule, find_layout, marks
from seedpo.data.layouts.columns import PLAIN, Shape
from seedpo.data.layouts.layout import Verdicts
from seedpo.data.layouts.marks import number, pairs_of_scores
from seedpo.data.tables.rows import list_length
from seedpo.errors import DataError


class TestNumbers:
    def test_of_numbers_and_of_text(self) -> None:
        for value, expected in [(1, 1.0), (True, 1.0), (" 0.5 ", 0.5), ("TRUE", 1.0), ("false", 0.0), ("1e2", 100.0)]:
            assert number(value) == expected

    def test_of_nothing_else(self) -> None:
        for value in [None, "", "x", "1_0", [1], {"a": 1}, 10**400, float("nan"), b"1"]:
            assert np.isnan(number(value))


def pairs(scores: list[float], **rule: Any) -> list[tuple[int, int, float]]:
    first, second, probability = pairs_of_scores(np.array(scores, dtype=np.float64), PairRule(**rule))
    return list(zip(first.tolist(), second.tolist(), probability.tolist(), strict=True))


class TestPairsOfScores:
    def test_all_of_them_against_a_plain_loop(self) -> None:
        random = np.random.default_rng(0)
        for gap in [0.0, 1.0, 2.5]:
            scores = random.integers(0, 6, 7).astype(float).tolist()
            expected = []
            for i, j in combinations(range(7), 2):
                difference = scores[i] - scores[j]
                tie = difference == 0 or abs(difference) < gap
                expected.append((i, j, 0.5 if tie else float(difference > 0)))
            assert pairs(scores, min_gap=gap) == expected
            assert pairs(scores, min_gap=gap, from_scores="margin") == [pair for pair in expected if pair[2] != 0.5]

    def test_best_against_worst(self) -> None:
        assert pairs([2, 9, 1, 9, 1], from_scores="best-worst") == [(1, 2, 1.0)]
        assert pairs([1, 9], from_scores="best-worst") == [(0, 1, 0.0)]
        assert pairs([3, 3, 3], from_scores="best-worst") == [(0, 1, 0.5)]
        assert pairs([3, 4], from_scores="best-worst", min_gap=2) == [(0, 1, 0.5)]

    def test_one_image_makes_none(self) -> None:
        for rule in ["all", "margin", "best-worst"]:
            assert pairs([3], from_scores=rule) == pairs([], from_scores=rule) == []

    def test_too_many(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(marks, "MOST_PAIRS", 5)
        with pytest.raises(DataError, match="6 pairs"):
            pairs([1, 2, 3, 4])
        assert pairs([1, 2, 3, 4], from_scores="best-worst") == [(0, 3, 0.0)]


def judged(columns: dict[str, list[Any]], *, shape: Shape = PLAIN, **rule: Any) -> Verdicts:
    reading = find_layout(list(columns), origin="t", shape=shape)
    count = len(next(iter(columns.values())))
    marks = [
        list(map(list_length, columns[name])) if name in reading.counted else columns[name]
        for name in reading.marks.values()
    ]
    return reading.judge(marks, count, PairRule(**rule))


def shown(verdicts: Verdicts) -> list[tuple[Any, ...]]:
    columns = (verdicts.rows.tolist(), verdicts.items.tolist(), verdicts.probability.tolist())
    return [(*row, *item, probability) for row, item, probability in zip(*columns, strict=True)]


def kinds(verdicts: Verdicts) -> list[str]:
    return [verdicts.reasons[place].kind if place >= 0 else "" for place in verdicts.reason.tolist()]


class TestSingleImages:
    def test_ranks_of_imagerewarddb(self) -> None:
        """The lowest rank is the best; rows of one prompt need not be neighbours."""
        columns = {"image": [b""] * 5, "prompt": ["a", "b", "a", "b", "a"], "rank": [2, 1, 1, 1, 3]}
        verdicts = judged(columns)
        assert shown(verdicts) == [
            (0, 2, -1, -1, 0.0),
            (0, 4, -1, -1, 1.0),
            (1, 3, -1, -1, 0.5),
            (2, 4, -1, -1, 1.0),
        ]
        assert kinds(verdicts) == [""] * 5

    def test_the_number_of_the_prompt_tells_groups_apart(self) -> None:
        columns = {"image": [b""] * 3, "prompt": ["a"] * 3, "prompt_id": ["1", "2", "1"], "rank": [1, 2, 2]}
        verdicts = judged(columns)
        assert shown(verdicts) == [(0, 2, -1, -1, 1.0)]
        assert kinds(verdicts) == ["", "alone", ""]

    def test_wrong_marks_are_faults_of_their_rows(self) -> None:
        columns = {"image": [b""] * 6, "prompt": ["a", "a", "a", "a", None, ["a"]], "score": [1, "x", None, 3, 4, 5]}
        verdicts = judged(columns)
        assert shown(verdicts) == [(0, 3, -1, -1, 0.0)]
        assert kinds(verdicts) == ["", "fault", "unlabelled", "", "fault", "fault"]
        assert verdicts.faults().tolist() == [1, 4, 5]

    def test_likes_pair_a_liked_image_with_another(self) -> None:
        columns = {"image": [b""] * 6, "prompt": ["a", "a", "a", "b", "b", "c"], "liked": [1, "false", True, 1, 1, 0.5]}
        verdicts = judged(columns)
        assert shown(verdicts) == [(0, 1, -1, -1, 1.0), (1, 2, -1, -1, 0.0)]
        assert kinds(verdicts) == ["", "", "", "alone", "alone", "fault"]

    def test_what_several_people_say_of_one_image_is_averaged(self) -> None:
        """A is liked by two of three, B by one of two, C by none; D is liked as often as B; E alone of its prompt."""
        columns = {
            "image": [b""] * 11,
            "prompt": ["p"] * 9 + ["q"] * 2,
            "image_uid": ["A", "B", "A", "C", "B", "A", "D", "D", "B", "E", "E"],
            "liked": [1, 1, 0, 0, 0, 1, 1, 0, None, 1, 0],
        }
        verdicts = judged(columns)
        a, b, c, d = 0, 1, 3, 6
        better = {(row[0], row[1]) if row[-1] == 1.0 else (row[1], row[0]) for row in shown(verdicts)}
        assert better == {(a, b), (a, c), (a, d), (b, c), (d, c)}, "two images of one mean are no pair"
        assert kinds(verdicts) == [""] * 8 + ["unlabelled"] + ["alone"] * 2
        assert shown(judged(columns, from_scores="best-worst")) == [(0, 3, -1, -1, 1.0)]
        assert len(shown(judged(columns, min_gap=0.5))) == 3

    def test_scores_of_one_image_are_averaged_too(self) -> None:
        columns = {"image": [b""] * 3, "prompt": ["p"] * 3, "image_uid": ["A", "A", "B"], "score": [1.0, 4.0, 2.0]}
        assert shown(judged(columns)) == [(0, 2, -1, -1, 1.0)]


class TestImageLists:
    def test_hpdv2s_preferences(self) -> None:
        marks_ = [[1, 0], [0, 1], [1, 1], [0.5, 0.5], None, "1"]
        columns = {"prompt": ["a"] * 6, "file_path": [["x", "y"]] * 6, "human_preference": marks_}
        verdicts = judged(columns, shape=Shape(lists=("file_path", "human_preference")))
        assert shown(verdicts) == [(0, 0, 0, 1, 1.0), (1, 1, 0, 1, 0.0)]
        assert kinds(verdicts) == ["", "", "fault", "fault", "unlabelled", "fault"]

    def test_ranks(self) -> None:
        columns = {"prompt": ["a", "b"], "image_path": [["x", "y", "z"], ["x"]], "rank": [[2, 1, 3], [1]]}
        shape = Shape(lists=("image_path", "rank"))
        assert shown(judged(columns, shape=shape)) == [(0, 0, 0, 1, 0.0), (0, 0, 0, 2, 1.0), (0, 0, 1, 2, 1.0)]
        verdicts = judged(columns, shape=shape, from_scores="best-worst")
        assert shown(verdicts) == [(0, 0, 1, 2, 1.0)]
        assert kinds(verdicts) == ["", "alone"]

    def test_as_many_marks_as_images(self) -> None:
        images = [["x", "y"], ["x", "y", "z"], "x", None, []]
        for name, cell in [("rank", [1, 2]), ("human_preference", [0, 1]), ("scores", [2, 1])]:
            columns = {"prompt": ["a"] * 5, "images": images, name: [cell] * 5}
            verdicts = judged(columns, shape=Shape(lists=["images", name]))
            assert kinds(verdicts) == ["", "fault", "fault", "fault", "fault"]

    def test_scores(self) -> None:
        columns = {"prompt": ["a", "b"], "images": [["x", "y"], ["x", "y"]], "scores": [[0.2, 0.7], [1, "x"]]}
        verdicts = judged(columns, shape=Shape(lists=("images", "scores")))
        assert shown(verdicts) == [(0, 0, 0, 1, 0.0)]
        assert kinds(verdicts) == ["", "fault"]

    def test_one_image_a_row_and_lists_are_told_apart(self) -> None:
        columns = ["prompt", "image_path", "rank"]
        assert find_layout(columns, origin="t").layout.several_rows
        assert not find_layout(columns, origin="t", shape=Shape(lists=["image_path", "rank"])).layout.several_rows

    def test_rejected_ones(self) -> None:
        cells = [["y", "z"], ["y"], "y", [], None]
        columns = {"prompt": ["a"] * 5, "chosen": ["x"] * 5, "rejected": cells}
        verdicts = judged(columns, shape=Shape(lists=["rejected"]))
        assert shown(verdicts) == [(0, 0, -1, 0, 1.0), (0, 0, -1, 1, 1.0), (1, 1, -1, 0, 1.0), (2, 2, -1, -1, 1.0)]
        assert kinds(verdicts) == ["", "", "", "fault", "fault"]
