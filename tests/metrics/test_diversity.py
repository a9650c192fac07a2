from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from seedpo.metrics.diversity import FLOOR, mean_cosine_distance, mean_pairwise_distance, truncated_entropy, vendi_score
from seedpo.metrics.records import Samples


def samples(images: Tensor) -> Samples:
    return Samples(images=images, prompts=["a red star"] * len(images))


def levels(*rows: tuple[float, ...]) -> Samples:
    """Plain images of the given gray levels, a row of them for each prompt."""
    return samples(torch.tensor(rows)[:, :, None, None, None].expand(-1, -1, 3, 4, 4).contiguous())


def test_pixels_of_two_clusters() -> None:
    """Of the 6 pairs of four images, 4 lie between the clusters."""
    torch.testing.assert_close(mean_pairwise_distance(levels((0.2, 0.2, 0.7, 0.7))), torch.tensor([0.5 * 4 / 6]))


def test_the_greatest_distance_is_1() -> None:
    assert mean_pairwise_distance(levels((0.0, 1.0))).item() == pytest.approx(1.0)


def test_each_prompt_has_its_own() -> None:
    values = mean_pairwise_distance(levels((0.0, 1.0), (0.5, 0.5), (0.2, 0.3)))
    torch.testing.assert_close(values, torch.tensor([1.0, 0.0, 0.1]))


