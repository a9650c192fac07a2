from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from seedpo.errors import DataError
from seedpo.rewards.scoring import byte_batches, score_in_batches
from tests.rewards.plain_pixels import picture

SIZES = [(4, 4), (6, 4), (4, 4), (4, 6), (6, 4), (4, 4), (4, 4)]


def images(rows: int = 5) -> Tensor:
    return torch.rand(rows, 3, 4, 6, generator=torch.Generator().manual_seed(0))


def prompts(rows: int) -> list[str]:
    return [f"{row}" for row in range(rows)]


class Seen:
    """Scores an image by its first byte and its prompt; remembers what it was shown."""

    def __init__(self) -> None:
        self.batches: list[Tensor] = []

    def __call__(self, pixels: Tensor, words: Sequence[str]) -> Tensor:
        self.batches.append(pixels)
        return pixels[:, 0, 0, 0].float() * 100 + torch.tensor([float(word) for word in words])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_values_are_rounded_to_bytes(dtype: torch.dtype) -> None:
    seen = Seen()
    values = torch.tensor([0.0, 0.25, 0.5, 1.0, -0.5, 1.5], dtype=dtype).expand(1, 3, 4, 6)
    score_in_batches(values, ["0"], seen, device="cpu")
    assert seen.batches[0].dtype == torch.uint8
    assert seen.batches[0][0, 0, 0].tolist() == [0, 64, 128, 255, 0, 255]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 64])
def test_order_is_kept_when_sizes_are_mixed(batch_size: int) -> None:
    files = [picture(*size, seed=row) for row, size in enumerate(SIZES)]
    seen = Seen()
    scores = score_in_batches(files, prompts(len(files)), seen, batch_size=batch_size, device="cpu")
    wanted = [float(np.array(file)[0, 0, 0]) * 100 + row for row, file in enumerate(files)]
    assert scores.tolist() == wanted
    assert scores.dtype == torch.float32
    assert max(len(batch) for batch in seen.batches) == min(batch_size, 4)


def test_tensors_and_files_are_the_same_images() -> None:
    files = [picture(5, 7, seed=row) for row in range(3)]
    tensors = torch.stack([torch.from_numpy(np.array(file)).permute(2, 0, 1) for file in files])
    (_, from_files), (_, from_tensors) = (
        next(byte_batches(given, device="cpu")) for given in (files, tensors.float() / 255)
    )
    assert from_files.equal(tensors)
    assert from_tensors.equal(tensors)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK", "I;16"])
def test_files_of_any_kind_are_made_rgb(mode: str) -> None:
    seen = Seen()
    score_in_batches([Image.new(mode, (4, 3))], ["0"], seen, device="cpu")
    assert seen.batches[0].shape == (1, 3, 3, 4)


def test_no_images_give_no_scores() -> None:
    assert score_in_batches(images(0), [], Seen(), device="cpu").shape == (0,)
    assert score_in_batches([], [], Seen(), device="cpu").shape == (0,)


def test_scores_have_no_gradient() -> None:
    given = images().requires_grad_()
    assert not score_in_batches(given, prompts(5), Seen(), device="cpu").requires_grad


@pytest.mark.parametrize("shape", [(), (1,), (5, 5), (5, 1)])
def test_scores_of_another_shape_are_no_scores(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="for 5 images"):
        score_in_batches(images(), prompts(5), lambda pixels, words: torch.zeros(shape), device="cpu")


BROKEN = [
    (images(3), ["0"], "3 images but 1 prompts; pass one prompt for each image"),
    ([picture(4, 4, seed=0)], ["0", "1"], "1 images but 2 prompts"),
    (images(2), "ab", "prompts are a single string"),
    ([picture(4, 4, seed=0), "cat.png"], ["0", "1"], "image 1 is a str, not an image"),
    ([picture(4, 4, seed=0), torch.zeros(3, 4, 4)], ["0", "1"], "image 1 is a Tensor, not an image"),
    (images(2)[:, :2], ["0", "1"], r"shape \(2, 2, 4, 6\); pass \(B, 3, H, W\)"),
    (images(2)[0], ["0", "1", "2"], r"pass \(B, 3, H, W\)"),
    ((images(2) * 255).byte(), ["0", "1"], r"images are uint8; pass floating-point values in \[0, 1\]"),
]


def test_what_cannot_be_scored_is_named() -> None:
    for given, words, message in BROKEN:
        with pytest.raises(DataError, match=message) as caught:
            score_in_batches(given, words, Seen(), device="cpu")
        assert "\n" not in str(caught.value)


def test_an_image_that_is_not_a_number_is_named() -> None:
    broken = images(5)
    broken[3, 1, 2, 2] = torch.nan
    with pytest.raises(DataError, match="image 3 holds NaN"):
        score_in_batches(broken, prompts(5), Seen(), batch_size=2, device="cpu")


def test_a_file_that_is_cut_short_is_named(tmp_path: Any) -> None:
    path = tmp_path / "cut.png"
    picture(40, 40, seed=0).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with Image.open(path) as cut, pytest.raises(DataError, match="image 1 cannot be read"):
        score_in_batches([picture(40, 40, seed=0), cut], ["0", "1"], Seen(), device="cpu")
