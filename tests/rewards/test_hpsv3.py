"""HPSv3 beside the second writing in `plain_qwen2_vl.py`: what it reads, and what it refuses."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from seedpo.errors import DataError
from seedpo.rewards.hpsv3 import AREA, INSTRUCTION, WEIGHTS, HPSv3, hpsv3, network_of
from seedpo.rewards.preprocessing import qwen2_vl_patches, qwen2_vl_size
from tests.rewards import plain_qwen2_vl
from tests.rewards.plain_pixels import as_tensor, picture

INSTRUCTION_HASH = "e8bc3f56f7e385c737eee2ae8d3c77ecacc3b384ebc47d4d53bf374b6baf0fe4"
"""Of the text in the package hpsv3 1.0.0; each of its spaces and line ends changes scores."""


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return plain_qwen2_vl.checkpoint()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, weights: dict[str, Tensor]) -> Path:
    return plain_qwen2_vl.publish(tmp_path_factory.mktemp("hpsv3"), weights)


@pytest.fixture(scope="module")
def reward(folder: Path) -> HPSv3:
    return hpsv3(str(folder))


def test_the_instruction_is_the_published_one() -> None:
    assert hashlib.sha256(INSTRUCTION.encode()).hexdigest() == INSTRUCTION_HASH


@pytest.mark.parametrize("size", [(1024, 1024), (512, 768), (7, 9), (31, 64), (1000, 301), (448, 448), (2000, 20)])
def test_images_are_prepared_as_by_transformers(size: tuple[int, int]) -> None:
    """Size and patches; resizing is Pillow's, see `test_preprocessing.py`."""
    processor = Qwen2VLImageProcessorPil(size={"shortest_edge": AREA, "longest_edge": AREA})
    height, width = qwen2_vl_size(*size, area=AREA, factor=28)
    theirs = processor(picture(*size, seed=0), return_tensors="pt")
    assert theirs["image_grid_thw"].tolist() == [[1, height // 14, width // 14]]
    image = picture(height, width, seed=1)
    theirs = processor(image, return_tensors="pt", do_resize=False)
    ours = qwen2_vl_patches(as_tensor([image]), patch=14, merge=2, frames=2)
    torch.testing.assert_close(ours, theirs["pixel_values"], rtol=0, atol=1e-5)


def test_patches_of_a_batch_are_those_of_each_image() -> None:
    images = as_tensor([picture(56, 84, seed=row) for row in range(3)])
    together = qwen2_vl_patches(images, patch=14, merge=2, frames=2)
    alone = [qwen2_vl_patches(image[None], patch=14, merge=2, frames=2) for image in images]
    assert together.equal(torch.cat(alone))


def test_tokens_are_those_of_the_definition(reward: HPSv3, weights: dict[str, Tensor]) -> None:
    plain = plain_qwen2_vl.Plain(weights)
    for text in (INSTRUCTION, "a caf\u00e9, 42  stars!\n\n  \u65e5\u672c\u8a9e don't", "<|vision_end|>\n"):
        assert reward._ids(text).tolist() == plain.ids(text)


def test_an_image_scores_alike_whatever_stands_beside_it(reward: HPSv3, weights: dict[str, Tensor]) -> None:
    """Prompts of several lengths in one batch are padded, which reaches no score."""
    image, prompts = picture(40, 60, seed=3), ["", "a red ring " * 40, "a star"]
    together = reward([image] * 3, prompts)
    wanted = [plain_qwen2_vl.Plain(weights).score(image, prompt) for prompt in prompts]
    torch.testing.assert_close(together, torch.tensor(wanted), rtol=0, atol=3e-5)


def test_the_number_format_is_that_of_the_file_until_another_is_asked_for(
    tmp_path: Path, weights: dict[str, Tensor]
) -> None:
    halves = {name: value.bfloat16() for name, value in weights.items()}
    reward = hpsv3(str(plain_qwen2_vl.publish(tmp_path, halves)))
    held = {value.dtype for part in (reward.network.visual, reward.network.model) for value in part.parameters()}
    assert held == {torch.bfloat16}
    for dtype in (torch.bfloat16, torch.float32):
        reward.to(dtype=dtype)
        assert {value.dtype for value in reward.network.rm_head.parameters()} == {torch.float32}
    image, plain = picture(30, 30, seed=1), plain_qwen2_vl.Plain(halves)
    torch.testing.assert_close(
        reward([image], ["a ring"]), torch.tensor([plain.score(image, "a ring")]), rtol=0, atol=3e-5
    )


def test_an_image_that_is_too_narrow_is_refused(reward: HPSv3) -> None:
    with pytest.raises(DataError, match="2 x 402 pixels"):
        reward([Image.fromarray(np.zeros((402, 2, 3), dtype=np.uint8))], ["a line"])


BROKEN = [
    ({"rm_head.5.bias": None}, r"lacks rm_head\.5\.bias"),
    ({"model.layers.1.mlp.up_proj.weight": None}, r"lacks model\.layers\.1\.mlp\.up_proj\.weight"),
    ({"visual.merger.ln_q.weight": None}, r"lacks visual\.merger\.ln_q\.weight"),
    ({"model.embed_tokens.weight": None}, r"lacks model\.embed_tokens\.weight"),
    ({"model.layers.2.mlp.up_proj.weight": torch.ones(1)}, r"also holds model\.layers\.2\.mlp\.up_proj\.weight"),
    ({"rm_head.5.weight": torch.ones(1, 16)}, r"wrong shape for rm_head\.5\.weight \(1, 16\) instead of \(2, 16\)"),
]


def test_weights_that_do_not_fit_are_named(weights: dict[str, Tensor]) -> None:
    for changes, message in BROKEN:
        changed = {name: value for name, value in (weights | changes).items() if value is not None}
        with pytest.raises(DataError, match=f"w.safetensors.*{message}") as caught:
            network_of(changed, plain_qwen2_vl.CONFIGURATION, origin="w.safetensors")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("changes", [{"model_type": "qwen3_vl"}, {"num_attention_heads": 0}, {"hidden_size": "wide"}])
def test_another_configuration_is_refused(weights: dict[str, Tensor], changes: dict[str, object]) -> None:
    with pytest.raises(DataError, match=r"config\.json") as caught:
        network_of(weights, plain_qwen2_vl.CONFIGURATION | changes, origin="w.safetensors")
    assert "\n" not in str(caught.value)


def test_a_tokenizer_with_more_tokens_than_the_weights_is_refused(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    rows = len(plain_qwen2_vl.vocabulary())
    fewer = {name: value[:-1].clone() if len(value) == rows else value for name, value in weights.items()}
    with pytest.raises(DataError, match="Qwen/Qwen2-VL-7B-Instruct"):
        hpsv3(str(plain_qwen2_vl.publish(tmp_path, fewer)))


def test_a_folder_without_a_configuration_is_a_published_one(tmp_path: Path, folder: Path) -> None:
    """So that the small weights do not fit it."""
    save_file(load_file(folder / WEIGHTS), tmp_path / WEIGHTS)
    with pytest.raises(DataError, match=r"HPSv3\.safetensors does not fit the network: it lacks visual\.blocks\.2"):
        hpsv3(str(tmp_path))
