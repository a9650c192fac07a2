from __future__ import annotations

import io

import pytest
import torch
from PIL import Image

from seedpo.catalogue import REWARDS
from seedpo.rewards.jpeg import compressibility, incompressibility, jpeg_sizes


def test_the_size_is_that_of_the_file_in_kb() -> None:
    images = torch.rand(2, 3, 24, 40, generator=torch.Generator().manual_seed(0))
    for image, size in zip(images, jpeg_sizes(images).tolist(), strict=True):
        file = io.BytesIO()
        array = (image * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(array).save(file, "JPEG", quality=95)
        assert size == pytest.approx(len(file.getvalue()) / 1000)


def test_noise_is_hard_to_compress_and_a_plain_image_is_not() -> None:
    noise = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    images = torch.cat([noise, torch.full((1, 3, 32, 32), 0.5)])
    easy, hard = compressibility()(images, ["", ""]), incompressibility()(images, ["", ""])
    assert easy[1] > easy[0]
    assert hard.equal(-easy)


def test_values_outside_the_range_do_not_wrap_around() -> None:
    assert jpeg_sizes(torch.full((1, 3, 16, 16), 1.2)).equal(jpeg_sizes(torch.ones(1, 3, 16, 16)))


def test_both_are_registered() -> None:
    images = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    assert REWARDS.load("jpeg-compressibility")()(images, [""]).item() < 0
    assert REWARDS.load("jpeg-incompressibility")()(images, [""]).item() > 0
