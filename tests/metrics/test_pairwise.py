from __future__ import annotations

import pytest
import torch
from torch import Tensor

from seedpo.metrics.pairwise import mean_cosine_distance, mean_pairwise_distance
from seedpo.metrics.records import Samples


def samples(images: Tensor) -> Samples:
    return Samples(images=images, prompts=["a red star"] * len(images))


def levels(*rows: tuple[float, ...]) -> Samples:
    """Plain images of the given gray levels, a row of them for each prompt."""
    return samples(torch.tensor(rows)[:, :, None, None, None].expand(-1, -1, 3, 4, 4).contiguous())


def test_two_clusters() -> None:
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
