"""What every registered reward keeps to; those from the hub as small random checkpoints in the published layouts."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from seedpo.errors import DataError
from seedpo.rewards.catalogue import REWARDS
from seedpo.rewards.named import CheckedReward, build_reward
from seedpo.rewards.names import latent_leaves
from seedpo.rewards.spm import SD15_WEIGHTS, SDXL_WEIGHTS
from tests.rewards import plain_blip, plain_dina_lrm, plain_lrm, plain_mps, plain_qwen2_vl, plain_spm
from tests.rewards.small_checkpoints import write_aesthetic, write_clip, write_hps
from tests.rewards.tiny_clip import tiny_tokenizer
from tests.scenes.drawings import some_drawings

PROMPTS = [
    "a large red circle on a gray background",
    "a small blue star on a white background",
    "a large red circle on a gray background",
    "a small green ring on a navy background",
]
IMAGE_ALONE = ("jpeg-compressibility", "jpeg-incompressibility", "scenes-vividness", "aesthetic")
"""Rewards in which the prompt plays no part."""

DRAWINGS_ALONE = ("scenes-truth",)
"""Rewards that read images of one size and prompts of the embedded world only."""

OTHER_PROMPTS = ("ocr",)
"""Rewards that refuse these prompts, and need an engine; `test_ocr.py` has what they keep to."""


def _spm(file: str) -> Callable[[Path], object]:
    def write(folder: Path) -> object:
        tokenizer = tiny_tokenizer(folder)
        return plain_spm.publish(folder, plain_spm.checkpoint(len(tokenizer)), tokenizer, file=file)

    return write


PUBLISHED: dict[str, Callable[[Path], object]] = {
    "pickscore": lambda folder: write_clip(folder, activation="gelu"),
    "clipscore": lambda folder: write_clip(folder, seed=4),  # whose cosines are above 0, where the score is cut off
    "hpsv2": write_hps,
    "hpsv2.1": lambda folder: write_hps(folder, file="HPS_v2.1_compressed.pt", seed=1),
    "hpsv3": lambda folder: plain_qwen2_vl.publish(folder, plain_qwen2_vl.checkpoint()),
    **dict.fromkeys(("mps", "mps-aesthetics", "mps-detail", "mps-alignment"), plain_mps.publish),
    "imagereward": lambda folder: plain_blip.publish(folder, plain_blip.checkpoint()),
    "aesthetic": write_aesthetic,
    "spm-sd15": _spm(SD15_WEIGHTS),
    "spm-sdxl": _spm(SDXL_WEIGHTS),
    "dina-lrm": plain_dina_lrm.publish,
    **{f"lrm-{kind}": partial(plain_lrm.publish, kind=kind) for kind in plain_lrm.KINDS},
}
"""How small checkpoints are written, by the names of rewards that come from the hub."""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], CheckedReward]:
    """Rewards by their registered names."""

    @cache
    def load(name: str) -> CheckedReward:
        if name not in PUBLISHED:
            return build_reward(name)
        folder = tmp_path_factory.mktemp("published") / name
        folder.mkdir()
        PUBLISHED[name](folder)
        return build_reward(f"{name}@{folder}")

    return load


@pytest.fixture(params=[name for name in REWARDS.names() if name not in OTHER_PROMPTS])
def reward(request: pytest.FixtureRequest, loaded: Callable[[str], CheckedReward]) -> CheckedReward:
    return loaded(request.param)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return some_drawings(PROMPTS)


def name_of(reward: CheckedReward) -> str:
    return reward.name.partition("@")[0]


def as_pil(images: Tensor) -> list[Image.Image]:
    pixels = (images.permute(0, 2, 3, 1) * 255.0).round().byte().numpy()
    return [Image.fromarray(np.ascontiguousarray(image)) for image in pixels]


def test_every_reward_from_the_hub_is_among_them() -> None:
    placed = [entry.name for entry in REWARDS.entries if entry.place]
    assert sorted(placed) == sorted(PUBLISHED)


def test_one_finite_score_per_image(reward: CheckedReward, images: Tensor) -> None:
    for count in [1, 4]:
        scores = reward.reward(images[:count], PROMPTS[:count])
        assert scores.shape == (count,)
        assert scores.dtype == torch.float32
        assert torch.isfinite(scores).all()
        assert not scores.requires_grad


def test_images_are_scored_one_by_one_and_backwards_as_together(reward: CheckedReward, images: Tensor) -> None:
    together = reward(images, PROMPTS)
    backwards = reward(images.flip(0), PROMPTS[::-1])
    torch.testing.assert_close(backwards.flip(0), together, rtol=1e-4, atol=1e-3)
    for row in range(4):
        alone = reward(images[row : row + 1], PROMPTS[row : row + 1])
        torch.testing.assert_close(alone, together[row : row + 1], rtol=1e-4, atol=1e-3)


def test_scoring_is_deterministic_and_changes_nothing(reward: CheckedReward, images: Tensor) -> None:
    kept = images.clone()
    torch.manual_seed(0)
    first = reward(images, PROMPTS)
    torch.manual_seed(1)
    assert torch.equal(reward(images, PROMPTS), first)
    assert torch.equal(images, kept)


def test_image_and_prompt_both_matter(reward: CheckedReward, images: Tensor) -> None:
    scores = reward(images, PROMPTS)
    difference = (reward(images, [PROMPTS[1]] * 4)[[0, 2, 3]] - scores[[0, 2, 3]]).abs()
    assert difference.max() == 0 if name_of(reward) in IMAGE_ALONE else difference.min() > 1e-4
    assert (scores[0] - scores[2]).abs() > 1e-5  # two drawings of one prompt


def test_plain_images_have_finite_scores(reward: CheckedReward) -> None:
    plain = torch.tensor([0.0, 0.5, 1.0])[:, None, None, None].expand(3, 3, 32, 32)
    assert torch.isfinite(reward(plain, PROMPTS[:3])).all()


def test_pil_images_score_as_their_tensors(reward: CheckedReward, images: Tensor) -> None:
    pil = as_pil(images)
    bytes_of = torch.stack([torch.from_numpy(np.array(image)) for image in pil]).permute(0, 3, 1, 2) / 255.0
    torch.testing.assert_close(reward(pil, PROMPTS), reward(bytes_of, PROMPTS), rtol=1e-4, atol=1e-3)


def test_pil_images_of_mixed_sizes_score_as_each_by_itself(reward: CheckedReward, images: Tensor) -> None:
    if name_of(reward) in DRAWINGS_ALONE:
        pytest.skip("reads one size only")
    pil = as_pil(images)
    mixed = [pil[0], pil[1].resize((40, 24)), pil[2], pil[3].resize((17, 33))]
    together = reward(mixed, PROMPTS)
    alone = torch.cat([reward([image], [prompt]) for image, prompt in zip(mixed, PROMPTS, strict=True)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-3)


def test_an_empty_and_an_over_long_prompt(reward: CheckedReward, images: Tensor) -> None:
    if name_of(reward) in DRAWINGS_ALONE:
        pytest.skip("reads prompts of the embedded world only")
    scores = reward(images[:2], ["", "a large red circle " * 60])
    assert torch.isfinite(scores).all()


def test_counts_that_differ(reward: CheckedReward, images: Tensor) -> None:
    with pytest.raises(DataError, match="4 images but 3 prompts"):
        reward(images, PROMPTS[:3])


def test_what_is_said_of_time_steps(reward: CheckedReward, images: Tensor) -> None:
    entry = REWARDS[name_of(reward)]
    assert reward.step_aware == entry.step_aware
    finished = reward(images, PROMPTS)
    early, none = (reward(images, PROMPTS, timestep=torch.full((4,), time)) for time in (900, 0))
    torch.testing.assert_close(none, finished)
    assert torch.equal(early, finished) != entry.step_aware


def test_what_is_said_of_latents(reward: CheckedReward) -> None:
    name = name_of(reward)
    latent = reward.latent
    assert (latent is not None) == REWARDS[name].latent == bool(latent_leaves(name))
    if latent is not None:
        noisy = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        scores = latent.score_latents(noisy, PROMPTS, timestep=torch.full((4,), 501))
        assert scores.shape == (4,)
        assert torch.isfinite(scores).all()
        early = latent.score_latents(noisy, PROMPTS, timestep=torch.full((4,), 901))
        assert (early - scores).abs().min() > 1e-4


@pytest.mark.usefixtures("loaded_anew_afterwards")
def test_half_precision_stays_near_and_goes_back(reward: CheckedReward, images: Tensor) -> None:
    full = reward(images, PROMPTS)
    half = reward.to(dtype=torch.bfloat16)(images, PROMPTS)
    again = reward.to(dtype=torch.float32)(images, PROMPTS)
    assert half.dtype == torch.float32
    for scores in (half, again):
        assert (scores - full).abs().max() <= 0.1 * (1.0 + full.abs().max())


def test_the_facts_are_complete() -> None:
    for entry in REWARDS.entries:
        assert entry.scale
        assert entry.licence
        assert entry.source
        assert entry.direction == "higher"
        assert bool(entry.size) == bool(entry.place)
