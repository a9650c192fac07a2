"""The package's preparation of images, and Pillow's today, against what PIL and numpy recorded."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
import torch

from seedpo.rewards.preprocessing import CLIP_MEAN, CLIP_STD, clip_pixels, hps_pixels
from tests.golden import preprocessing
from tests.rewards.plain_pixels import as_tensor, clip_crop, picture

ROWS: list[dict[str, Any]] = json.loads(preprocessing.RECORD.read_text(encoding="utf-8"))["rows"]
CLIP_ROWS = [row for row in ROWS if row["pipeline"] != "hpsv2"]


def named(row: dict[str, Any]) -> str:
    return f"{row['pipeline']}-{row['height']}x{row['width']}-{row['size']}"


@pytest.mark.parametrize("row", ROWS, ids=named)
def test_images_are_prepared_as_recorded(row: dict[str, Any]) -> None:
    image = as_tensor([picture(row["height"], row["width"], seed=row["seed"])])
    clip = row["pipeline"] != "hpsv2"
    pixels = clip_pixels(image, row["size"], crop=row["pipeline"]) if clip else hps_pixels(image, row["size"])
    assert pixels.shape == (1, 3, row["size"], row["size"])
    assert pixels.dtype == torch.float32
    found = torch.stack([pixels[0][place] for place in preprocessing.PLACES])
    # HPSv2's floats are resized in float32, here as in the original; the record is of float64.
    torch.testing.assert_close(found, torch.tensor(row["values"]), rtol=0, atol=1e-5 if clip else 5e-5)
    if clip:
        spread, centre = (torch.tensor(values)[:, None, None] for values in (CLIP_STD, CLIP_MEAN))
        as_bytes = ((pixels[0] * spread + centre) * 255).round().byte().permute(1, 2, 0).contiguous()
        assert hashlib.sha256(as_bytes.numpy().tobytes()).hexdigest() == row["sha256"]


@pytest.mark.parametrize("row", CLIP_ROWS, ids=named)
def test_pillow_still_resizes_as_recorded(row: dict[str, Any]) -> None:
    image = picture(row["height"], row["width"], seed=row["seed"])
    cropped = clip_crop(image, row["size"], row["pipeline"])
    assert hashlib.sha256(cropped.tobytes()).hexdigest() == row["sha256"]


def test_the_crops_of_the_two_libraries_differ_where_they_round_differently() -> None:
    by_size: dict[tuple[int, int], set[str]] = {}
    for row in CLIP_ROWS:
        by_size.setdefault((row["height"], row["width"]), set()).add(row["sha256"])
    assert {len(found) for found in by_size.values()} == {1, 2}
