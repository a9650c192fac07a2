"""Preference pairs in Pick-a-Pic's columns."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from seedpo.errors import DataError

COLUMNS = ("caption", "jpg_0", "jpg_1", "label_0", "label_1")
"""Columns that are read; any others are left alone."""


class PickAPicPairs:
    """Labelled pairs; ties (label 0.5) are left out, since they prefer neither image.

    Args:
        table: the columns ``caption``, ``jpg_0``, ``jpg_1`` (bytes of image files), ``label_0``, ``label_1``.
        origin: what the table was read from, for error messages.

    Raises:
        DataError: if a column is missing, a label is none of 0, 0.5 and 1, or no pair is left.
    """

    def __init__(self, table: pa.Table, *, origin: str) -> None:
        missing = [name for name in COLUMNS if name not in table.column_names]
        if missing:
            raise DataError(f"{origin} lacks the columns {missing}; it has {table.column_names}")
        self.origin = origin
        self._table = table.select(list(COLUMNS))
        labels = list(zip(table["label_0"].to_pylist(), table["label_1"].to_pylist(), strict=True))
        for row, pair in enumerate(labels):
            if pair not in ((1, 0), (0, 1), (0.5, 0.5)):
                raise DataError(f"{origin} row {row}: labels {pair} must be 1 and 0, 0 and 1, or 0.5 twice for a tie")
        self._rows = [row for row, (first, _) in enumerate(labels) if first != 0.5]
        self.ties = len(labels) - len(self._rows)
        if not self._rows:
            raise DataError(f"{origin} holds no pair with a preference: {self.ties} ties in {len(labels)} rows")

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[str, Tensor, Tensor]:
        """Prompt, preferred image and other image, (3, H, W) in [0, 1].

        Raises:
            DataError: if an image cannot be read; the message names the row and the column.
        """
        row = self._rows[index]
        values: dict[str, Any] = {name: self._table[name][row].as_py() for name in COLUMNS}
        images = [self._image(values[name], row, name) for name in ("jpg_0", "jpg_1")]
        chosen, rejected = images if values["label_0"] == 1 else reversed(images)
        return values["caption"], chosen, rejected

    def _image(self, content: bytes, row: int, column: str) -> Tensor:
        try:
            with Image.open(io.BytesIO(content)) as image:
                pixels = np.asarray(image.convert("RGB"), dtype=np.float32) / 255.0
        except Exception as error:  # Pillow's decoders raise almost anything, SyntaxError too, for a damaged file
            raise DataError(
                f"{self.origin} row {row}: {column} is not an image that can be read ({error}); remove the row"
            ) from error
        return torch.from_numpy(pixels).permute(2, 0, 1)


def read_pairs(path: Path) -> PickAPicPairs:
    """Reads a parquet file with Pick-a-Pic's columns.

    Raises:
        DataError: if the file is missing or is not parquet, or its content cannot be used.
    """
    try:
        table = pq.read_table(path)
    except FileNotFoundError as error:
        raise DataError(f"preference pairs {path} do not exist; name a parquet file, or `scenes-pairs`") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"preference pairs {path} cannot be read as parquet: {error}") from error
    return PickAPicPairs(table, origin=str(path))
