"""What every registered metric keeps to."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from seedpo.metrics.catalogue import FEATURES, METRICS, SET_METRICS, Direction, Family
from seedpo.metrics.named import build_metric, build_prompt_metric
from seedpo.metrics.records import Metric, Samples, SetMetric
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
    place = places.get(METRICS[request.param].features or "")
    return build_prompt_metric(request.param if place is None else f"{request.param}@{place}")


@pytest.fixture(params=[entry.name for entry in SET_METRICS.entries if entry.features == "scenes-clip"])
def set_metric(request: pytest.FixtureRequest) -> SetMetric:
    metric = build_metric(request.param)
    assert isinstance(metric, SetMetric)
    return metric


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
    assert metric.facts.finish is None or math.isfinite(metric.facts.finish(float(values.mean())))


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
    assert torch.isnan(values).all() if metric.facts.least_images > 1 else torch.isfinite(values).all()


def test_images_of_no_object_break_nothing(metric: Metric) -> None:
    values = measured(metric, torch.full((1, 2, 3, 32, 32), 0.52), PROMPTS[:1])
    assert values.shape == (1,)
    assert not torch.isinf(values).any()


def test_black_or_white_copies_break_nothing(metric: Metric) -> None:
    for level in (0.0, 1.0):
        values = measured(metric, torch.full((1, 3, 3, 32, 32), level), PROMPTS[:1])
        assert not torch.isinf(values).any()
        if not metric.facts.image_size:  # the oracle may have nothing to read
            assert not torch.isnan(values).any()


def test_features_at_hand_give_the_same(metric: Metric, images: Tensor, places: dict[str, str]) -> None:
    assert (metric.facts.features is None) == (metric.of_features is None)
    if metric.facts.features is not None and metric.of_features is not None:
        extractor = FEATURES.load(metric.facts.features)(places.get(metric.facts.features))
        features = extractor(images.flatten(0, 1)).view(2, COUNT, -1)
        torch.testing.assert_close(metric.of_features(features), measured(metric, images, PROMPTS))


def test_every_row_holds_all_facts() -> None:
    for entry in (*METRICS.entries, *SET_METRICS.entries):
        facts = (
            entry.direction in get_args(Direction),
            entry.family in get_args(Family),
            (entry.direction == "neither") == (entry.family == "statistics"),
            all((entry.summary, entry.unit, entry.span, entry.source)),
            entry.least_images >= 1,
            entry.features is None or entry.features in FEATURES,
            entry.reference == (entry in SET_METRICS.entries),
            entry.per_image is None or entry.reference,
        )
        assert all(facts), (entry.name, facts)


def test_features_are_made_once_for_all_metrics(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    extractor = FEATURES.load("scenes-clip")()
    monkeypatch.setattr(type(extractor), "__call__", lambda self, batch: calls.append(len(batch)) or batch.flatten(1))
    samples = Samples(images=images, prompts=PROMPTS)
    for name in ("scenes_clip_diversity", "vendi_scenes_clip", "tce_scenes_clip"):
        build_prompt_metric(name).per_prompt(samples)
    assert calls == [6]


class TestSetMetrics:
    def test_one_finite_value(self, set_metric: SetMetric) -> None:
        for count in (set_metric.facts.least_images, 30):
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
        features = torch.randn(set_metric.facts.least_images - 1, 9, generator=torch.Generator().manual_seed(1))
        assert set_metric.of_features(features, features).isnan()

    def test_copies_break_nothing(self, set_metric: SetMetric) -> None:
        copies = torch.ones(8, 9)
        assert set_metric.of_features(copies, copies).isfinite()
        assert set_metric.of_features(torch.zeros(8, 9), copies).isfinite()
