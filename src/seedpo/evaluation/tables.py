"""The tables of an evaluation: scores of images and metrics of prompts, in parquet files that grow.

Targets, prompts and images form a grid: every target (at every training step) has K images of each of P prompts. So a
column of a table is an array (P, K) for each target, and a target is measured as a whole or not at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from seedpo.data.tables.parquet import require_rows
from seedpo.errors import RunFolderError
from seedpo.files import write_aside, writing

Place = tuple[str, int | None]
"""A target and a training step; without a step the target as it is."""

Values = NDArray[np.float64]

COLUMNS = ("target", "step", "prompt_index", "image_index", "prompt", "file")
"""Columns that no reward or metric may be named after."""


FIX = "then run the same command again: what is finished is kept"
"""What the user does if a file cannot be written."""


def image_file(place: Place, prompt: int, image: int) -> str:
    """File of one image within the evaluation's folder; those of a training step lie in a folder of their own."""
    label, step = place
    folder = f"images/{label}" if step is None else f"images/{label}/step-{step:06d}"
    return f"{folder}/{prompt:05d}-{image:02d}.png"


@dataclass(frozen=True, kw_only=True)
class Table:
    """What was measured so far.

    Attributes:
        path: the parquet file.
        prompts: P prompts.
        images: K rows for each prompt; `None` for one row that stands for all its images.
        places: the targets and steps that have rows.
        values: by column, the values (P, K) of the places that were measured; NaN where a value is undefined.
    """

    path: Path
    prompts: Sequence[str]
    images: int | None
    places: dict[Place, None] = field(default_factory=dict)
    values: dict[str, dict[Place, Values]] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int]:
        """P and K."""
        return len(self.prompts), self.images or 1

    def missing(self, name: str, places: Iterable[Place]) -> list[Place]:
        """Those of some places that lack a column."""
        return [place for place in places if place not in self.values.get(name, {})]

    def put(self, name: str, values: Mapping[Place, Values]) -> None:
        """Adds values (P, K) to a column."""
        self.places.update(dict.fromkeys(values))
        self.values.setdefault(name, {}).update(values)

    def ordered(self) -> list[Place]:
        """Targets in the order in which they came, each by its steps."""
        targets = list(dict.fromkeys(target for target, _ in self.places))
        return sorted(self.places, key=lambda place: (targets.index(place[0]), -1 if place[1] is None else place[1]))

    def write(self) -> None:
        """Writes the file; it is there whole or not at all.

        Raises:
            RunFolderError: if it cannot be written.
        """
        places, (prompts, images) = self.ordered(), self.shape
        rows = [(place, prompt, image) for place in places for prompt in range(prompts) for image in range(images)]
        columns = {
            "target": pa.array([target for (target, _), _, _ in rows], pa.string()),
            "step": pa.array([step for (_, step), _, _ in rows], pa.int64()),
            "prompt_index": pa.array([prompt for _, prompt, _ in rows], pa.int64()),
        }
        if self.images is not None:
            columns["image_index"] = pa.array([image for _, _, image in rows], pa.int64())
        columns["prompt"] = pa.array([self.prompts[prompt] for _, prompt, _ in rows], pa.string())
        if self.images is not None:
            columns["file"] = pa.array([image_file(*row) for row in rows], pa.string())
        for name, known in self.values.items():
            cells = [
                known[place].flatten().tolist() if place in known else [None] * prompts * images for place in places
            ]
            columns[name] = pa.array([cell for place in cells for cell in place], pa.float64())
        with writing(self.path.name, self.path.parent, fix=FIX), write_aside(self.path) as aside:
            pq.write_table(pa.table(columns), aside)


def read_table(path: Path, prompts: Sequence[str], *, images: int | None) -> Table:
    """What was measured before; an empty table if nothing was.

    Raises:
        RunFolderError: if the file cannot be read.
    """
    table = Table(path=path, prompts=prompts, images=images)
    if not path.is_file():
        return table
    try:
        require_rows(path)
        content = pq.read_table(path).to_pydict()
        places = list(zip(content["target"], content["step"], strict=True))
        cells = list(zip(places, content["prompt_index"], content.get("image_index", [0] * len(places)), strict=True))
        table.places.update(dict.fromkeys(places))
        for name in content:
            if name not in COLUMNS:
                column = table.values.setdefault(name, {})
                for (place, prompt, image), value in zip(cells, content[name], strict=True):
                    if value is not None:
                        column.setdefault(place, np.full(table.shape, math.nan))[prompt, image] = value
    except (pa.ArrowException, OSError, ValueError, TypeError, LookupError, OverflowError) as error:
        raise RunFolderError(f"{path} cannot be read ({error}); delete it and run the same command again") from error
    return table
