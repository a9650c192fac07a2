"""A sheet of pairs to look at: chosen beside rejected, as training sees them, with prompts and places."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from seedpo.protocols import LabelledPair, PreferencePairs

SIDE = 224
"""Height and width that an image takes at most, in pixels."""
COLUMNS = 3
"""Pairs side by side."""
MARGIN, GAP, FRAME, LINE = 16, 6, 4, 17
CHOSEN, REJECTED, TIE, INK, QUIET = "#1a7f37", "#b42318", "#8a6d00", "#1f2328", "#656d76"

_CELL = (2 * (SIDE + 2 * FRAME) + GAP, SIDE + 2 * FRAME + 4 * LINE + 8)
_WIDTH = 62
"""Characters of a line of a prompt."""


def write_contact_sheet(pairs: PreferencePairs, rows: Sequence[int], path: Path, *, title: str) -> None:
    """Draws some pairs into a PNG file.

    Args:
        pairs: the set.
        rows: numbers of pairs that can be read.
        path: the file.
        title: first line of the sheet.

    Raises:
        DataError: if a pair cannot be read.
    """
    height = -(-len(rows) // COLUMNS)
    size = (
        MARGIN + COLUMNS * (_CELL[0] + MARGIN),
        2 * MARGIN + 2 * LINE + height * (_CELL[1] + MARGIN),
    )
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN), title, fill=INK, font=ImageFont.load_default(15))
    for number, row in enumerate(rows):
        left = MARGIN + number % COLUMNS * (_CELL[0] + MARGIN)
        top = 2 * MARGIN + 2 * LINE + number // COLUMNS * (_CELL[1] + MARGIN)
        _draw_pair(sheet, draw, pairs[row], row, (left, top))
    sheet.save(path)


def spread(rows: Sequence[int], count: int) -> list[int]:
    """At most ``count`` of some rows, evenly spread."""
    if len(rows) <= count:
        return list(rows)
    return [rows[place] for place in np.linspace(0, len(rows) - 1, count).round().astype(int).tolist()]


def _draw_pair(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, pair: LabelledPair, row: int, corner: tuple[int, int]
) -> None:
    left, top = corner
    tie = pair.chosen_probability == 0.5
    labels = ("tie", "tie") if tie else ("chosen", "rejected")
    colours = (TIE, TIE) if tie else (CHOSEN, REJECTED)
    font = ImageFont.load_default(13)
    for number, pixels in enumerate((pair.chosen, pair.rejected)):
        x = left + number * (SIDE + 2 * FRAME + GAP)
        image = _thumbnail(pixels.permute(1, 2, 0).numpy())
        draw.text((x, top), labels[number], fill=colours[number], font=font)
        box = (x, top + LINE, x + SIDE + 2 * FRAME - 1, top + LINE + SIDE + 2 * FRAME - 1)
        draw.rectangle(box, outline=colours[number], width=FRAME - 1)
        offset = [FRAME + (SIDE - side) // 2 for side in image.size]
        sheet.paste(image, (x + offset[0], top + LINE + offset[1]))
    shown = (
        f"pair {row}, stored as {pair.original_size[1]} x {pair.original_size[0]}, "
        f"trained on as {pair.chosen.shape[2]} x {pair.chosen.shape[1]}"
    )
    below = top + LINE + SIDE + 2 * FRAME + 2
    draw.text((left, below), shown, fill=QUIET, font=ImageFont.load_default(12))
    prompt = textwrap.shorten(pair.prompt, 2 * _WIDTH - 6, placeholder=" ...") or "(no prompt)"
    for number, line in enumerate(textwrap.wrap(prompt, _WIDTH)[:2]):
        draw.text((left, below + (number + 1) * LINE), line, fill=INK, font=font)


def _thumbnail(pixels: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Image.Image:
    """At most SIDE pixels wide and high; small images are enlarged by a whole number, so that their pixels show."""
    image = Image.fromarray((pixels * 255.0).round().astype(np.uint8))
    factor = SIDE // max(image.size)
    if factor > 1:
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return image
