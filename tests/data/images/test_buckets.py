from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seedpo.data.cache.pairs import size_ids
from seedpo.data.images.buckets import bucket_sizes, cropped_share, grouped, nearest_bucket, stored_size
from seedpo.data.images.reading import fit
from seedpo.data.pairs.changes import TIES_AS_WINS, ChangedPairs
from seedpo.data.pairs.joined import JoinedPairs
from seedpo.data.pairs.selection import SkippingPairs, SomePairs
from seedpo.data.pairs.sets import PairSet
from seedpo.data.reading import load_data
from seedpo.data.settings import DataSet, PairsConfig
from seedpo.errors import ConfigError, DataError
from seedpo.settings import build_config
from seedpo.training.settings import RewardRunConfig, RunConfig
from tests.data.pictures import RED, encoded, image_file, ramp, table

CONFIG = PairsConfig(resolution=192, buckets=True)
"""Of three buckets: 128 x 256, 192 x 192, 256 x 128."""

SHAPES = [(192, 192), (300, 150), (100, 210), (205, 200), (90, 170), (400, 210)]
"""Width and height."""

BUCKETS = [(192, 192), (128, 256), (256, 128), (192, 192), (256, 128), (128, 256)]
"""Height and width."""


def pair_set(shapes: list[tuple[int, int]] = SHAPES, config: PairsConfig = CONFIG, **columns: Any) -> PairSet:
    files = [image_file(RED, size=shape) for shape in shapes]
    rows = {"jpg_0": files, "jpg_1": files} | columns
    return PairSet.of_table(table(*[(1, 0)] * len(shapes), **rows), origin="set", config=config)


def reference_sizes(resolution: int) -> set[tuple[int, int]]:
    """All sizes of a grid that keep area and aspect, and of which one side cannot grow while the other stays."""
    sides = np.arange(64, 4 * resolution, 64, dtype=np.float64)
    height, width = np.meshgrid(sides, sides, indexing="ij")
    allowed = (height * width <= resolution**2) & (np.maximum(height / width, width / height) <= 2.0)
    widest = height * (width + 64) > resolution**2
    highest = (height + 64) * width > resolution**2
    kept = allowed & (widest | highest)
    return {(int(h), int(w)) for h, w in zip(height[kept], width[kept], strict=True)}


class TestSizes:
    @pytest.mark.parametrize("resolution", [64, 192, 512, 768, 1024])
    def test_against_a_grid_in_float64(self, resolution: int) -> None:
        sizes = bucket_sizes(resolution)
        assert set(sizes) == reference_sizes(resolution)
        assert (resolution, resolution) in sizes
        assert {(width, height) for height, width in sizes} == set(sizes)

    def test_areas_are_near_that_of_the_square(self) -> None:
        for resolution in (512, 1024):
            areas = [height * width / resolution**2 for height, width in bucket_sizes(resolution)]
            assert 0.87 < min(areas) <= max(areas) == 1.0

    def test_those_of_192(self) -> None:
        assert bucket_sizes(192) == [(128, 256), (192, 192), (256, 128)]


class TestChoice:
    @pytest.mark.parametrize("resolution", [512, 1024])
    def test_against_float64(self, resolution: int) -> None:
        generator, sizes = np.random.default_rng(0), bucket_sizes(resolution)
        ratios = np.log([width / height for height, width in sizes])
        for _ in range(300):
            images = generator.integers(60, 3000, (2, 2))
            wanted = np.log(images[:, 1] / images[:, 0]).mean()
            chosen = nearest_bucket([(int(height), int(width)) for height, width in images], sizes)
            distance = abs(np.log(chosen[1] / chosen[0]) - wanted)
            assert distance == pytest.approx(np.abs(ratios - wanted).min(), abs=1e-9)

    def test_a_pair_is_in_one_bucket_whichever_image_is_preferred(self) -> None:
        sizes = bucket_sizes(1024)
        one, other = (700, 1000), (1000, 800)
        assert nearest_bucket([one, other], sizes) == nearest_bucket([other, one], sizes)

    def test_upright_size_of_a_turned_photo(self) -> None:
        image = Image.new("RGB", (40, 20))
        exif = image.getexif()
        exif[0x0112] = 6
        assert stored_size(encoded(image, "JPEG", exif=exif)) == (40, 20)
        assert stored_size(encoded(image, "JPEG")) == (20, 40)

    def test_what_is_cut_away(self) -> None:
        assert cropped_share((200, 400), (128, 256)) == 0.0
        assert cropped_share((100, 200), (192, 192)) == pytest.approx(0.5)
        assert cropped_share((333, 500), (128, 256)) == pytest.approx(1 - 500 / 2 / 333)


