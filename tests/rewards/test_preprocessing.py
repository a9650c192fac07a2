from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from seedpo.rewards.preprocessing import clip_pixels, hps_pixels, pil_resize, resize_by_taps, shorter_side
from tests.rewards.plain_pixels import as_tensor, clip_values, hps_values, picture

LENGTHS = st.integers(1, 60)


def by_pillow(image: Image.Image, height: int, width: int) -> Tensor:
    """The width first: Pillow 13 itself begins with the height where that shrinks much more."""
    narrow = image.resize((width, image.height), Image.Resampling.BICUBIC)
    return as_tensor([narrow.resize((width, height), Image.Resampling.BICUBIC)])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(height=LENGTHS, width=LENGTHS, tall=LENGTHS, wide=LENGTHS, seed=st.integers(0, 5))
def test_resizing_is_pillows_bit_for_bit(height: int, width: int, tall: int, wide: int, seed: int) -> None:
    image = picture(height, width, seed=seed)
    wanted = by_pillow(image, tall, wide)
    assert resize_by_taps(as_tensor([image]), (tall, wide)).equal(wanted)
    assert pil_resize(as_tensor([image]), (tall, wide)).equal(wanted)


def test_resizing_of_the_shorter_side_is_one_call_of_pillow() -> None:
    """In every version of Pillow, as the scorers call it; both ways of doing it here."""
    for size in [(512, 512), (300, 431), (225, 224), (97, 640), (640, 97), (7, 9), (1024, 1000)]:
        image = picture(*size, seed=1)
        height, width = shorter_side(*size, 224)
        assert min(height, width) == 224
        wanted = torch.from_numpy(np.array(image.resize((width, height), Image.Resampling.BICUBIC))).permute(2, 0, 1)
        assert resize_by_taps(as_tensor([image]), (height, width))[0].equal(wanted)
        assert pil_resize(as_tensor([image]), (height, width))[0].equal(wanted)


def test_batches_are_resized_as_single_images() -> None:
    images = as_tensor([picture(30, 50, seed=seed) for seed in range(3)])
    for resize in (pil_resize, resize_by_taps):
        together = resize(images, (16, 27))
        assert together.shape == (3, 3, 16, 27)
        assert together.dtype == torch.uint8
        for row in range(3):
            assert resize(images[row : row + 1], (16, 27))[0].equal(together[row])


def test_an_image_of_the_wanted_size_stays_as_it_is() -> None:
    images = as_tensor([picture(16, 24, seed=0)])
    assert pil_resize(images, (16, 24)).equal(images)
    assert resize_by_taps(images, (16, 24)).equal(images)


@pytest.mark.parametrize("crop", ["transformers", "torchvision"])
def test_images_are_cropped_as_each_library_crops(crop: str) -> None:
    for size in [(16, 16), (16, 19), (21, 16), (40, 64), (33, 17), (9, 7), (16, 17)]:
        image = picture(*size, seed=2)
        name = "transformers" if crop == "transformers" else "torchvision"
        found = clip_pixels(as_tensor([image]), 16, crop=name)[0]
        torch.testing.assert_close(found.double(), clip_values(image, 16, name), rtol=0, atol=1e-6)


def test_images_are_prepared_as_transformers_prepares_files() -> None:
    for size in [(8, 8), (16, 16), (24, 40), (33, 17), (6, 5), (8, 11), (11, 8)]:
        files = [picture(*size, seed=seed) for seed in range(2)]
        processor = CLIPImageProcessorPil(size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8})
        wanted = processor(files, return_tensors="pt").pixel_values
        torch.testing.assert_close(clip_pixels(as_tensor(files), 8, crop="transformers"), wanted, rtol=0, atol=1e-6)


def test_images_are_padded_as_hpsv2_pads() -> None:
    for size in [(16, 16), (64, 64), (64, 48), (33, 50), (9, 12), (16, 5)]:
        image = picture(*size, seed=3)
        found = hps_pixels(as_tensor([image]), 16)[0]
        torch.testing.assert_close(found.double(), hps_values(image, 16), rtol=0, atol=2e-5)


def test_hpsv2_is_shown_even_the_thinnest_images() -> None:
    """The original fails on an image whose shorter side would vanish; here one row of pixels is left of it."""
    assert hps_pixels(as_tensor([picture(100, 3, seed=0)]), 16).isfinite().all()
