"""What every registered metric keeps to."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from seedpo.metrics.catalogue import METRICS
from seedpo.metrics.features.names import FEATURES, SET_METRICS
from seedpo.protocols import Metric, Samples, SetMetric
from seedpo.registry import MetricEntry
from tests.metrics.features.small_networks import small_clip, small_dino
from tests.scenes.drawings import some_drawings

PROMPTS = ["a large red star on a gray background", "a small blue cross on a white background"]
COUNT = 3


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Small networks instead of those that would be downloaded."""
    return {
        "clip": str(small_clip(tmp_path_factory.mktemp("clip"))),
        "dino": str(small_dino(tmp_path_factory.mktemp("dino"))),
    }


@pytest.fixture(params=METRICS.names())
def metric(request: pytest.FixtureRequest, places: dict[str, str]) -> Metric:
    entry = METRICS[request.param]
    assert isinstance(entry, MetricEntry)
    loaded: Metric = entry.load(places.get(entry.features or ""))
    assert loaded.name == request.param
    return loaded


@pytest.fixture(params=SET_METRICS.names())
def set_metric(request: pytest.FixtureRequest) -> SetMetric:
    loaded: SetMetric = SET_METRICS.load(request.param)
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
    entry = METRICS[metric.name]
    assert isinstance(entry, MetricEntry)
    assert (entry.direction, entry.features, entry.reference) == (metric.direction, metric.features, False)
    assert metric.direction in ("higher", "lower", "neither")
    assert metric.unit
    assert metric.summary
    assert "\n" not in metric.summary
    assert metric.least_images >= 1


def test_images_of_no_object_break_nothing(metric: Metric) -> None:
    values = measured(metric, torch.full((1, 2, 3, 32, 32), 0.52), PROMPTS[:1])
    assert values.shape == (1,)
    assert not torch.isinf(values).any()


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_black_or_white_copies_break_nothing(metric: Metric, level: float) -> None:
    values = measured(metric, torch.full((1, 3, 3, 32, 32), level), PROMPTS[:1])
    assert not torch.isinf(values).any()
    if not METRICS[metric.name].image_size:  # the oracle may have nothing to read
        assert not torch.isnan(values).any()


def test_features_at_hand_give_the_same(metric: Metric, images: Tensor, places: dict[str, str]) -> None:
    assert (metric.features is None) == (metric.of_features is None)
    if metric.features is not None and metric.of_features is not None:
        extractor = FEATURES.load(metric.features)(places.get(metric.features))
        features = extractor(images.flatten(0, 1)).view(2, COUNT, -1)
        torch.testing.assert_close(metric.of_features(features), measured(metric, images, PROMPTS))


def test_features_are_made_once_for_all_metrics(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    extractor = FEATURES.load("scenes-clip")()
    monkeypatch.setattr(type(extractor), "__call__", lambda self, batch: calls.append(len(batch)) or batch.flatten(1))
    samples = Samples(images=images, prompts=PROMPTS)
    for name in ("scenes_clip_diversity", "vendi_scenes_clip", "tce_scenes_clip"):
        METRICS.load(name).per_prompt(samples)
    assert calls == [6]


class TestSetMetrics:
    def test_is_described(self, set_metric: SetMetric) -> None:
        entry = SET_METRICS[set_metric.name]
        assert isinstance(entry, MetricEntry)
        assert (entry.direction, entry.features, entry.reference) == (set_metric.direction, set_metric.features, True)
        assert set_metric.features in FEATURES
        assert set_metric.unit == entry.unit
        assert set_metric.summary

    def test_one_finite_value(self, set_metric: SetMetric) -> None:
        for count in (set_metric.least_images, 30):
            generator = torch.Generator().manual_seed(1)
            features, reference = torch.randn(count, 9, generator=generator), torch.randn(count, 9, generator=generator)
            value = set_metric.of_features(features, reference)
            assert value.shape == ()
            assert value.isfinite()
            if set_metric.per_image is not None:
                each = set_metric.per_image(features, reference)
                assert each.shape == (count,)
                assert each.mean().item() == pytest.approx(value.item())

    def test_too_few_are_left_open(self, set_metric: SetMetric) -> None:
        features = torch.randn(set_metric.least_images - 1, 9, generator=torch.Generator().manual_seed(1))
        assert set_metric.of_features(features, features).isnan()

    def test_copies_break_nothing(self, set_metric: SetMetric) -> None:
        copies = torch.ones(8, 9)
        assert set_metric.of_features(copies, copies).isfinite()
        assert set_metric.of_features(torch.zeros(8, 9), copies).isfinite()
