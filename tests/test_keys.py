"""Keys of settings as data."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import Field

from seedpo.foreign_keys import ELSEWHERE, SAME
from seedpo.keys import Key, all_keys, groups, match, near_names, suggestion, yaml_text
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
    several: Annotated[str | list[Part], "mark"] | None = "x"
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
    assert keys["several"].values == "text or list of keys below it or none"


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


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("gama", ["gamma"]),
        ("warmup_steps", ["optimizer.warmup_steps"]),
        ("optimizer_beta1", ["optimizer.beta1"]),
        ("cache_latents", ["cache.latents"]),
        ("evaluation.metric", ["evaluation.metrics"]),
        ("evaluation.colour", []),
        ("num_inference_steps", ["sampling.num_inference_steps", "evaluation.num_inference_steps"]),
    ],
)
def test_near_names_are_found_in_every_section(name: str, keys: list[str]) -> None:
    assert near_names(name, all_keys(RunConfig)) == keys


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("optimiser", ["optimizer"]),
        ("lr", ["learning_rate"]),
        ("optimizer.lr", ["learning_rate"]),
        ("network_dim", ["lora_rank"]),
        ("beta_dpo", ["beta"]),
        ("snr_gamma", ["noise_weight", "min_snr_gamma"]),
        ("Train-Batch-Size", ["batch_size"]),
        ("evaluation.guidance", ["evaluation.guidance_scale"]),
        ("rewards.mine.termz", ["rewards.mine.terms"]),
    ],
)
def test_what_was_meant_is_suggested(name: str, keys: list[str]) -> None:
    assert suggestion(name, RunConfig).split("'")[1::2] == keys


def test_what_is_not_supported_suggests_no_key() -> None:
    assert suggestion("noise_offset", RunConfig) == ELSEWHERE["noise_offset"]


def test_nothing_near_names_sections_only() -> None:
    text = suggestion("zzz", RunConfig)
    assert "optimizer" in text
    assert "lora_rank" not in text
    assert "config explain pairs" in suggestion("pairs.zzz", RunConfig)


def test_foreign_names_lead_to_keys_and_are_none_themselves() -> None:
    keys = all_keys(RunConfig)
    assert {key for meant in SAME.values() for key in meant} <= set(keys)
    assert not (set(SAME) | set(ELSEWHERE)) & {*keys, *all_keys(RewardRunConfig)}
    assert not set(SAME) & set(ELSEWHERE)


def test_names_of_the_users_own_match() -> None:
    assert match("rewards.mine.terms", "rewards.<name>.terms")
    assert not match("rewards.terms", "rewards.<name>.terms")
