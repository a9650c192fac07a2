"""The tables of an evaluation: scores of images and metrics of prompts, kept in parquet files that grow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from seedpo.errors import RunFolderError
from seedpo.evaluation.folder import MEND
from seedpo.files import write_aside, writing

Key = tuple[str, int | None, int, int]
"""Target, training step (none: the target as it is), number of the prompt, number of the image (metrics: 0)."""

_TYPES = {
    "target": pa.string(),
    "step": pa.int64(),
    "prompt_index": pa.int64(),
    "image_index": pa.int64(),
    "prompt": pa.string(),
    "file": pa.string(),
}

COLUMNS = frozenset(_TYPES)
"""Columns that no reward or metric may be named after."""

SCORES = ("target", "step", "prompt_index", "image_index", "prompt", "file")
"""Columns of ``scores.parquet`` before those of the rewards."""

METRICS = ("target", "step", "prompt_index", "prompt")
"""Columns of ``metrics.parquet`` before those of the metrics."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One image.

    Attributes:
        key: what it is.
        prompt: what it was drawn for.
        file: where it lies, relative to the evaluation's folder.
    """

    key: Key
    prompt: str
    file: str

    def cells(self) -> dict[str, Any]:
        """Its columns."""
        target, step, prompt, image = self.key
        return {
            "target": target,
            "step": step,
            "prompt_index": prompt,
            "image_index": image,
            "prompt": self.prompt,
            "file": self.file,
        }


@dataclass(frozen=True, kw_only=True)
class Table:
    """Values of items by their columns.

    Attributes:
        items: the rows.
        values: of each column what is known, by item.
    """

    items: dict[Key, Item] = field(default_factory=dict)
    values: dict[str, dict[Key, float]] = field(default_factory=dict)

    def add(self, items: Sequence[Item]) -> None:
        """Adds rows; what is known of them stays."""
        self.items.update((item.key, item) for item in items)

    def missing(self, name: str, items: Sequence[Item]) -> list[Item]:
        """Those of some items of which a column says nothing."""
        known = self.values.get(name, {})
        return [item for item in items if item.key not in known]

    def put(self, name: str, values: Mapping[Key, float]) -> None:
        """Adds values to a column."""
        self.values.setdefault(name, {}).update(values)


def read_table(path: Path) -> Table:
    """What was measured before; an empty table if nothing was.

    Raises:
        RunFolderError: if the file cannot be read.
    """
    table = Table()
    if not path.is_file():
        return table
    try:
        rows = pq.read_table(path).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise RunFolderError(f"{path} cannot be read ({error}); delete it and run the same command again") from error
    for row in rows:
        key: Key = (row["target"], row["step"], row["prompt_index"], row.get("image_index", 0))
        table.items[key] = Item(key=key, prompt=row["prompt"], file=row.get("file", ""))
        for name in row:  # in the order of the columns, so that a table is written as it was
            if name not in COLUMNS and row[name] is not None:
                table.values.setdefault(name, {})[key] = row[name]
    return table


def write_table(path: Path, table: Table, columns: Sequence[str]) -> None:
    """Writes a table; it is there whole or not at all.

    Args:
        path: a parquet file.
        table: what is known.
        columns: the first columns, :data:`SCORES` or :data:`METRICS`.

    Raises:
        RunFolderError: if it cannot be written.
    """
    items = sorted(table.items.values(), key=_order(table))
    cells = [item.cells() for item in items]
    content = {name: pa.array([row[name] for row in cells], _TYPES[name]) for name in columns}
    for name, known in table.values.items():
        content[name] = pa.array([known.get(item.key) for item in items], pa.float64())
    with writing(path.name, path.parent, mend=MEND):
        with write_aside(path) as aside:
            pq.write_table(pa.table(content), aside)


def _order(table: Table) -> Any:
    """Targets in the order in which they came, then steps, prompts and images."""
    targets = {target: row for row, target in enumerate(dict.fromkeys(key[0] for key in table.items))}
    return lambda item: (targets[item.key[0]], -1 if item.key[1] is None else item.key[1], *item.key[2:])
