from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from seedpo.data.layouts import find_layout, preferences, wrong_marks
from seedpo.errors import DataError

PICKAPIC = ("caption", "jpg_0", "jpg_1", "label_0", "label_1")
PLAIN = ("prompt", "chosen", "rejected")


class TestFindLayout:
    def test_pick_a_pics_columns(self) -> None:
        for extra in [(), ("has_label",), ("image_0_uid", "best_image_uid")]:
            layout = find_layout([*PICKAPIC, *extra], origin="t")
            assert layout.content == ("caption", "jpg_0", "jpg_1")
            assert layout.all_marks == ("label_0", "label_1", *(["has_label"] if "has_label" in extra else []))

    def test_plain_columns(self) -> None:
        for prompt in ["prompt", "caption"]:
            layout = find_layout([prompt, "chosen", "rejected", "chosen_probability"], origin="t")
            assert layout.content == (prompt, "chosen", "rejected")
            assert layout.all_marks == ("chosen_probability",)

    def test_plain_columns_win_where_both_are_there(self) -> None:
        assert find_layout([*PICKAPIC, *PLAIN], origin="t").content == PLAIN

    def test_each_missing_column_is_named(self) -> None:
        for columns in [PICKAPIC, PLAIN]:
            for name in columns:
                left = [one for one in columns if one != name]
                with pytest.raises(DataError, match=rf"pairs\.x lacks the columns \['{name}'\]"):
                    find_layout(left, origin="pairs.x")


def values(layout_columns: tuple[str, ...], *marks: list[Any]) -> list[float]:
    layout = find_layout(layout_columns, origin="t")
    return preferences(layout, marks, count=len(marks[0])).tolist()


class TestPreferences:
    def test_labels(self) -> None:
        assert values(PICKAPIC, [1, 0, 0.5, 1, 0, None], [0, 1, 0.5, 1, 0, 0])[:3] == [1.0, 0.0, 0.5]
        assert values(PICKAPIC, [1, 0, None, "1"], [1, 0, 0, "0"]) == [math.inf] * 4

    def test_probabilities_of_which_nothing_means_one(self) -> None:
        columns = (*PLAIN, "chosen_probability")
        assert values(columns, [1, 0.5, 0.75, None]) == [1.0, 0.5, 0.75, 1.0]
        assert values(columns, [0.49, 1.01, "1", math.nan]) == [math.inf] * 4

    def test_without_marks_the_first_is_preferred(self) -> None:
        assert preferences(find_layout(PLAIN, origin="t"), [], count=3).tolist() == [1.0, 1.0, 1.0]

    def test_what_nobody_judged_is_neither_right_nor_wrong(self) -> None:
        for no in [False, 0, 0.0]:
            found = values((*PICKAPIC, "has_label"), [1, 7, 0], [0, 7, 0], [True, no, no])
            assert found[0] == 1.0
            assert np.isnan(found[1:]).all()


def test_what_is_wrong_with_marks() -> None:
    assert "label_0 = 1, label_1 = 1" in wrong_marks(find_layout(PICKAPIC, origin="t"), [1, 1])
    layout = find_layout((*PLAIN, "chosen_probability"), origin="t")
    assert "chosen_probability = 0.2" in wrong_marks(layout, [0.2])