@pytest.mark.parametrize("count", [2, 4, 25, 26, 40])
def test_copies_have_none(count: int) -> None:
    """However many: by matrix products, which torch takes for more than 25 rows, the distance would not be 0."""
    image = torch.rand(1, 1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert mean_pairwise_distance(samples(image.expand(1, count, -1, -1, -1))).item() == 0


def test_is_the_mean_over_pairs() -> None:
    images = torch.rand(2, 5, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    wanted = torch.tensor(
        [
            sum(float((row[i] - row[j]).square().mean().sqrt()) for i in range(5) for j in range(i)) / 10
            for row in images
        ]
    )
    torch.testing.assert_close(mean_pairwise_distance(samples(images)), wanted)


def test_one_image_has_no_pair() -> None:
    assert torch.isnan(mean_pairwise_distance(levels((0.3,), (0.4,)))).tolist() == [True, True]


class TestCosine:
    def test_is_the_mean_over_pairs(self) -> None:
        features = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(1))
        wanted = [
            sum(1 - float(torch.cosine_similarity(row[i], row[j], dim=0)) for i in range(5) for j in range(i)) / 10
            for row in features
        ]
        assert mean_cosine_distance(features).tolist() == pytest.approx(wanted, rel=1e-5)

    @pytest.mark.parametrize("count", [2, 26, 40])
    def test_copies_have_none(self, count: int) -> None:
        features = torch.randn(1, 1, 7, generator=torch.Generator().manual_seed(0)).expand(1, count, 7)
        assert mean_cosine_distance(features).item() == 0

    def test_orthogonal_and_opposite(self) -> None:
        assert mean_cosine_distance(3 * torch.eye(4)[None]).item() == pytest.approx(1.0)
        assert mean_cosine_distance(torch.tensor([[[1.0, 2.0], [-2.0, -4.0]]])).item() == pytest.approx(2.0)

    def test_two_clusters(self) -> None:
        """Of 6 pairs, 4 lie between the clusters."""
        assert mean_cosine_distance(torch.eye(2)[None, [0, 0, 1, 1]]).item() == pytest.approx(4 / 6)

    def test_without_a_direction_all_are_alike(self) -> None:
        assert mean_cosine_distance(torch.zeros(1, 3, 4)).item() == 0
        assert mean_cosine_distance(torch.tensor([[[0.0, 0.0], [1.0, 0.0]]])).item() == pytest.approx(1.0)

    def test_one_image_has_no_pair(self) -> None:
        assert mean_cosine_distance(torch.ones(2, 1, 3)).isnan().tolist() == [True, True]


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def plain_vendi(features: Tensor) -> float:
    """From singular values, in numpy: those of unit rows, squared, are the eigenvalues of their cosines."""
    x = features.double().numpy()
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    shares = np.linalg.svd(x, compute_uv=False) ** 2 / len(x)
    shares = shares[shares > 1e-15]
    return float(np.exp(-(shares * np.log(shares)).sum()))


class TestVendi:
    @pytest.mark.parametrize(("count", "width"), [(2, 3), (6, 40), (12, 4)])
    def test_is_that_of_the_reference(self, count: int, width: int) -> None:
        features = rows(3, count, width)
        wanted = torch.tensor([plain_vendi(each) for each in features], dtype=torch.float64)
        torch.testing.assert_close(vendi_score(features), wanted, rtol=1e-9, atol=0)

    @pytest.mark.parametrize("count", [1, 2, 7])
    def test_orthogonal_images_are_all_counted(self, count: int) -> None:
        features = 3.0 * torch.eye(8)[None, :count]
        torch.testing.assert_close(vendi_score(features).item(), float(count))

    @pytest.mark.parametrize("count", [1, 2, 30])
    def test_copies_are_one(self, count: int) -> None:
        assert vendi_score(rows(1, 1, 5).expand(1, count, 5)).item() == pytest.approx(1.0, abs=1e-12)

    def test_two_equal_clusters_are_two(self) -> None:
        features = torch.eye(4)[None, [0, 0, 0, 1, 1, 1]]
        assert vendi_score(features).item() == pytest.approx(2.0)

    def test_two_images_at_an_angle(self) -> None:
        """K/n has the eigenvalues (1 +- cos)/2."""
        cosine = 0.6
        shares = np.array([1 + cosine, 1 - cosine]) / 2
        found = vendi_score(torch.tensor([[[1.0, 0.0], [0.6, 0.8]]]))
        assert found.item() == pytest.approx(float(np.exp(-(shares * np.log(shares)).sum())))

    def test_order_length_and_rotation_make_no_difference(self) -> None:
        features = rows(1, 6, 5)
        rotation = torch.linalg.qr(rows(5, 5, seed=2)).Q
        for other in (features[:, [3, 1, 5, 0, 2, 4]], features * rows(1, 6, 1).abs().exp(), features @ rotation):
            torch.testing.assert_close(vendi_score(other), vendi_score(features), rtol=1e-5, atol=0)

    def test_images_without_a_direction_are_alike(self) -> None:
        features = torch.tensor([[[0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [1.0, 0.0]]])
        assert vendi_score(features).item() == pytest.approx(2.0)
        assert vendi_score(torch.zeros(1, 3, 4)).item() == pytest.approx(1.0)


class TestTruncatedEntropy:
    @pytest.mark.parametrize(("count", "width"), [(2, 3), (8, 30), (40, 25)])
    def test_is_that_of_the_reference(self, count: int, width: int) -> None:
        features = rows(2, count, width)
        kept = min(20, count - 1)
        for row, found in zip(features.double().numpy(), truncated_entropy(features), strict=True):
            leading = np.sort(np.linalg.eigvalsh(np.cov(row.T)))[::-1][:kept]
            wanted = kept / 2 * np.log(2 * np.pi * np.e) + 0.5 * np.log(leading).sum()
            assert found.item() == pytest.approx(wanted, rel=1e-8)

    def test_two_images(self) -> None:
        """One eigenvalue: half their squared distance."""
        found = truncated_entropy(torch.tensor([[[0.0, 0.0], [3.0, 4.0]]]))
        assert found.item() == pytest.approx(0.5 * math.log(2 * math.pi * math.e * 12.5))

    def test_a_scale_adds_its_logarithm_for_each_eigenvalue(self) -> None:
        features = rows(1, 5, 9)
        assert (truncated_entropy(3 * features) - truncated_entropy(features)).item() == pytest.approx(4 * math.log(3))

    def test_neither_order_nor_place_matters(self) -> None:
        features = rows(1, 5, 9)
        for other in (features.flip(1), features + 2.5):
            torch.testing.assert_close(truncated_entropy(other), truncated_entropy(features), rtol=1e-5, atol=0)

    def test_copies_have_the_least(self) -> None:
        found = truncated_entropy(rows(1, 1, 9).expand(1, 4, 9)).item()
        assert found == pytest.approx(1.5 * math.log(2 * math.pi * math.e * FLOOR))

    def test_one_image_has_none(self) -> None:
        assert truncated_entropy(rows(2, 1, 9)).isnan().tolist() == [True, True]
