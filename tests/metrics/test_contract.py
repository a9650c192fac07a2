"""What every registered metric keeps to."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from seedpo.catalogue import METRICS
from seedpo.protocols import Metric, Samples
from tests.scenes.drawings import some_drawings

PROMPTS = ["a large red star on a gray background", "a small blue cross on a white background"]
COUNT = 3


@pytest.fixture(params=METRICS.names())
def metric(request: pytest.FixtureRequest) -> Metric:
    loaded: Metric = METRICS.load(request.param)
    assert loaded.name == request.param
    return loaded


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Three images of each prompt, (2, 3, 3, 32, 32)."""
    return some_drawings([prompt for prompt in PROMPTS for _ in range(COUNT)]).view(2, COUNT, 3, 32, 32)


def measured(metric: Metric, images: Tensor, prompts: list[str]) -> Tensor:
    return metric.per_prompt(Samples(images=images, prompts=prompts))


def test_one_finite_value_per_prompt(metric: Metric, images: Tensor) -> None:
    values = measured(metric, images, PROMPTS)
    assert values.shape == (2,)
    assert torch.isfinite(values).all()
    assert not values.requires_grad
    assert math.isfinite(metric.finish(float(values.mean())))


def test_one_prompt(metric: Metric, images: Tensor) -> None:
    values = measured(metric, images, PROMPTS)
    for row in range(2):
        alone = measured(metric, images[row : row + 1], PROMPTS[row : row + 1])
        torch.testing.assert_close(alone, values[row : row + 1], rtol=1e-4, atol=1e-3)


def test_the_order_of_the_images_does_not_matter(metric: Metric, images: Tensor) -> None:
    torch.testing.assert_close(
        measured(metric, images.flip(1), PROMPTS), measured(metric, images, PROMPTS), rtol=1e-4, atol=1e-3
    )


def test_one_image_is_measured_or_left_open(metric: Metric, images: Tensor) -> None:
    values = measured(metric, images[:, :1], PROMPTS)
    assert values.shape == (2,)
    assert torch.isnan(values).all() if metric.least_images > 1 else torch.isfinite(values).all()


def test_is_described(metric: Metric) -> None:
    assert metric.direction in ("higher", "lower")
    assert metric.unit
    assert metric.summary
    assert "\n" not in metric.summary
    assert metric.least_images >= 1


def test_images_of_no_object_break_nothing(metric: Metric) -> None:
    values = measured(metric, torch.full((1, 2, 3, 32, 32), 0.52), PROMPTS[:1])
    assert values.shape == (1,)
    assert not torch.isinf(values).any()
