"""What every registered reward keeps to."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

from seedpo.catalogue import REWARDS
from seedpo.protocols import Reward
from tests.scenes.drawings import some_drawings

PROMPTS = [
    "a large red circle on a gray background",
    "a small blue star on a white background",
    "a large red circle on a gray background",
    "a small green ring on a navy background",
]


@cache
def loaded(name: str) -> Reward:
    reward: Reward = REWARDS.load(name)()
    return reward


HERE = [name for name in REWARDS.names() if name != "pickscore"]
"""Those that need nothing from the hub; `tests/rewards/test_clip_score.py` tests the other one's class."""


@pytest.fixture(params=HERE)
def reward(request: pytest.FixtureRequest) -> Reward:
    return loaded(request.param)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return some_drawings(PROMPTS)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_one_finite_score_per_image(reward: Reward, images: Tensor, count: int) -> None:
    scores = reward(images[:count], PROMPTS[:count])
    assert scores.shape == (count,)
    assert scores.dtype == torch.float32
    assert torch.isfinite(scores).all()
    assert not scores.requires_grad


def test_images_are_scored_one_by_one_as_together(reward: Reward, images: Tensor) -> None:
    together = reward(images, PROMPTS)
    for row in range(4):
        alone = reward(images[row : row + 1], PROMPTS[row : row + 1])
        torch.testing.assert_close(alone, together[row : row + 1], rtol=1e-4, atol=1e-3)


def test_order_is_kept(reward: Reward, images: Tensor) -> None:
    backwards = reward(images.flip(0), PROMPTS[::-1])
    torch.testing.assert_close(backwards.flip(0), reward(images, PROMPTS), rtol=1e-4, atol=1e-3)


def test_scoring_is_deterministic_and_changes_nothing(reward: Reward, images: Tensor) -> None:
    kept = images.clone()
    torch.manual_seed(0)
    first = reward(images, PROMPTS)
    torch.manual_seed(1)
    assert torch.equal(reward(images, PROMPTS), first)
    assert torch.equal(images, kept)


IMAGE_ALONE = ("jpeg-compressibility", "jpeg-incompressibility")
"""Rewards in which the prompt plays no part."""


@pytest.mark.parametrize("name", HERE)
def test_image_and_prompt_both_matter(name: str, images: Tensor) -> None:
    reward = loaded(name)
    scores = reward(images, PROMPTS)
    difference = (reward(images, [PROMPTS[1]] * 4)[[0, 2, 3]] - scores[[0, 2, 3]]).abs()
    assert difference.max() == 0 if name in IMAGE_ALONE else difference.min() > 1e-4
    assert (scores[0] - scores[2]).abs() > 1e-5  # two drawings of one prompt


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_plain_images_have_finite_scores(reward: Reward, value: float) -> None:
    assert torch.isfinite(reward(torch.full((2, 3, 32, 32), value), PROMPTS[:2])).all()
