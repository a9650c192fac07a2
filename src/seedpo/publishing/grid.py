"""Before and after: the first prompts of a run's evaluations as one picture."""

from __future__ import annotations

import re
from pathlib import Path

from PIL import Image

from seedpo.data.images.rgb import SHEET_PIXELS, decoded
from seedpo.documents import UNREADABLE, read_json
from seedpo.files import read_bytes

PROMPTS = 6
"""Most rows of the picture."""

COLUMNS = 4
"""Most images of a prompt on each side."""

LARGEST, SMALLEST = 256, 96
"""Images are shrunk to at most, and enlarged by a whole factor to at least, this width in pixels."""

GAP = 16
"""White pixels between the two sides."""

_SHEET = re.compile(r"step-(\d+)\.png")


def sample_grid(samples: Path, *, last: int | None = None) -> tuple[Image.Image, int, int] | None:
    """A picture with the base model's images on the left and the trained model's on the right.

    Args:
        samples: a run's folder of sample sheets.
        last: step of the trained model's images; ``None``: the last one.

    Returns:
        The picture and the steps of its two sides; ``None`` without two readable evaluations.
    """
    steps = sorted(int(match[1]) for path in samples.glob("*.png") if (match := _SHEET.fullmatch(path.name)))
    steps = [step for step in steps if last is None or step <= last]
    if len(steps) < 2:
        return None
    try:
        index = read_json(samples / "index.json")
        rows, columns = len(index["prompts"]), int(index["columns"])
        sides = [_side(samples / f"step-{step:06d}.png", rows, columns) for step in (steps[0], steps[-1])]
    except UNREADABLE:
        return None
    width, height = sides[0].size
    picture = Image.new("RGB", (2 * width + GAP, height), "white")
    picture.paste(sides[0], (0, 0))
    picture.paste(sides[1], (width + GAP, 0))
    return picture, steps[0], steps[-1]


def _side(path: Path, rows: int, columns: int) -> Image.Image:
    """The top left corner of a sheet with a row for each prompt."""
    sheet = decoded(read_bytes(path), largest=SHEET_PIXELS)
    width, height = sheet.width // columns, sheet.height // rows
    shown = min(COLUMNS, columns) * width, min(PROMPTS, rows) * height
    corner = sheet.crop((0, 0, *shown))
    if width > LARGEST:
        return corner.resize((shown[0] * LARGEST // width, shown[1] * LARGEST // width), Image.Resampling.LANCZOS)
    factor = -(-SMALLEST // width)
    return corner.resize((shown[0] * factor, shown[1] * factor), Image.Resampling.NEAREST)
