"""Tables of scores of image files: parquet, CSV or JSON lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from seedpo.data.image_list import ListedImage, Picture
from seedpo.data.settings import SCORE_COLUMNS
from seedpo.data.text import csv_text
from seedpo.errors import ConfigError
from seedpo.files import write_aside

if TYPE_CHECKING:
    from torch import Tensor


Scored = TypeVar("Scored", bound=Picture, covariant=True)


@dataclass(frozen=True, kw_only=True)
class ScoreTable(Generic[Scored]):
    """Scores of images.

    Attributes:
        images: the images, each with its prompt.
        scores: (N,) float32 of each reward, by its name; finite.
        skipped: names of images that could not be read, and why.
    """

    images: Sequence[Scored]
    scores: Mapping[str, Tensor]
    skipped: Mapping[str, str] = field(default_factory=dict)

    def columns(self) -> dict[str, list[Any]]:
        """The table by columns: ``file``, ``prompt``, and one for each reward."""
        files = [Path(image.name).as_posix() for image in self.images]
        names: dict[str, list[Any]] = dict(
            zip(SCORE_COLUMNS, (files, [image.prompt for image in self.images]), strict=True)
        )
        return names | {name: values.tolist() for name, values in self.scores.items()}


def check_out(out: Path, *, overwrite: bool) -> None:
    """Sees that a table can be written there, before anything is scored.

    Raises:
        ConfigError: if the ending is unknown, the file exists, or its place is not a folder.
    """
    if out.suffix.lower() not in WRITERS:
        raise ConfigError(f"--out {out} must end in {', '.join(WRITERS)}")
    if out.exists() and (out.is_dir() or not overwrite):
        raise ConfigError(f"--out {out} exists already; give another name, or --overwrite to replace it")
    parent = next(parent for parent in out.absolute().parents if parent.exists())
    if not parent.is_dir():
        raise ConfigError(f"--out {out}: {parent} is a file, not a folder; give another place")


def write_table(table: ScoreTable[ListedImage], out: Path) -> None:
    """Writes a table; the ending of the name is its format. It is there whole or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with write_aside(out) as aside:
        WRITERS[out.suffix.lower()](table.columns(), aside)


def _write_parquet(columns: Mapping[str, list[Any]], path: Path) -> None:
    kinds = {name: pa.string() if name in SCORE_COLUMNS else pa.float32() for name in columns}
    pq.write_table(pa.table({name: pa.array(values, kinds[name]) for name, values in columns.items()}), path)


def _rows(columns: Mapping[str, list[Any]]) -> list[list[Any]]:
    """Rows, with the digits that float32 has."""
    digits = [
        values if name in SCORE_COLUMNS else [float(f"{value:.9g}") for value in values]
        for name, values in columns.items()
    ]
    return [list(row) for row in zip(*digits, strict=True)]


def _write_csv(columns: Mapping[str, list[Any]], path: Path) -> None:
    path.write_text(csv_text([list(columns), *_rows(columns)]), encoding="utf-8", newline="")


def _write_jsonl(columns: Mapping[str, list[Any]], path: Path) -> None:
    lines = [json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False) for row in _rows(columns)]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="")


WRITERS: Mapping[str, Callable[[Mapping[str, list[Any]], Path], None]] = {
    ".parquet": _write_parquet,
    ".csv": _write_csv,
    ".jsonl": _write_jsonl,
}
"""How a table is written, by the ending of its name."""
