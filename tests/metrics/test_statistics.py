from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from seedpo.metrics.named import build_prompt_metric
from seedpo.metrics.records import Metric, Samples

ALL = IMAGE_ENTROPY, RMS_CONTRAST, COLOURFULNESS, EDGE_DENSITY = tuple(
    build_prompt_metric(name) for name in ("image_entropy", "rms_contrast", "colourfulness", "edge_density")
)


def of(metric: Metric, *images: Tensor) -> float:
    """The metric of one prompt's images, (3, H, W) or gray (H, W)."""
    colour = [image.expand(3, *image.shape[-2:]) for image in images]
    return metric.per_prompt(Samples(images=torch.stack(colour)[None], prompts=["a"])).item()


def half_and_half(dark: float = 0.0, light: float = 1.0) -> Tensor:
    image = torch.full((10, 10), dark)
    image[:, 5:] = light
    return image


def some_image() -> Tensor:
    return torch.randint(256, (3, 9, 12), generator=torch.Generator().manual_seed(5)) / 255.0


def luminance(image: Tensor) -> np.ndarray:
    red, green, blue = (image.double().numpy() * 255).round()
    return 0.299 * red + 0.587 * green + 0.114 * blue


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.facts.name)
class TestAll:
    def test_an_even_grey_has_nothing(self, metric: Metric) -> None:
        for level in (0.0, 0.5, 1.0):
            assert of(metric, torch.full((8, 8), level)) == pytest.approx(0.0, abs=1e-12)

    def test_is_the_mean_over_images_and_each_prompt_has_its_own(self, metric: Metric) -> None:
        one, other = some_image(), some_image().flip(0) * 0.5
        assert of(metric, one, other) == pytest.approx((of(metric, one) + of(metric, other)) / 2)
        found = metric.per_prompt(Samples(images=torch.stack([one, other])[:, None], prompts=["a", "b"]))
        assert found.tolist() == pytest.approx([of(metric, one), of(metric, other)])

    def test_the_image_is_seen_as_its_file_holds_it(self, metric: Metric) -> None:
        image = some_image()
        assert of(metric, image + 0.4 / 255) == of(metric, image)
        assert of(metric, image.half()) == of(metric, image)


class TestEntropy:
    def test_all_levels_are_8_bits(self) -> None:
        assert of(IMAGE_ENTROPY, (torch.arange(256) / 255.0).view(16, 16)) == pytest.approx(8.0)

    def test_two_levels_are_one_bit(self) -> None:
        assert of(IMAGE_ENTROPY, half_and_half()) == pytest.approx(1.0)

    def test_is_that_of_the_reference(self) -> None:
        levels, counts = np.unique(luminance(some_image()).round(), return_counts=True)
        shares = counts / counts.sum()
        assert len(levels) > 20
        assert of(IMAGE_ENTROPY, some_image()) == pytest.approx(-(shares * np.log2(shares)).sum())


class TestContrast:
    def test_black_and_white_is_the_greatest(self) -> None:
        assert of(RMS_CONTRAST, half_and_half()) == pytest.approx(0.5)

    def test_is_that_of_the_reference(self) -> None:
        assert of(RMS_CONTRAST, some_image()) == pytest.approx(luminance(some_image()).std() / 255)


class TestColourfulness:
    def test_one_colour_has_only_a_mean(self) -> None:
        red = torch.tensor([1.0, 0.0, 0.0])[:, None, None].expand(3, 8, 8)
        assert of(COLOURFULNESS, red) == pytest.approx(0.3 * math.hypot(255, 127.5))

    def test_red_and_green_have_a_spread_too(self) -> None:
        """rg is 255 or -255, yb always 127.5."""
        image = torch.zeros(3, 8, 8)
        image[0, :4] = image[1, 4:] = 1.0
        assert of(COLOURFULNESS, image) == pytest.approx(255 + 0.3 * 127.5)

    def test_is_that_of_the_reference(self) -> None:
        red, green, blue = some_image().double().numpy() * 255
        rg, yb = red - green, (red + green) / 2 - blue
        wanted = math.hypot(rg.std(), yb.std()) + 0.3 * math.hypot(rg.mean(), yb.mean())
        assert of(COLOURFULNESS, some_image()) == pytest.approx(wanted)


class TestEdges:
    def test_a_step_is_two_pixels_wide(self) -> None:
        """Of 8 inner columns, 2 lie beside the step."""
        assert of(EDGE_DENSITY, half_and_half()) == pytest.approx(0.25)
        assert of(EDGE_DENSITY, half_and_half().T) == pytest.approx(0.25)

    def test_only_steps_of_more_than_a_fifth_count(self) -> None:
        assert of(EDGE_DENSITY, half_and_half(0.4, 0.4 + 50 / 255)) == 0
        assert of(EDGE_DENSITY, half_and_half(0.4, 0.4 + 52 / 255)) == 0.25

    def test_a_slope_has_its_slope(self) -> None:
        slope = torch.arange(10)[None].expand(10, 10)
        assert of(EDGE_DENSITY, slope * 25 / 255) == 0
        assert of(EDGE_DENSITY, slope * 26 / 255) == 1

    def test_is_that_of_sobel(self) -> None:
        light = luminance(some_image()) / 255
        kernel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
        height, width = light.shape
        patches = [light[i : i + 3, j : j + 3] for i in range(height - 2) for j in range(width - 2)]
        lengths = np.array([math.hypot((patch * kernel).sum(), (patch * kernel.T).sum()) for patch in patches])
        assert 0 < (lengths > 0.1).mean() < 1
        assert of(EDGE_DENSITY, some_image()) == pytest.approx((lengths > 0.1).mean())

    @pytest.mark.parametrize("size", [(1, 1), (2, 9), (9, 2)])
    def test_an_image_without_inner_pixels_has_none(self, size: tuple[int, int]) -> None:
        assert of(EDGE_DENSITY, torch.rand(size, generator=torch.Generator().manual_seed(0))) == 0
