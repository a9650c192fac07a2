from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from tests.rewards.tiny_clip import tiny_config, tiny_tokenizer
from tests.scenes.drawings import seeded
from tools.scenes.captions import build_captions_part, caption_cosines, contrastive_loss, train_captions

COLOURS = {"a red star": (0.9, 0.1, 0.1), "a blue ring": (0.1, 0.1, 0.9), "a green cross": (0.1, 0.8, 0.1)}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizer:
    return tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def captioned(count: int, generator: torch.Generator) -> tuple[Sequence[str], Tensor]:
    """Plain images in the colour of their caption."""
    captions = [list(COLOURS)[row] for row in torch.randint(3, (count,), generator=generator).tolist()]
    colour = torch.tensor([COLOURS[caption] for caption in captions])
    return captions, (colour[:, :, None, None] + 0.1 * torch.rand(count, 3, 8, 8, generator=generator)).clamp(0, 1)


def trained(tokenizer: CLIPTokenizer, *, steps: int, seed: int = 0) -> CLIPModel:
    torch.manual_seed(1)
    model = CLIPModel(tiny_config(tokenizer))
    train_captions(
        model, tokenizer, captioned, steps=steps, batch_size=12, learning_rate=3e-3, seed=seed, progress=False
    )
    return model


@torch.no_grad()
def right(model: CLIPModel, tokenizer: CLIPTokenizer) -> float:
    """Share of images whose own caption is the nearest."""
    captions, images = captioned(30, seeded(5))
    nearest = caption_cosines(model, tokenizer, images, list(COLOURS)).argmax(1).tolist()
    return sum(list(COLOURS)[row] == caption for row, caption in zip(nearest, captions, strict=True)) / 30


def test_captions_are_learnt(tokenizer: CLIPTokenizer) -> None:
    assert right(trained(tokenizer, steps=1), tokenizer) < 0.8
    assert right(trained(tokenizer, steps=60), tokenizer) > 0.95


def test_equal_captions_share_their_probability() -> None:
    """Both images of one caption, and both captions, are right for one another."""
    logits = torch.tensor([[50.0, 50.0, 0.0], [50.0, 50.0, 0.0], [0.0, 0.0, 50.0]])
    loss = contrastive_loss(logits, ["a", "a", "b"])
    assert float(loss) == pytest.approx(2 / 3 * 0.6931, abs=1e-3)


def test_a_seed_gives_the_same_weights_again(tokenizer: CLIPTokenizer) -> None:
    first, again, other = (trained(tokenizer, steps=2, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_the_part_is_a_clip_in_half_precision_with_its_tokenizer(tmp_path: Path) -> None:
    build_captions_part(tmp_path, steps=1, batch_size=2, progress=False)
    assert {value.dtype for value in load_file(tmp_path / "model.safetensors").values()} == {torch.float16}
    assert len(CLIPTokenizer.from_pretrained(tmp_path)("a red circle").input_ids) > 2
