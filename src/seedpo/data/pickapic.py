"""Preference pairs in Pick-a-Pic's columns, from a table in memory."""

from __future__ import annotations

import pyarrow as pa

from seedpo.data.pairs import PairSet
from seedpo.data.settings import PairsConfig
from seedpo.data.tables import ArrowRows

COLUMNS = ("caption", "jpg_0", "jpg_1", "label_0", "label_1")
"""Columns that are needed; ``has_label`` is read too, any others are left alone."""


def pickapic_pairs(table: pa.Table, *, origin: str, config: PairsConfig | None = None) -> PairSet:
    """Labelled pairs of a table.

    Args:
        table: the columns ``caption``, ``jpg_0``, ``jpg_1`` (bytes of image files), ``label_0``, ``label_1``, and
            ``has_label`` if some rows have none.
        origin: what the table was read from, for error messages.
        config: which pairs are left out and how their images become one size.

    Raises:
        DataError: if a column is missing, a label is none of 0, 0.5 and 1, or no pair is left.
    """
    return PairSet(ArrowRows(table, origin=origin), config)
