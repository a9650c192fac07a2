"""Keys of settings as data."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import Field

from seedpo.keys import Key, all_keys, groups, yaml_text
from seedpo.settings import NO_EFFECT, Section
from seedpo.training.settings import RewardRunConfig, RunConfig


class Part(Section):
    """A part."""

    share: Annotated[float, NO_EFFECT] = Field(0.25, gt=0.0, le=1.0)
    """How much
    of it."""


class Base(Section):
    """What is inherited."""

    seed: int = Field(0, ge=0, multiple_of=2)
    """Start."""


class Whole(Base):
    """All."""

    kind: Literal["a", "b"]
    """Which."""
    sizes: tuple[Annotated[int, Field(gt=0)], ...] | None = Field(None, min_length=1)
    """Sizes."""
    part: Part = Part()
    named: dict[str, Part] = Field(default_factory=dict)
    """By name."""
    several: str | list[Part] = "x"
    """One or several."""
    optional: Part | None = None


def test_own_keys_come_first_then_sections_at_any_depth() -> None:
    found = [(group.name, [key.name for key in group.keys]) for group in groups(Whole)]
    assert found == [
        ("", ["kind", "sizes", "named", "several", "seed"]),
        ("part", ["part.share"]),
        ("named.<name>", ["named.<name>.share"]),
        ("several.<number>", ["several.<number>.share"]),
        ("optional", ["optional.share"]),
    ]


def test_a_key_says_what_its_field_says() -> None:
    keys = all_keys(Whole)
    assert keys["part.share"] == Key(
        name="part.share", type="number", range="above 0, at most 1", default="0.25", text="How much of it."
    )
    assert keys["kind"].values == "one of a, b"
    assert keys["kind"].default is None
    assert keys["seed"].values == "integer, at least 0, a multiple of 2"
    assert keys["sizes"].values == "list of integer (above 0) or none, length at least 1"
    assert keys["sizes"].default == "none"
    assert keys["named"].values == "keys below it for each name"
    assert keys["several"].values == "text or list of keys below it"


def test_values_are_written_as_yaml_reads_them() -> None:
    values = [None, True, 1e-8, 4.0, "", [1, "a"], {"a": [None]}, Part()]
    assert list(map(yaml_text, values)) == [
        "none",
        "true",
        "1e-08",
        "4",
        "''",
        "[1, a]",
        "{a: [none]}",
        "{share: 0.25}",
    ]


@pytest.mark.parametrize("kind", [RunConfig, RewardRunConfig])
def test_every_key_and_section_of_a_run_is_documented(kind: type[Section]) -> None:
    found = list(groups(kind))
    assert [group.name for group in found if not group.text] == []
    assert [key.name for group in found for key in group.keys if not key.text] == []
