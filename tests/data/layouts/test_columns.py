from __future__ import annotations

import pytest

from seedpo.data.layouts import find_layout
from seedpo.data.layouts.columns import column_root, value_at
from seedpo.errors import DataError

OWN = {"prompt": "text", "chosen": "win", "rejected": "lose"}


class TestValuesInStructures:
    def test_are_named_with_dots(self) -> None:
        values = {"a": {"b": {"c": 1}}, "a.b": {"c": 2}, "x": 3}
        assert [value_at(values, name) for name in ("x", "a.b.c", "a", "a.z", "x.y", "q")] == [
            3,
            2,
            values["a"],
            None,
            None,
            None,
        ]

    def test_lie_in_the_longest_column(self) -> None:
        assert column_root("a.b.c", ["a", "a.b"]) == "a.b"
        assert column_root("a.b.c", ["b"]) is None


class TestOwnNames:
    def test_stand_for_the_usual_ones(self) -> None:
        reading = find_layout(["id", "text", "win", "lose", "p"], origin="t", own=OWN | {"chosen_probability": "p"})
        assert reading.content == ("text", "win", "lose")
        assert reading.marks == {"chosen_probability": "p"}

    def test_may_lie_in_structures(self) -> None:
        own = {"prompt": "data.text", "jpg_0": "data.left", "jpg_1": "data.right", "label_0": "label"}
        reading = find_layout(["data", "label"], origin="t", own=own)
        assert reading.content == ("data.text", "data.left", "data.right")

    def test_that_are_swapped(self) -> None:
        own = {"chosen": "rejected", "rejected": "chosen"}
        assert find_layout(["prompt", "chosen", "rejected"], origin="t", own=own).images == ("rejected", "chosen")

    def test_that_are_not_there(self) -> None:
        with pytest.raises(DataError, match=r"t lacks the column 'win' that pairs\.columns\.chosen names"):
            find_layout(["text", "lose"], origin="t", own=OWN)

    def test_for_what_no_layout_has(self) -> None:
        with pytest.raises(DataError, match=r"pairs\.columns names winner"):
            find_layout(["a"], origin="t", own={"winner": "a"})
        with pytest.raises(DataError, match=r"pairs\.columns names chosen, jpg_0"):
            find_layout(["a", "b"], origin="t", own={"chosen": "a", "jpg_0": "b"})


class TestTwoLayouts:
    COLUMNS = ("prompt", "chosen", "rejected", "jpg_0", "jpg_1", "label_0", "label_1")

    def test_are_refused_by_name(self) -> None:
        with pytest.raises(DataError, match=r"«prompt, chosen, rejected».*«Pick-a-Pic».*pairs\.columns"):
            find_layout(self.COLUMNS, origin="t")

    def test_are_told_apart_by_the_columns_that_the_user_names(self) -> None:
        own = {"chosen": "chosen", "rejected": "rejected"}
        assert find_layout(self.COLUMNS, origin="t", own=own).images == ("chosen", "rejected")
        own = {"jpg_0": "jpg_0", "label_0": "label_0", "label_1": "label_1"}
        assert find_layout(self.COLUMNS, origin="t", own=own).layout.title == "Pick-a-Pic"


class TestNearMisses:
    def test_a_list_where_one_image_is_due(self) -> None:
        with pytest.raises(DataError, match="file_path must hold a list of images"):
            find_layout(["prompt", "file_path", "human_preference"], origin="t")

    def test_the_nearest_layout_is_named(self) -> None:
        with pytest.raises(DataError, match=r"lacks the columns \['path2'\].*«HPDv3»"):
            find_layout(["prompt", "path1", "confidence"], origin="t")

    @pytest.mark.parametrize("columns", [["text", "win", "lose"], ["prompt", "a", "b"], ["x"]])
    def test_without_a_likeness_the_usual_layout_is_named(self, columns: list[str]) -> None:
        with pytest.raises(DataError, match="nearest layout is «prompt, chosen, rejected»"):
            find_layout(columns, origin="t")
