"""The reward of one aspect against colorsys, and what it can be pushed to."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from seedpo.errors import DataError
from seedpo.rewards.catalogue import REWARDS
from seedpo.rewards.vividness import mean_chroma
from seedpo.scenes.drawing import draw
from seedpo.scenes.taste import true_utility
from tests.scenes.drawings import one_scene, some_drawings


def noise(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def as_pil(image: Tensor) -> Image.Image:
    return Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy())


def chroma_of(image: Image.Image) -> float:
    """Saturation times value of every pixel, by the standard library: per cent."""
    pixels = np.asarray(image, dtype=np.float64).reshape(-1, 3) / 255.0
    hsv = [colorsys.rgb_to_hsv(*pixel) for pixel in pixels]
    return 100.0 * sum(saturation * value for _, saturation, value in hsv) / len(hsv)


def test_it_is_the_mean_chroma_of_hsv() -> None:
    images = noise(2, 3, 12, 20)
    wanted = [chroma_of(as_pil(image)) for image in images]
    assert mean_chroma(images, ["", ""]).tolist() == pytest.approx(wanted, rel=1e-5)


def test_pil_images_of_mixed_sizes() -> None:
    images = [as_pil(noise(3, *size)) for size in ((24, 40), (16, 16), (24, 40), (1, 7))]
    assert mean_chroma(images, [""] * 4).tolist() == pytest.approx([chroma_of(image) for image in images], rel=1e-5)


def test_gray_has_none_and_a_pure_colour_has_all() -> None:
    colours = torch.tensor([[0.5, 0.5, 0.5], [1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])[:, :, None, None].expand(3, 3, 8, 8)
    assert mean_chroma(colours, [""] * 3).tolist() == [0.0, 100.0, 100.0]
    assert mean_chroma(3.0 * colours - 1.0, [""] * 3).tolist() == [0.0, 100.0, 100.0]  # clamped to [0, 1]


def test_the_annotator_likes_it_up_to_a_point() -> None:
    """Proxy and truth rise together within the legitimate drawings; a flood of colour has more of it, and no worth."""
    prompt = "a large red circle on a gray background"
    pale, vivid = (draw(one_scene(prompt, vividness=value)) for value in (0.5, 0.9))
    flood = torch.tensor([1.0, 0.0, 0.0])[None, :, None, None].expand(1, 3, 32, 32)
    images = torch.cat([pale, vivid, flood])
    proxy, truth = mean_chroma(images, [prompt] * 3), true_utility(images, [prompt] * 3)
    assert proxy[0] < proxy[1] < proxy[2]
    assert truth[2] < truth[0] < truth[1]


def test_no_legitimate_drawing_comes_near_its_end() -> None:
    drawings = some_drawings()
    assert mean_chroma(drawings, [""] * len(drawings)).max() < 50.0


def test_it_is_registered_and_needs_no_network() -> None:
    assert REWARDS.load("scenes-vividness")() is mean_chroma
    assert REWARDS["scenes-vividness"].network is None


def test_not_an_image() -> None:
    with pytest.raises(DataError, match="image 1 is a str"):
        mean_chroma([as_pil(noise(3, 4, 4)), "b.jpg"], ["", ""])
