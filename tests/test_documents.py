"""Texts of JSON and YAML that their packages meet with all sorts of exceptions."""

from __future__ import annotations

import pytest

from seedpo.documents import (
    DEPTH,
    JSON_VALUES,
    YAML_SIZE,
    YAML_VALUES,
    parse_json,
    parse_yaml,
    parse_yaml_texts,
    read_json,
    read_yaml,
)

MANY = f"a: &a [{'1,' * 99}]\nb: &b [{'*a,' * 99}]\nc: &c [{'*b,' * 99}]\nd: [{'*c,' * 99}]\n"
"""A short text that stands for a hundred million values."""


MERGES = "a: &a {x: 1}\nb: &b\n  <<: [*a, *a]\n" + "".join(f"c{n}: &b\n  <<: [*b, *b]\n" for n in range(40))
"""Merge keys that double what they merge, forty times."""


def test_values_are_those_of_the_packages(tmp_path):
    (tmp_path / "a").write_text('{"a": [1, 0.5, null, "ä"]}', encoding="utf-8")
    assert read_json(tmp_path / "a") == read_yaml(tmp_path / "a") == {"a": [1, 0.5, None, "ä"]}
    assert parse_json(b"[" + b"9" * 39 + b"]") == [10**39 - 1]  # the state of a generator
    assert parse_yaml("a: &one [1]\nb: *one\n") == {"a": [1], "b": [1]}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[" * 100_000,
        "[" * (DEPTH + 2) + "]" * (DEPTH + 2),
        '{"a":' * 900 + "1" + "}" * 900,
        "9" * 400,
        "9" * 5000,
        "\ufeff{}",
        '{"a": 1, "a": 2}',
        '"\\ud800"',
        '{"\\u0000": 1}',
        "[" + "0," * (JSON_VALUES + 1) + "0]",
    ],
    ids=["empty", "cut", "deep", "nested", "objects", "long", "longer", "mark", "double", "half", "nul", "many"],
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
        MERGES,
        "a: &a\n  <<: *a\n",
        "a: 1\na: 2\n",
        "a: " + ":".join(["1"] * 2000),
        "a: 0x" + "f" * 2000,
        'a: "\\ud800"',
        'a: "\\0"',
        "[" + "1," * YAML_VALUES + "]",
        "#" * (YAML_SIZE + 1),
        "%YAML 9.9\n---\na: 1\n",
        "%TAG ! tag:yaml.org,2002:python/\n---\na: !object/apply:os.system [x]\n",
    ],
)
def test_what_is_no_yaml_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"."):
        parse_yaml(text)


def test_texts_of_yaml_stay_texts_and_stand_for_nothing_else():
    assert parse_yaml_texts("- 1\n- no\n- {a: 2020-01-01}\n") == ["1", "no", {"a": "2020-01-01"}]
    with pytest.raises(ValueError, match="alias"):
        parse_yaml_texts("- &a x\n- *a\n")


def test_equal_values_of_one_key_are_no_fault():
    assert parse_json('{"a": [1], "a": [1]}') == {"a": [1]}
