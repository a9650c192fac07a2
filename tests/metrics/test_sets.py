"""Metrics of two sets of features, against double loops and closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from seedpo.errors import DataError
from seedpo.metrics import sets
from seedpo.metrics.sets import (
    coverage,
    density,
    density_per_image,
    frechet_distance,
    kernel_distance,
    precision,
    precision_per_image,
    recall,
)

Compared = Callable[[Tensor, Tensor], Tensor]


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def radius(points: Tensor, row: int, k: int) -> float:
    return sorted(math.dist(points[row], other) for i, other in enumerate(points) if i != row)[k - 1]


def plain_precision(images: Tensor, reference: Tensor) -> float:
    balls = [radius(reference, row, 3) for row in range(len(reference))]
    inside = [any(math.dist(x, y) <= r for y, r in zip(reference, balls, strict=True)) for x in images]
    return sum(inside) / len(inside)


def plain_density(images: Tensor, reference: Tensor) -> float:
    balls = [radius(reference, row, 5) for row in range(len(reference))]
    total = sum(math.dist(x, y) <= r for x in images for y, r in zip(reference, balls, strict=True))
    return total / (5 * len(images))


def plain_coverage(images: Tensor, reference: Tensor) -> float:
    held = [any(math.dist(x, y) <= radius(reference, row, 5) for x in images) for row, y in enumerate(reference)]
    return sum(held) / len(held)


PLAIN: dict[Compared, Callable[[Tensor, Tensor], float]] = {
    precision: plain_precision,
    recall: lambda images, reference: plain_precision(reference, images),
    density: plain_density,
    coverage: plain_coverage,
}


@pytest.fixture(params=list(PLAIN), ids=lambda compared: compared.__name__)
def compared(request: pytest.FixtureRequest) -> Compared:
    function: Compared = request.param
    return function


class TestNeighbours:
    def test_is_that_of_the_reference(self, compared: Compared, monkeypatch: pytest.MonkeyPatch) -> None:
        images, reference = rows(13, 4) * 1.4, rows(17, 4, seed=1)
        wanted = PLAIN[compared](images, reference)
        assert 0 < wanted < 1.2
        for batch in (4, 1024):
            monkeypatch.setattr(sets, "_ROWS", batch)
            assert compared(images, reference).item() == pytest.approx(wanted)

    def test_the_reference_itself(self, compared: Compared) -> None:
        """Every point lies in its own ball and those around its k nearest: density (k + 1)/k."""
        points = rows(12, 3)
        assert compared(points, points).item() == pytest.approx(1.2 if compared is density else 1.0)

    def test_far_away_and_all_alike(self, compared: Compared) -> None:
        """Balls of radius 0 hold what lies on them."""
        assert compared(rows(9, 3) + 100, rows(9, 3, seed=1)).item() == 0
        copies = rows(1, 3).expand(8, 3)
        assert compared(copies, copies).item() == pytest.approx(8 / 5 if compared is density else 1.0)
        assert compared(copies + 1, copies).item() == 0

    def test_one_of_two_clusters(self) -> None:
        near, far = rows(10, 3), rows(10, 3, seed=1) + 50
        images, reference = near, torch.cat([near, far])
        assert precision(images, reference).item() == 1
        assert recall(images, reference).item() == 0.5
        assert coverage(images, reference).item() == 0.5
        assert density(images, reference).item() == pytest.approx(1.2)

    def test_one_image(self) -> None:
        reference = rows(10, 3)
        assert precision(reference[:1], reference).item() == 1
        assert 0 < coverage(reference[:1], reference).item() < 1
        assert recall(reference[:1], reference).isnan()

    def test_too_small_a_reference_has_no_balls(self) -> None:
        assert precision(rows(9, 3), rows(3, 3)).isnan()
        assert recall(rows(3, 3), rows(9, 3)).isnan()
        assert density(rows(9, 3), rows(5, 3)).isnan()
        assert coverage(rows(9, 3), rows(5, 3)).isnan()
        for value in (
            precision(rows(9, 3), rows(4, 3)),
            coverage(rows(9, 3), rows(6, 3)),
            density(rows(1, 3), rows(6, 3)),
        ):
            assert value.isfinite()

    def test_order_and_rotation_make_no_difference(self, compared: Compared) -> None:
        images, reference = rows(13, 4), rows(17, 4, seed=1)
        rotation = torch.linalg.qr(rows(4, 4, seed=2)).Q
        wanted = compared(images, reference).item()
        assert compared(images.flip(0), reference.flip(0)).item() == pytest.approx(wanted)
        assert compared(images @ rotation, reference @ rotation).item() == pytest.approx(wanted)

    def test_the_images_values_have_the_mean_of_all(self) -> None:
        images, reference = rows(13, 4), rows(17, 4, seed=1)
        for each, of_all in ((precision_per_image, precision), (density_per_image, density)):
            values = each(images, reference)
            assert values.shape == (13,)
            assert values.mean().item() == of_all(images, reference).item()


def with_covariance(deviations: Tensor, *, count: int = 40, seed: int = 0) -> Tensor:
    """Rows with mean 0 and exactly these standard deviations, uncorrelated."""
    x = rows(count, len(deviations), seed=seed)
    x = x - x.mean(0)
    white = x @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(x.T))).T
    return white * deviations


class TestFrechet:
    def test_gaussians_with_the_same_axes(self) -> None:
        """|m|^2 + sum_i (a_i - b_i)^2."""
        one, other = torch.tensor([1.0, 2.0, 0.5]).double(), torch.tensor([3.0, 0.2, 0.5]).double()
        mean = torch.tensor([1.0, -2.0, 0.3]).double()
        found = frechet_distance(with_covariance(one) + mean, with_covariance(other, count=30, seed=1))
        assert found.item() == pytest.approx((mean.square().sum() + (one - other).square().sum()).item())

    def test_is_that_of_the_reference(self) -> None:
        """Also for covariances without full rank: the trace of the root from the eigenvalues of the product."""
        for count, reference, width in ((30, 40, 6), (5, 8, 20), (50, 4, 10)):
            x, y = rows(count, width) @ rows(width, width, seed=2), rows(reference, width, seed=1) + 0.3
            s, t = np.cov(x.numpy().T), np.cov(y.numpy().T)
            values = np.linalg.eigvals(s @ t).real.clip(min=0)
            wanted = ((x.mean(0) - y.mean(0)) ** 2).sum().item() + np.trace(s) + np.trace(t) - 2 * np.sqrt(values).sum()
            assert frechet_distance(x, y).item() == pytest.approx(wanted, rel=1e-5)

    def test_a_shift(self) -> None:
        x, shift = rows(20, 5), rows(5, seed=3)
        assert frechet_distance(x, x + shift).item() == pytest.approx(shift.square().sum().item())

    def test_the_reference_itself_and_copies_of_one_image(self) -> None:
        x = rows(6, 20)
        assert 0 <= frechet_distance(x, x.flip(0)).item() < 1e-9
        copies = rows(1, 20).expand(4, 20)
        assert frechet_distance(copies, copies + 0.5).item() == pytest.approx(5.0)

    def test_is_symmetric(self) -> None:
        x, y = rows(20, 5), rows(9, 5, seed=1)
        assert frechet_distance(x, y).item() == pytest.approx(frechet_distance(y, x).item())


class TestKernelDistance:
    def test_is_the_double_loop(self) -> None:
        x, y = rows(7, 4), rows(5, 4, seed=1) + 0.4

        def kernel(one: Tensor, other: Tensor) -> float:
            return (sum(float(a) * float(b) for a, b in zip(one, other, strict=True)) / 4 + 1) ** 3

        wanted = sum(kernel(x[i], x[j]) for i in range(7) for j in range(7) if i != j) / 42
        wanted += sum(kernel(y[i], y[j]) for i in range(5) for j in range(5) if i != j) / 20
        wanted -= 2 * sum(kernel(a, b) for a in x for b in y) / 35
        assert kernel_distance(x, y).item() == pytest.approx(wanted)

    def test_copies_of_one_image(self) -> None:
        copies = rows(1, 4).expand(6, 4)
        assert kernel_distance(copies, copies).item() == pytest.approx(0.0, abs=1e-12)

    def test_is_unbiased(self) -> None:
        """Over many draws from one distribution the mean is 0; the biased estimate's is far above."""
        draws = torch.stack([kernel_distance(rows(6, 3, seed=i), rows(6, 3, seed=1000 + i)) for i in range(300)])
        error = (draws.std() / 300**0.5).item()
        assert abs(draws.mean().item()) < 4 * error
        assert (draws < 0).any()


class TestBoth:
    def test_one_image_has_no_spread(self) -> None:
        for distance in (frechet_distance, kernel_distance):
            assert distance(rows(1, 4), rows(5, 4)).isnan()
            assert distance(rows(5, 4), rows(1, 4)).isnan()

    def test_features_of_two_widths_are_refused(self) -> None:
        with pytest.raises(DataError, match=r"4.*3"):
            frechet_distance(rows(5, 4), rows(5, 3))
        with pytest.raises(DataError, match=r"\(0, 4\)"):
            precision(rows(5, 4), rows(0, 4))
