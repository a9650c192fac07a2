from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seedpo.core.advantages import NORMALISATIONS, group_advantages

REWARDS = np.random.default_rng(0).normal(size=(5, 4)) * np.array([1.0, 5.0, 0.1, 2.0, 1.0])[:, None]


@pytest.mark.parametrize(
    ("normalise", "expected"),
    [
        ("std", (REWARDS - REWARDS.mean(1, keepdims=True)) / REWARDS.std(1, keepdims=True)),
        ("pooled", (REWARDS - REWARDS.mean(1, keepdims=True)) / REWARDS.std()),
        ("mean", REWARDS - REWARDS.mean(1, keepdims=True)),
        ("raw", REWARDS),
    ],
)
def test_follows_its_formula(normalise: str, expected: np.ndarray) -> None:
    np.testing.assert_allclose(group_advantages(torch.tensor(REWARDS), normalise=normalise), expected, rtol=1e-12)


@given(
    first=st.floats(-1000, 1000),
    gap=st.floats(0.001, 1000),
    swap=st.booleans(),
)
def test_two_images_have_plus_and_minus_one(first: float, gap: float, swap: bool) -> None:
    rewards = [first, first + gap]
    expected = [-1.0, 1.0]
    if swap:
        rewards, expected = rewards[::-1], expected[::-1]
    advantages = group_advantages(torch.tensor([rewards], dtype=torch.float64), normalise="std")
    np.testing.assert_allclose(advantages, [expected], rtol=1e-9)


@pytest.mark.parametrize("normalise", ["std", "pooled", "mean"])
def test_equal_rewards_have_no_advantage(normalise: str) -> None:
    """Exactly none in deviations, although the mean of seven equal numbers may differ from them by rounding."""
    rewards, limit = torch.tensor([[0.1] * 7, [0.7] * 7]), 1e-12 if normalise == "mean" else 0.0
    assert (group_advantages(rewards, normalise=normalise).abs() <= limit).all()
    assert (group_advantages(rewards[:1], normalise=normalise).abs() <= limit).all()


@pytest.mark.parametrize("normalise", ["std", "pooled", "mean"])
def test_a_constant_of_the_prompt_plays_no_part(normalise: str) -> None:
    rewards, shift = torch.tensor(REWARDS), torch.arange(5.0, dtype=torch.float64)[:, None] * 16
    moved = group_advantages(rewards + shift, normalise=normalise)
    if normalise == "pooled":  # its scale is that of all rewards, but their order stays
        moved = moved * (rewards + shift).std(correction=0) / rewards.std(correction=0)
    torch.testing.assert_close(moved, group_advantages(rewards, normalise=normalise), rtol=1e-9, atol=1e-9)


def test_half_precision_is_widened_first() -> None:
    rewards = torch.tensor(REWARDS).half()
    torch.testing.assert_close(
        group_advantages(rewards, normalise="std"), group_advantages(rewards.double(), normalise="std")
    )


@pytest.mark.parametrize("shape", [(4,), (4, 1), (2, 2, 2)])
def test_a_group_needs_two_images(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="two images"):
        group_advantages(torch.zeros(shape), normalise="std")


def test_names_what_there_is() -> None:
    with pytest.raises(ValueError, match=", ".join(NORMALISATIONS)):
        group_advantages(torch.zeros(1, 2), normalise="variance")
