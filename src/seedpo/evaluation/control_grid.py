"""One picture of a run's images by control and step, with its labels, and a table of what each cell is.

grid.png    for each prompt a block: a row for each control, a column for each step
grid.csv    column, row, step, strength, mixing, best_of, folder
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from seedpo.data.images.pixels import to_pil
from seedpo.data.text import csv_text
from seedpo.evaluation.controls import SamplingControl
from seedpo.files import write_aside, write_text

SMALLEST, LARGEST = 96, 384
"""Images are enlarged by a whole factor to at least, and shrunk to at most, this width in pixels."""

GAP = 6
"""Pixels between cells."""

LINE = 22
"""Height of a line of text in pixels."""

MARGIN = 130
"""Width of the labels of rows in pixels."""

_COLUMNS = ("column", "row", "step", "strength", "mixing", "best_of", "folder")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """The images of one control at one step.

    Attributes:
        folder: name of the folder that holds them.
        step: of the checkpoint; ``None`` for the end of the run.
        control: what was done to the model.
        images: (P, K, 3, H, W) in [0, 1], K of each of P prompts.
    """

    folder: str
    step: int | None
    control: SamplingControl
    images: Tensor


def save_grid(cells: Sequence[Cell], prompts: Sequence[str], out: Path) -> None:
    """Writes ``grid.png`` and ``grid.csv``.

    Args:
        cells: all pairs of steps and controls.
        prompts: P prompts.
        out: folder of both files.
    """
    steps = list(dict.fromkeys(cell.step for cell in cells))
    controls = list(dict.fromkeys(cell.control for cell in cells))
    rows = [
        (
            steps.index(cell.step),
            controls.index(cell.control),
            "end" if cell.step is None else cell.step,
            cell.control.strength,
            "" if cell.control.mixing is None else cell.control.mixing,
            cell.control.best_of,
            str(cell.folder),
        )
        for cell in cells
    ]
    write_text(out / "grid.csv", csv_text([_COLUMNS, *rows]))
    strips = {(cell.step, cell.control): [_strip(images) for images in cell.images] for cell in cells}
    width, height = next(iter(strips.values()))[0].size
    block = LINE + len(controls) * (height + GAP)
    picture = Image.new(
        "RGB", (MARGIN + len(steps) * (width + GAP), LINE + GAP + len(prompts) * (block + GAP)), "white"
    )
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(14)
    for column, step in enumerate(steps):
        text = "end" if step is None else f"step {step}"
        pen.text((MARGIN + column * (width + GAP) + width / 2, LINE / 2), text, "black", font, anchor="mm")
    for number, prompt in enumerate(prompts):
        top = LINE + GAP + number * (block + GAP)
        pen.text((GAP, top + LINE / 2), _printable(prompt), "#555555", font, anchor="lm")
        for row, control in enumerate(controls):
            above = top + LINE + row * (height + GAP)
            pen.text((MARGIN - GAP, above + height / 2), _label(control), "black", font, anchor="rm")
            for column, step in enumerate(steps):
                picture.paste(strips[step, control][number], (MARGIN + column * (width + GAP), above))
    with write_aside(out / "grid.png") as aside:
        picture.save(aside, format="png")


def _strip(images: Tensor) -> Image.Image:
    """Images (K, 3, H, W) side by side, in a size to look at."""
    strip = to_pil(images.permute(1, 2, 0, 3).flatten(2))
    side = images.shape[-1]
    if side > LARGEST:
        return strip.resize((strip.width * LARGEST // side, strip.height * LARGEST // side), Image.Resampling.LANCZOS)
    factor = -(-SMALLEST // side)
    return strip.resize((strip.width * factor, strip.height * factor), Image.Resampling.NEAREST)


def _label(control: SamplingControl) -> str:
    changes = control.changes() or {"strength": control.strength}
    return ", ".join(f"{key.replace('_', ' ')} {value:g}" for key, value in changes.items())


def _printable(text: str) -> str:
    """A prompt on one line."""
    return " ".join(text.split())
