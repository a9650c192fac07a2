"""Hugging Face data sets: saved to a local folder, or streamed from the hub. Needs the package ``datasets``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seedpo.data.files.splits import SplitWish, chosen_split
from seedpo.data.layouts.columns import Shape
from seedpo.data.tables.rows import is_light, list_length, shape_of
from seedpo.data.tables.stream_rows import StreamRow
from seedpo.errors import DataError, StreamError
from seedpo.protocols import Fingerprint

MARKS = ("dataset_dict.json", "state.json")
"""Files by which a folder of ``save_to_disk`` is known: several splits, or one."""


def _datasets() -> Any:
    """The package, which is an extra."""
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            "Hugging Face data sets need the package datasets; install it with pip install 'seedpo[data]'"
        ) from error
    return datasets


def _split_of_rows(rows: Any) -> str | None:
    """The split that a single data set was cut from, as ``train`` of ``train[:10%]``; `None` if it is not known."""
    match = re.fullmatch(r"(\w+)(\[.*\])?", str(rows.split or ""))
    return match[1] if match else None


def split_notes(split: str | None, splits: Sequence[str | None]) -> tuple[str, ...]:
    """Which split is read and which are not, as lines for people."""
    others = ", ".join(name for name in splits if name and name != split)
    return (f"split: {split}" + (f"; not read: {others}" if others else ""),) if split else ()


class SavedRows:
    """Rows of a data set that was written with ``save_to_disk``.

    Args:
        folder: what it was written to.
        wish: which split is read.

    Raises:
        DataError: if it cannot be read or lacks the split.
    """

    def __init__(self, folder: Path, *, wish: SplitWish) -> None:
        datasets = _datasets()
        try:
            loaded = datasets.load_from_disk(str(folder))
        except Exception as error:  # whatever the package meets in a damaged folder
            raise DataError(f"{folder} cannot be read as a saved Hugging Face data set: {error}") from error
        several = isinstance(loaded, datasets.DatasetDict)
        splits = list(loaded) if several else [_split_of_rows(loaded)]
        if not splits:
            raise DataError(f"{folder} is a saved Hugging Face data set without any split; save it again")
        split = chosen_split(splits, wish, origin=str(folder))
        if several:
            loaded = loaded[split]
        for name, feature in loaded.features.items():
            if isinstance(feature, datasets.Image):
                loaded = loaded.cast_column(name, datasets.Image(decode=False))
        self.origin = str(folder)
        self.notes = split_notes(split, splits)
        self.columns: Sequence[str] = loaded.column_names
        self._rows = loaded

    def __len__(self) -> int:
        return len(self._rows)

    def values(self, column: str) -> Sequence[Any]:
        """A column, whole."""
        return list(self._rows[column])

    def is_light(self, column: str) -> bool:
        """Whether a column is text or numbers."""
        return is_light(self._rows.features.arrow_schema.field(column).type)

    def shape(self) -> Shape:
        """What kinds of values the columns hold."""
        return shape_of(self._rows.features.arrow_schema)

    def lengths(self, column: str) -> Sequence[int | None]:
        """Length of the list in each row of a column."""
        return [list_length(value) for value in self._rows[column]]

    def faults(self) -> Mapping[int, str]:
        """None are known before the rows are read."""
        return {}

    def file_sizes(self) -> Sequence[int]:
        """Bytes of each file of the set."""
        return [Path(file["filename"]).stat().st_size for file in self._rows.cache_files]

    def row(self, row: int, columns: Sequence[str]) -> dict[str, Any]:
        """Some columns of a row."""
        if not columns:
            return {}
        values: dict[str, Any] = self._rows.select_columns(list(columns))[row]
        return values

    def place(self, row: int) -> str:
        """Folder and number of a row."""
        return f"{self.origin} row {row}"

    def folder(self, row: int) -> Path | None:
        """The data set's folder."""
        return Path(self.origin)


class HubStream:
    """Passes over a data set of the hub, one row after another, without keeping it on the disk.

    Args:
        name: ``owner/name`` on the hub, or a local folder.
        wish: which split is read.
        seed: seed of the orders.
        buffer: rows among which the next one is drawn; 1 keeps the order.

    Raises:
        DataError: if it cannot be opened.
    """

    def __init__(self, name: str, *, wish: SplitWish, seed: int, buffer: int) -> None:
        datasets = _datasets()
        self.origin = f"hub:{name}"
        self.folder = Path(name) if Path(name).is_dir() else None
        self._seed = seed
        self._buffer = buffer
        try:
            splits = datasets.load_dataset(name, streaming=True)
            split = chosen_split(splits, wish, origin=self.origin)
            self.notes = split_notes(split, list(splits))
            self._rows = splits[split].decode(False)
            columns = self._rows.column_names
            self.columns: Sequence[str] = columns if columns is not None else list(next(iter(self._rows)))
            features = self._rows.features
            self.shape = shape_of(features.arrow_schema) if features is not None else Shape()
        except DataError:
            raise
        except Exception as error:  # no network, no such set, no right to read it, ...
            raise DataError(
                f"{self.origin} cannot be read: {type(error).__name__}: {error}; "
                "check the name, the network and `hf auth whoami`"
            ) from error

    def fingerprint(self) -> Fingerprint:
        """The name alone: the hub does not say what a set holds before it is read."""
        return {"origin": self.origin}

    def epoch(self, number: int) -> Iterator[StreamRow]:
        """All rows in the order of one pass, which is always the same for the same number."""
        rows = self._rows
        if self._buffer > 1:
            rows = rows.shuffle(generator=np.random.default_rng([self._seed, number]), buffer_size=self._buffer)
        try:
            for values in rows:
                yield StreamRow(values=values)
        except Exception as error:
            raise StreamError(
                f"{self.origin} broke off: {type(error).__name__}: {error}; continue with --resume latest"
            ) from error
