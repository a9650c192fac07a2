from __future__ import annotations

import math
from typing import Any

import pytest

from seedpo.data.text import shown, value_fault


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


class TestShown:
    @pytest.mark.parametrize("value", ["a fox", 7, None, ["a", 1.5], b"\x89PNG", {"a": 1}])
    def test_a_short_value_is_quoted_whole(self, value: object) -> None:
        assert shown(value) == repr(value)

    @pytest.mark.parametrize(
        "value",
        [
            "word " * 1000,
            "A" * 500_000,
            "data:image/png;base64," + "A" * 500_000,
            b"x" * 500_000,
            [1] * 500_000,
            ["A" * 500_000] * 30,
            {f"key {number}": "A" * 5000 for number in range(5000)},
            nested(900),
            10**5000,
            "\n" * 1000,
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_any_value_is_bounded_and_on_one_line(self, value: object) -> None:
        text = shown(value)
        assert len(text) < 200
        assert text.isprintable()

    def test_long_text_says_how_long_it_is(self) -> None:
        assert shown("word " * 1000).startswith("'word word")
        assert shown("word " * 1000).endswith("... (5,000 characters)")
        assert shown(b"x" * 1000).endswith("... (1,000 bytes)")

    def test_images_are_named_and_not_printed(self) -> None:
        assert shown("A" * 5_253_703) == "base64 (5,253,703 characters)"
        assert shown("data:image/png;base64," + "A" * 100) == "a data URI (122 characters)"

    def test_what_no_terminal_can_print_is_escaped(self) -> None:
        assert shown("\ud83d\x1b[31m").isascii()


class TestFaults:
    @pytest.mark.parametrize(
        ("value", "why"),
        [
            ("\ud83d", "surrogate"),
            ("\udce9", "byte 0xe9"),
            ("a\0", "NUL"),
            (math.inf, "infinite"),
            (-math.inf, "infinite"),
            (10**400, "integer"),
            (-(10**400), "integer"),
        ],
    )
    def test_wherever_it_stands_in_a_row(self, value: object, why: str) -> None:
        for row in (value, {"prompt": value}, {"x": [1, {"y": ("é", value)}]}, {"x": [value], "y": "z"}):
            assert why in (value_fault(row) or "")
        assert "'prompt'" in (value_fault({"a": 1, "prompt": value}) or "")
        assert why not in (value_fault({"x": "a"}) or "")

    @pytest.mark.parametrize("key", ["\ud83d", "a\0"])
    def test_in_a_key(self, key: str) -> None:
        assert value_fault({key: 1})
        assert value_fault({"x": [{key: 1}]})

    def test_depth(self) -> None:
        assert value_fault(nested(100)) is None
        assert value_fault(nested(101))
        assert value_fault({"x": nested(100_000)})

    @pytest.mark.parametrize(
        "value",
        ["🦊 日本 café", 10**300, -1, True, None, math.nan, b"\0\xff", {"a": [{"b": "c"}]}, {}, [], {1: 2}],
        ids=repr,
    )
    def test_sound_values(self, value: object) -> None:
        assert value_fault(value) is None
        assert value_fault({"x": value}) is None
