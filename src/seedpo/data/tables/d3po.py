"""D3PO's folder of samples: ``prompt.json``, numbered images of each prompt, and one file of scores for each annotator.

The code of D3PO (arXiv 2311.13231, yk7333/d3po) writes the prompts as a list of texts, and image k of prompt i as
``images/{K * i + k:05}.png``, where each prompt has K images. Annotators write lists of K scores, 0 or 1, in the order
of the prompts; scores of several annotators are averaged. The higher score is the better image, and equal ones make no
pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seedpo.data.files.inventory import FileRead, Inventory
from seedpo.data.files.search import search
from seedpo.data.layouts.marks import numbers
from seedpo.data.text import Line, read_text
from seedpo.data.text.objects import record
from seedpo.documents import parse_json
from seedpo.errors import DataError

PROMPTS, IMAGES = "prompt.json", "images"


def is_d3po(folder: Path) -> bool:
    """Whether a folder holds D3PO's samples."""
    return (folder / PROMPTS).is_file() and (folder / IMAGES).is_dir()


def d3po_inventory(folder: Path, origin: str) -> Inventory:
    """The files of prompts and scores in a folder, and what is passed over beside them.

    Raises:
        DataError: if there are no scores.
    """
    found = search(folder, lambda path: _wanted(path, folder))
    files = [folder / PROMPTS, *(path for path in found.files if path != folder / PROMPTS)]
    if len(files) == 1:
        raise DataError(
            f"{origin} holds {PROMPTS} and {IMAGES}/, but no scores; write a JSON file with a list of scores for each "
            "prompt, [[0, 1, ...], ...]"
        )
    return Inventory(origin=origin, files=tuple(FileRead(path=path) for path in files), passed=found.passed)


def _wanted(path: Path, folder: Path) -> bool | str:
    if path.is_relative_to(folder / IMAGES):
        return False
    return path.suffix.lower() == ".json" or "files that are no JSON"


def d3po_lines(files: Sequence[Path]) -> list[Line]:
    """One record for each prompt: ``prompt``, ``images`` (paths) and ``human_prefer`` (scores averaged over files).

    Args:
        files: that of the prompts, then those of the scores.

    Raises:
        DataError: if a file is no list.
    """
    prompts, *scores = (_list(path) for path in files)
    counts = [len(entry) for entries in scores for entry in entries if isinstance(entry, list)]
    images = max(set(counts), key=counts.count) if counts else 0
    lines = []
    for row, prompt in enumerate(prompts):
        given = [entries[row] for entries in scores if row < len(entries) and entries[row] is not None]
        if not all(_is_scores(entry, images) for entry in given):
            fault = f"needs {images} scores, all of them numbers"
            lines.append(Line(path=files[0], number=row + 1, values={}, fault=fault, unit="entry"))
            continue
        values = {
            "prompt": prompt,
            "images": [f"{IMAGES}/{images * row + place:05}.png" for place in range(images)],
            "human_prefer": np.mean([numbers(entry) for entry in given], axis=0).tolist() if given else None,
        }
        lines.append(record(files[0], row + 1, values))
    return lines


def _list(path: Path) -> list[Any]:
    try:
        content = parse_json(read_text(path))
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}); fix or remove the file") from error
    if not isinstance(content, list):
        raise DataError(f"{path} must hold a JSON list, of D3PO's prompts or of the scores of each; remove the file")
    return content


def _is_scores(entry: object, images: int) -> bool:
    return isinstance(entry, list) and len(entry) == images and bool(np.isfinite(numbers(entry)).all())