@pytest.mark.parametrize("size", [(256, 128), (128, 256)])
def test_images_cover_the_bucket_and_are_cut_in_the_middle(size: tuple[int, int]) -> None:
    """Red rises to the right and green downwards: the kept window is where it should be."""
    image, cut = fit(ramp(500, 300), size, (0.5, 0.5))
    assert (image.height, image.width) == size
    scale = max(size[0] / 300, size[1] / 500)
    left, top = (500 * scale - size[1]) / 2, (300 * scale - size[0]) / 2
    assert cut == (pytest.approx(top, abs=1), pytest.approx(left, abs=1))
    pixels = np.asarray(image, dtype=np.float64)
    assert pixels[0, 0, 0] == pytest.approx(255 * left / (500 * scale), abs=3)
    assert pixels[-1, -1, 1] == pytest.approx(255 * (1 - top / (300 * scale)), abs=3)


class TestPairs:
    def test_both_images_have_the_size_of_the_bucket(self) -> None:
        pairs = pair_set()
        assert pairs.buckets() == BUCKETS
        assert pairs.summary == "6 pairs, 0 ties left out, in 3 buckets"
        for row, (width, height) in enumerate(SHAPES):
            pair = pairs[row]
            assert tuple(pair.chosen.shape[1:]) == tuple(pair.rejected.shape[1:]) == BUCKETS[row]
            assert pair.original_size == (height, width)
            assert size_ids(pair)[4:].tolist() == list(BUCKETS[row])

    def test_images_of_two_shapes_share_the_bucket_of_their_mean(self) -> None:
        pairs = pair_set([(200, 200)], jpg_1=[image_file(RED, size=(300, 100))])
        assert pairs.buckets() == [(128, 256)]
        assert tuple(pairs[0].chosen.shape[1:]) == tuple(pairs[0].rejected.shape[1:]) == (128, 256)

    def test_content_tells_the_buckets_apart(self) -> None:
        square = pair_set(config=PairsConfig(resolution=192))
        assert square.buckets() is None
        assert pair_set().content(1) != square.content(1)
        assert pair_set().content(1) == pair_set().content(1)

    def test_another_pair_of_the_bucket_takes_the_place_of_one_that_cannot_be_read(self) -> None:
        files = [image_file(RED, size=shape) for shape in SHAPES]
        files[1] = files[1][:60]  # its head can be read
        pairs = SkippingPairs(pair_set(jpg_0=files), limit=0.5)
        assert pairs.buckets() == BUCKETS
        assert pairs[1].prompt == pairs[5].prompt
        assert tuple(pairs[1].chosen.shape[1:]) == (128, 256)

    def test_a_pair_without_a_size_is_in_the_most_frequent_bucket(self) -> None:
        files = [image_file(RED, size=shape) for shape in [*SHAPES, (64, 128)]]
        files[0] = b"broken"
        buckets = pair_set([*SHAPES, (64, 128)], jpg_0=files).buckets()
        assert buckets is not None
        assert buckets[0] == Counter(buckets[1:]).most_common(1)[0][0]

    def test_what_wraps_a_set_passes_its_buckets_on(self, tmp_path: Path) -> None:
        pairs = ChangedPairs(pair_set(), [TIES_AS_WINS])
        assert pairs.buckets() == BUCKETS
        assert SomePairs(pairs, [4, 1]).buckets() == [BUCKETS[4], BUCKETS[1]]
        names = [DataSet(name="a"), DataSet(name="b")]
        assert JoinedPairs([pair_set(), pair_set()], names).buckets() == BUCKETS * 2

    def test_no_pair_can_be_read(self) -> None:
        with pytest.raises(DataError, match="set: no pair can be read"):
            pair_set([(10, 10)], jpg_0=[b"x"])


def test_batches_of_one_bucket_each() -> None:
    assert grouped([0, 1, 2, 3, 5], BUCKETS, size=2) == [[0, 3], [1, 5], [2]]
    assert grouped(range(5), None, size=2) == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize(
    ("kind", "changes", "key"),
    [
        (RunConfig, {"pairs": {"buckets": True}}, "pairs.resolution"),
        (RunConfig, {"pairs": {"buckets": True, "resolution": 520}}, "multiple of 64"),
        (
            RunConfig,
            {
                "pairs": {"buckets": True, "resolution": 512},
                "cache": {"folder": "x", "reference": True, "visits": 1},
            },
            "cache.reference = false",
        ),
        (RewardRunConfig, {"pairs": {"buckets": True, "resolution": 512}}, "pairs.buckets must be false"),
    ],
    ids=["no resolution", "520", "reference", "reward"],
)
def test_refused_settings(kind: Any, changes: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        build_config(kind, changes)


def test_a_stream_is_refused(tmp_path: Path) -> None:
    import tarfile

    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for side in ("chosen", "rejected"):
            (tmp_path / side).write_bytes(image_file(RED))
            archive.add(tmp_path / side, f"0.{side}.png")
    with pytest.raises(DataError, match=r"a\.tar is a stream, whose shapes are not known .*pairs.buckets"):
        load_data(str(tmp_path / "a.tar"), CONFIG)
