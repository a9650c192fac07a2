"""Texts of JSON and YAML that their packages meet with all sorts of exceptions."""

from __future__ import annotations

import pytest

from seedpo.documents import DEPTH, parse_json, parse_yaml, read_json, read_yaml

MANY = f"a: &a [{'1,' * 99}]\nb: &b [{'*a,' * 99}]\nc: &c [{'*b,' * 99}]\nd: [{'*c,' * 99}]\n"
"""A short text that stands for a hundred million values."""


def test_values_are_those_of_the_packages(tmp_path):
    (tmp_path / "a").write_text('{"a": [1, 0.5, null, "ä"]}', encoding="utf-8")
    assert read_json(tmp_path / "a") == read_yaml(tmp_path / "a") == {"a": [1, 0.5, None, "ä"]}
    assert parse_json(b"[" + b"9" * 39 + b"]") == [10**39 - 1]  # the state of a generator
    assert parse_yaml("a: &one [1]\nb: *one\n") == {"a": [1], "b": [1]}


@pytest.mark.parametrize(
    "text",
    ["", "{", "[" * 100_000, "9" * 400, "9" * 5000, "\ufeff{}"],
    ids=["empty", "cut", "deep", "long", "longer", "mark"],
)
def test_what_is_no_json_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)


@pytest.mark.parametrize(
    "text",
    [
        "a: [",
        "[" * 5000,
        "on: 2020-13-45",
        "a: !!int ''",
        "a: !!float ''",
        "a: !!timestamp x",
        "a: !!bool x",
        "a: !!python/object/apply:os.system [x]",
        "a: " + "9" * 5000,
        "a: &a [*a]",
        "a: &a {b: *a}",
        "? [a]\n: b",
        "[" * (DEPTH + 2) + "]" * (DEPTH + 2),
        MANY,
    ],
)
def test_what_is_no_yaml_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"."):
        parse_yaml(text)
