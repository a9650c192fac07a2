from __future__ import annotations

import io

import pytest
import torch
from PIL import Image
from torch import Tensor

from seedpo.errors import DataError
from seedpo.rewards.catalogue import REWARDS
from seedpo.rewards.jpeg import compressibility, incompressibility, jpeg_sizes


def noise(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def pictures(images: Tensor) -> list[Image.Image]:
    return [Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy()) for image in images]


def size_of_file(image: Image.Image) -> float:
    """As DDPO measures it."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95)
    return len(file.getvalue()) / 1000


def test_the_size_is_that_of_the_file_in_kb() -> None:
    images = noise(2, 3, 24, 40)
    wanted = [size_of_file(image) for image in pictures(images)]
    assert jpeg_sizes(images, ["", ""]).tolist() == pytest.approx(wanted)
    assert jpeg_sizes(images, ["", ""]).dtype == torch.float32


def test_pil_images_of_mixed_sizes() -> None:
    images = [pictures(noise(1, 3, *size))[0] for size in ((24, 40), (16, 16), (24, 40), (1, 7))]
    wanted = [size_of_file(image) for image in images]
    assert jpeg_sizes(images, [""] * 4).tolist() == pytest.approx(wanted)


def test_noise_is_hard_to_compress_and_a_plain_image_is_not() -> None:
    images = torch.cat([noise(1, 3, 32, 32), torch.full((1, 3, 32, 32), 0.5)])
    easy, hard = compressibility()(images, ["", ""]), incompressibility()(images, ["", ""])
    assert easy[1] > easy[0]
    assert hard.equal(-easy)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_floating_type_is_taken(dtype: torch.dtype) -> None:
    plain = torch.full((1, 3, 16, 16), 0.5)
    assert jpeg_sizes(plain.to(dtype), [""]).equal(jpeg_sizes(plain, [""]))


def test_values_outside_the_range_do_not_wrap_around() -> None:
    assert jpeg_sizes(torch.full((1, 3, 16, 16), 1.2), [""]).equal(jpeg_sizes(torch.ones(1, 3, 16, 16), [""]))


def test_both_are_registered() -> None:
    assert REWARDS.load("jpeg-compressibility")()(noise(1, 3, 16, 16), [""]).item() < 0
    assert REWARDS.load("jpeg-incompressibility")()(noise(1, 3, 16, 16), [""]).item() > 0


def test_counts_that_differ() -> None:
    with pytest.raises(DataError, match="2 images but 1 prompts"):
        compressibility()(noise(2, 3, 16, 16), [""])
