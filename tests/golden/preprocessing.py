"""Records what PIL and numpy make of seeded images in the pipelines of the published scorers.

``python -m tests.golden.preprocessing`` writes ``preprocessing.json``: of each pipeline and image a checksum of the
resized and cropped bytes (none for HPSv2, which resizes floats), and some normalised values.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import PIL
from torch import Tensor

from tests.rewards.plain_pixels import clip_crop, clip_values, hps_values, picture

RECORD = Path(__file__).with_name("preprocessing.json")

CASES = [
    # height, width, wanted size
    (512, 512, 224),
    (300, 431, 224),
    (225, 224, 224),
    (64, 97, 32),
    (40, 23, 32),
    (19, 8, 16),
]

PLACES = [(channel, row, column) for channel in (0, 1, 2) for row, column in ((0, 0), (3, 7), (8, 2), (-1, -1))]


def some_values(pixels: Tensor) -> list[float]:
    return [round(float(pixels[place]), 6) for place in PLACES]


def recorded() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for seed, (height, width, size) in enumerate(CASES):
        image = picture(height, width, seed=seed)
        base = {"height": height, "width": width, "size": size, "seed": seed}
        for crop in ("transformers", "torchvision"):
            sha256 = hashlib.sha256(clip_crop(image, size, crop).tobytes()).hexdigest()
            rows.append(
                base | {"pipeline": crop, "sha256": sha256, "values": some_values(clip_values(image, size, crop))}
            )
        rows.append(base | {"pipeline": "hpsv2", "values": some_values(hps_values(image, size))})
    return rows


def main() -> None:
    record = {"pillow": PIL.__version__, "rows": recorded()}
    RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
