"""Sheets: the images of one evaluation of a run in one PNG, a row for each prompt, and their index.

samples/
index.json         {"tile": side of an image in pixels, "columns": images per prompt, "prompts": [...]}
step-000020.png    image k of prompt p is the tile in row p and column k
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor
from tqdm import tqdm

from seedpo.data.images.pixels import to_pil
from seedpo.data.images.rgb import SHEET_PIXELS, decoded
from seedpo.documents import UNREADABLE, read_json
from seedpo.errors import DataError
from seedpo.evaluation.folder import EvaluationFolder
from seedpo.evaluation.settings import EvaluationConfig
from seedpo.files import read_bytes, write_aside, write_text
from seedpo.metrics.records import Samples
from seedpo.run_folders import RunFolder

INDEX = "index.json"

_SHEET = re.compile(r"step-(\d+)\.png")


def sheet_file(folder: Path, step: int) -> Path:
    """File of the sheet of a step."""
    return folder / f"step-{step:06d}.png"


def save_sheet(images: Tensor, path: Path) -> None:
    """Stores images (P, K, 3, H, W) in [0, 1] as one PNG, without gaps."""
    prompts, count, channels, height, width = images.shape
    sheet = images.permute(2, 0, 3, 1, 4).reshape(channels, prompts * height, count * width)
    with write_aside(path) as aside:
        to_pil(sheet).save(aside, format=path.suffix[1:])


def write_index(samples: Samples, folder: Path) -> None:
    """Stores what the tiles of a sheet show."""
    index = {"tile": samples.images.shape[-1], "columns": samples.images.shape[1], "prompts": samples.prompts}
    write_text(folder / INDEX, json.dumps(index, indent=1))


@dataclass(frozen=True, kw_only=True)
class Sheets:
    """The sheets of a run.

    Attributes:
        label: of the run.
        run: its folder.
        prompts: one for each row.
        columns: images of each prompt.
        tile: height and width of an image in pixels.
        steps: at which the run was evaluated, ascending.
        seed: of its evaluations.
    """

    label: str
    run: RunFolder
    prompts: Sequence[str]
    columns: int
    tile: int
    steps: Sequence[int]
    seed: int


def find_sheets(label: str, run: Path) -> Sheets:
    """What a run stored at its evaluations.

    Raises:
        RunFolderError: if there is no run.
        DataError: if it was not evaluated, or its index cannot be read.
    """
    folder = RunFolder.open(run)
    steps = sorted(int(match[1]) for path in folder.samples.glob("*.png") if (match := _SHEET.fullmatch(path.name)))
    index = folder.samples / INDEX
    if not steps or not index.is_file():
        raise DataError(f"{run} was not evaluated yet (no samples/step-*.png); train it with evaluate_every above 0")
    try:
        content: Any = read_json(index)
        prompts, columns, tile = list(content["prompts"]), int(content["columns"]), int(content["tile"])
    except UNREADABLE as error:
        raise DataError(f"{index} cannot be read ({error!r}); copy the run again") from error
    return Sheets(
        label=label,
        run=folder,
        prompts=prompts,
        columns=columns,
        tile=tile,
        steps=steps,
        seed=folder.settings(EvaluationConfig, "evaluation").seed,
    )


def cut_missing(folder: EvaluationFolder, sheets: Sheets, *, progress: bool = True) -> None:
    """Cuts the images of all steps out of their sheets, each into a file, unless it exists.

    Raises:
        DataError: if a sheet cannot be read or its size contradicts its index.
        RunFolderError: if an image cannot be written.
    """
    tiles = [(row, column) for row in range(len(sheets.prompts)) for column in range(sheets.columns)]
    for step in tqdm(sheets.steps, desc=f"sheets of {sheets.label}", unit="sheet", disable=not progress):
        place = (sheets.label, step)
        missing = [tile for tile in tiles if not folder.image(place, *tile).is_file()]
        if not missing:
            continue
        sheet, side = _read(sheets, step), sheets.tile
        for row, column in missing:
            box = (column * side, row * side, (column + 1) * side, (row + 1) * side)
            folder.save_image(sheet.crop(box), place, row, column)


def _read(sheets: Sheets, step: int) -> Image.Image:
    path = sheet_file(sheets.run.samples, step)
    size = (sheets.columns * sheets.tile, len(sheets.prompts) * sheets.tile)
    try:
        image = decoded(read_bytes(path), largest=SHEET_PIXELS)
    except (OSError, DataError) as error:
        raise DataError(f"{path} cannot be read as an image ({error}); copy the run again") from error
    if image.size != size:
        raise DataError(f"{path} has {image.size} pixels; its {INDEX} says {size}; copy the run again")
    return image
