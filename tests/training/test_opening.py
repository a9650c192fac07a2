from __future__ import annotations

from typing import Any

import pytest

from seedpo.models.policy import build_policy
from seedpo.training.configuration import resolve_config
from seedpo.training.opening import likely_mistakes, opening_lines, visits_of_a_pair


def test_forty_pairs_are_seen_two_hundred_times() -> None:
    config = resolve_config("diffusion-dpo", {"max_steps": 500, "batch_size": 4, "gradient_accumulation_steps": 2})
    assert visits_of_a_pair(config, 40, processes=2) == 200.0
    (line,) = likely_mistakes(config, pairs=40, processes=2)
    assert "max_steps to 75 " in line
    assert likely_mistakes(config, pairs=40_000, processes=2) == []
    assert likely_mistakes(config, pairs=None, processes=2) == []


@pytest.mark.parametrize(("warmup", "mistakes"), [(0, 0), (63, 0), (64, 1), (500, 1)])
def test_a_warm_up_as_long_as_the_run(warmup: int, mistakes: int) -> None:
    config = resolve_config("diffusion-dpo", {"max_steps": 64, "optimizer": {"warmup_steps": warmup}})
    lines = likely_mistakes(config, pairs=None, processes=1)
    assert len(lines) == mistakes
    assert all(f"optimizer.warmup_steps = {warmup} " in line for line in lines)


@pytest.mark.parametrize(
    ("method", "reward", "mistakes"), [("lpo", "pickscore", 1), ("lpo", "lrm-sd15", 0), ("spo", "pickscore", 0)]
)
def test_lpo_without_a_reward_of_latents(method: str, reward: str, mistakes: int) -> None:
    lines = likely_mistakes(resolve_config(method, {"reward": reward}), pairs=None, processes=1)
    assert len(lines) == mistakes
    assert all(f"reward = {reward} " in line for line in lines)


@pytest.mark.parametrize(("first", "mistakes"), [(10, 0), (64, 1)])
def test_a_beta_that_falls_after_the_run(first: int, mistakes: int) -> None:
    config = resolve_config("diffusion-dpo", {"max_steps": 64, "objective": {"beta_decay": [first, 100]}})
    assert len(likely_mistakes(config, pairs=None, processes=1)) == mistakes


@pytest.mark.parametrize(("method", "size", "mistakes"), [("kto", 1, 1), ("kto", 2, 0), ("diffusion-dpo", 1, 0)])
def test_a_single_like_is_compared_with_itself(method: str, size: int, mistakes: int) -> None:
    assert len(likely_mistakes(resolve_config(method, {"batch_size": size}), pairs=None, processes=1)) == mistakes


@pytest.mark.parametrize(
    ("method", "adapter", "pairs", "parts"),
    [
        ("diffusion-dpo", "lora", 3000, ("scenes-pairs", "3,000 pairs", "about 0.341 times", "adapter off")),
        ("diffusion-dpo", "full", None, ("a stream", "frozen copy", "whole network")),
        ("spo", "lora", None, ("scenes-training", "scenes-scorer", "rank 8")),
    ],
)
def test_what_the_first_lines_name(method: str, adapter: str, pairs: int | None, parts: tuple[str, ...]) -> None:
    config = resolve_config(method, {"adapter": adapter})
    policy = build_policy(config)
    keys: dict[str, Any] = {"pairs": pairs, "fixed_pairs": method == "diffusion-dpo", "processes": 1}
    text = "\n".join(opening_lines(config, policy, results="runs/mine", **keys))
    count = sum(value.numel() for value in policy.trainable_parameters().values())
    for part in ("scenes (StableDiffusionPipeline)", "32 x 32 px", "float32", "cpu", f"{count:,}", "runs/mine", *parts):
        assert part in text


@pytest.mark.parametrize(
    ("method", "changes", "reference"),
    [
        ("mapo", {}, "none"),
        ("mapo", {"anchor": {"kl": 1.0}}, "the same model, adapter off"),
        ("flow-grpo", {}, "the same model, adapter off"),
        ("flow-grpo", {"beta": 0}, "none"),
    ],
)
def test_a_reference_is_named_where_something_asks_it(method: str, changes: dict[str, Any], reference: str) -> None:
    config = resolve_config(method, changes)
    lines = opening_lines(config, build_policy(config), pairs=None, fixed_pairs=False, processes=1, results="runs/mine")
    assert f"reference: {reference}" in "\n".join(lines)
