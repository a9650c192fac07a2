from __future__ import annotations

import math
from typing import Any

import pytest

from seedpo.data.layouts import PairRule, find_layout
from seedpo.errors import DataError

PICKAPIC = ("caption", "jpg_0", "jpg_1", "label_0", "label_1")
PLAIN = ("prompt", "chosen", "rejected")
HPDV3 = ("prompt", "path1", "path2", "confidence", "choice_dist")
VOTES = ("weighted_results_image1_preference", "weighted_results_image2_preference")


class TestFindLayout:
    def test_pick_a_pics_columns(self) -> None:
        for extra in [(), ("has_label",), ("image_0_uid", "best_image_uid")]:
            layout = find_layout([*PICKAPIC, *extra], origin="t")
            assert layout.content == ("caption", "jpg_0", "jpg_1")
            assert list(layout.marks) == ["label_0", "label_1", *(["has_label"] if "has_label" in extra else [])]

    def test_plain_columns(self) -> None:
        for prompt in ["prompt", "caption"]:
            layout = find_layout([prompt, "chosen", "rejected", "chosen_probability"], origin="t")
            assert layout.content == (prompt, "chosen", "rejected")
            assert list(layout.marks) == ["chosen_probability"]

    def test_each_missing_column_is_named(self) -> None:
        for columns in [PICKAPIC, PLAIN]:
            for name in columns[: 4 if columns is PICKAPIC else 3]:
                left = [one for one in columns if one != name]
                with pytest.raises(DataError, match=rf"pairs\.x lacks the columns \['{name}'\]"):
                    find_layout(left, origin="pairs.x")


def values(layout_columns: tuple[str, ...], *marks: list[Any]) -> list[float]:
    """Probabilities of rows: NaN of what nobody judged, infinity of wrong marks."""
    layout = find_layout(layout_columns, origin="t")
    count = len(marks[0])
    verdicts = layout.judge(marks, count, PairRule())
    kinds = {"unlabelled": math.nan, "fault": math.inf}
    found = [kinds[verdicts.reasons[place].kind] if place >= 0 else 0.0 for place in verdicts.reason.tolist()]
    for (row, other), probability in zip(verdicts.rows.tolist(), verdicts.probability.tolist(), strict=True):
        assert row == other
        found[row] = probability
    return found


class TestMarks:
    def test_labels(self) -> None:
        assert values(PICKAPIC, [1, 0, 0.5, "1", "0"], [0, 1, 0.5, "0", "1"]) == [1.0, 0.0, 0.5, 1.0, 0.0]
        assert values(PICKAPIC, [1, 0, None, "x", 1], [1, 0, 0, "0", None]) == [math.inf] * 5

    def test_the_first_label_alone(self) -> None:
        assert values(PICKAPIC[:-1], [1, 0, 0.5, "0"]) == [1.0, 0.0, 0.5, 0.0]
        assert values(PICKAPIC[:-1], [2, None, 0.3]) == [math.inf] * 3

    def test_probabilities_of_which_nothing_means_one(self) -> None:
        columns = (*PLAIN, "chosen_probability")
        assert values(columns, [1, 0.5, 0.75, None, "", "0.75"]) == [1.0, 0.5, 0.75, 1.0, 1.0, 0.75]
        assert values(columns, [0.49, 1.01, "x", math.nan, 10**400]) == [math.inf] * 5

    def test_without_marks_the_first_is_preferred(self) -> None:
        verdicts = find_layout(PLAIN, origin="t").judge([], 3, PairRule())
        assert verdicts.probability.tolist() == [1.0, 1.0, 1.0]

    def test_what_nobody_judged_is_neither_right_nor_wrong(self) -> None:
        for no in [False, 0, 0.0, "0", "false"]:
            found = values((*PICKAPIC, "has_label"), [1, 7, 0], [0, 7, 0], [True, no, no])
            assert found[0] == 1.0
            assert all(math.isnan(value) for value in found[1:])

    def test_hpdv3_prefers_the_first_path_with_its_confidence(self) -> None:
        assert find_layout(HPDV3, origin="t").content == ("prompt", "path1", "path2")
        assert values(HPDV3[:-1], [0.9, None, 1, 0.5]) == [0.9, 1.0, 1.0, 0.5]
        assert values(HPDV3[:-1], [0.2, 95, "high"]) == [math.inf] * 3

    def test_rapidatas_votes_are_shares(self) -> None:
        columns = ("prompt", "image1", "image2", *VOTES)
        found = values(columns, [3.0, 0.0, 2, None, 0, -1, 1], [1.0, 5.0, 2, None, 0, 1, None])
        assert found[:3] == [0.75, 0.0, 0.5]
        assert all(math.isnan(value) for value in found[3:5])
        assert found[5:] == [math.inf] * 2
