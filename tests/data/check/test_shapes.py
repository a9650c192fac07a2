from __future__ import annotations

from collections import Counter

import pytest

from seedpo.data.check.shapes import Shapes
from seedpo.data.images.buckets import Size, bucket_sizes, cropped_share, nearest_bucket


def shapes(*sizes: Size, others: tuple[Size, ...] = ()) -> Shapes:
    """Pairs of two images of one size, or of the others."""
    return Shapes(Counter(zip(sizes, others or sizes, strict=True)))


def test_ratios_go_from_tall_to_wide() -> None:
    found = shapes((1344, 768), (512, 512), (512, 520), (768, 1344), (100, 500)).ratios
    assert list(found.items()) == [("9:16", 2), ("1:1", 4), ("16:9", 2), ("3:1", 2)]


def test_crops_are_those_of_each_image() -> None:
    sizes = [(512, 512)] * 97 + [(512, 1024)] * 2 + [(600, 400)]
    square, buckets = (
        next(crop for crop in shapes(*sizes).crops(None) if (crop.resolution, crop.buckets) == (512, in_buckets))
        for in_buckets in (False, True)
    )
    assert square.mean == pytest.approx((2 * 0.5 + 1 / 3) / 100)
    assert (square.quantile, square.most) == pytest.approx((0.0, 0.5))
    assert square.enlarged == pytest.approx(0.01)
    shares = [cropped_share(size, nearest_bucket([size], bucket_sizes(512))) for size in sizes]
    assert buckets.mean == pytest.approx(sum(shares) / 100)
    assert buckets.most == pytest.approx(max(shares))


def test_a_pair_has_one_bucket() -> None:
    """That of the geometric mean of 1:2 and 2:1 is the square, which half of each image lies outside."""
    found = shapes((512, 1024), others=((1024, 512),)).crops(None)
    assert [crop.mean for crop in found if crop.resolution == 512] == pytest.approx([0.5, 0.5])


def test_the_configured_resolution_is_among_them() -> None:
    found = shapes((512, 512)).crops(192)
    assert [(crop.resolution, crop.buckets) for crop in found][:3] == [(192, False), (192, True), (512, False)]
    assert [crop.resolution for crop in shapes((400, 600)).crops(192)] == [192, 192]
    assert [crop.buckets for crop in shapes((512, 512)).crops(200) if crop.resolution == 200] == [False]


@pytest.mark.parametrize(
    ("sizes", "advice"),
    [
        ([(1024, 1024)] * 3, "--set pairs.resolution=1024;"),
        ([(800, 800)] * 3, "--set pairs.resolution=768;"),
        ([(768, 1344), (1344, 768)], "--set pairs.resolution=1024 --set pairs.buckets=true;"),
        ([(512, 512)] + [(1024, 1024)] * 30, "--set pairs.resolution=1024;"),
        ([(512, 512)] * 2 + [(1024, 1024)] * 30, "--set pairs.resolution=512;"),
        ([(300, 400)], "100.0%"),
        ([(32, 32)] * 4, "32 x 32"),
    ],
)
def test_which_resolution_fits(sizes: list[Size], advice: str) -> None:
    assert advice in shapes(*sizes).advice()


def test_nothing_is_said_without_images() -> None:
    found = Shapes()
    assert (found.crops(512), found.ratios, found.shorter_sides, found.advice()) == ([], {}, {}, "")
