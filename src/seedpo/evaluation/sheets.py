"""The images that a run wrote at its evaluations, cut out of their sheets without loss."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from seedpo.errors import DataError
from seedpo.evaluation.drawing import write_png
from seedpo.evaluation.folder import EvaluationFolder
from seedpo.training.run_folder import RunFolder

_SHEET = re.compile(r"step-(\d+)\.png")


@dataclass(frozen=True, kw_only=True)
class Sheets:
    """The sheets of a run.

    Attributes:
        label: of the run.
        folder: with the sheets.
        prompts: one for each row.
        columns: images of each prompt.
        tile: height and width of an image in pixels.
        steps: at which the run was evaluated, ascending.
        seed: of its evaluations.
    """

    label: str
    folder: Path
    prompts: Sequence[str]
    columns: int
    tile: int
    steps: Sequence[int]
    seed: int

    def sheet(self, step: int) -> Path:
        """File of the sheet of a step."""
        return self.folder / f"step-{step:06d}.png"


def find_sheets(label: str, run: Path) -> Sheets:
    """What a run wrote at its evaluations.

    Raises:
        RunFolderError: if there is no run.
        DataError: if it was not evaluated, or its index cannot be read.
    """
    folder = RunFolder.open(run)
    config = folder.read_config()
    steps = sorted(
        int(match[1]) for path in folder.samples.glob("*.png") if (match := _SHEET.fullmatch(path.name)) is not None
    )
    index = folder.samples / "index.json"
    if not steps or not index.is_file():
        raise DataError(f"{run} was not evaluated yet (no samples/step-*.png); train it with evaluate_every above 0")
    try:
        content: Any = json.loads(index.read_text(encoding="utf-8"))
        prompts, columns, tile = list(content["prompts"]), int(content["columns"]), int(content["tile"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{index} cannot be read ({error!r}); copy the run again") from error
    return Sheets(
        label=label,
        folder=folder.samples,
        prompts=prompts,
        columns=columns,
        tile=tile,
        steps=steps,
        seed=config.evaluation.seed,
    )


def cut_missing(folder: EvaluationFolder, sheets: Sheets, *, progress: bool = True) -> None:
    """Cuts the images of all steps out of their sheets, each into a file, unless it is there.

    Raises:
        DataError: if a sheet cannot be read or has another size than its index says.
        RunFolderError: if an image cannot be written.
    """
    keys = [(row, column) for row in range(len(sheets.prompts)) for column in range(sheets.columns)]
    for step in tqdm(sheets.steps, desc=f"sheets of {sheets.label}", unit="sheet", disable=not progress):
        lacking = [key for key in keys if not folder.image(sheets.label, *key, step=step).is_file()]
        if not lacking:
            continue
        sheet, tile = _read(sheets, step), sheets.tile
        for row, column in lacking:
            box = (column * tile, row * tile, (column + 1) * tile, (row + 1) * tile)
            write_png(sheet.crop(box), folder.image(sheets.label, row, column, step=step))


def _read(sheets: Sheets, step: int) -> Image.Image:
    path = sheets.sheet(step)
    size = (sheets.columns * sheets.tile, len(sheets.prompts) * sheets.tile)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # a sheet of large images, and our own
            with Image.open(path) as sheet:
                image = sheet.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as an image ({error}); copy the run again") from error
    if image.size != size:
        raise DataError(f"{path} has {image.size} pixels; its index.json says {size}; copy the run again")
    return image
