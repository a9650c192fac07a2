"""Which columns hold a pair: Pick-a-Pic's names, or prompt, chosen and rejected."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seedpo.errors import DataError

PROMPT_COLUMNS = ("prompt", "caption")
"""Names of the column of prompts."""

PICKAPIC = ("jpg_0", "jpg_1", "label_0", "label_1")
"""Columns by which Pick-a-Pic's tables are known."""

EXPECTED = (
    "expected are caption, jpg_0, jpg_1, label_0, label_1 (Pick-a-Pic), or prompt, chosen, rejected "
    "(and chosen_probability, if there are ties)"
)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The columns of one kind of table.

    Attributes:
        prompt: column of prompts.
        images: columns of the two images.
        labels: columns with 1 for the preferred image, 0 for the other, 0.5 twice for a tie; none: the first image is
            preferred.
        probability: column with the probability that the first image is preferred, 0.5 to 1; none: 1 throughout.
        labelled: column that is false where nobody judged the pair.
    """

    prompt: str
    images: tuple[str, str]
    labels: tuple[str, str] | None = None
    probability: str | None = None
    labelled: str | None = None

    @property
    def marks(self) -> tuple[str, ...]:
        """Columns that say which image is preferred."""
        return (*(self.labels or ()), *filter(None, (self.probability, self.labelled)))

    @property
    def content(self) -> tuple[str, str, str]:
        """Columns of the prompt and of the images."""
        return (self.prompt, *self.images)


def find_layout(columns: Collection[str], *, origin: str) -> Layout:
    """The layout of a table with these columns.

    Raises:
        DataError: if it is none that can be read; the message says what was seen and what is expected.
    """
    optional = {name: name if name in columns else None for name in ("chosen_probability", "has_label")}
    if any(name in columns for name in PICKAPIC) and not {"chosen", "rejected"} <= set(columns):
        layout = Layout(
            prompt=next((name for name in reversed(PROMPT_COLUMNS) if name in columns), "caption"),
            images=("jpg_0", "jpg_1"),
            labels=("label_0", "label_1"),
            labelled=optional["has_label"],
        )
    else:
        layout = Layout(
            prompt=next((name for name in PROMPT_COLUMNS if name in columns), "prompt"),
            images=("chosen", "rejected"),
            probability=optional["chosen_probability"],
            labelled=optional["has_label"],
        )
    missing = [name for name in (*layout.content, *layout.marks) if name not in columns]
    if missing:
        raise DataError(f"{origin} lacks the columns {missing}; it has {sorted(columns)}; {EXPECTED}")
    return layout


def preferences(layout: Layout, marks: Sequence[Sequence[object]], *, count: int) -> NDArray[np.float64]:
    """Probability that the first image is preferred, (N,): NaN where nobody judged, infinity where the mark is wrong.

    Args:
        layout: what the marks mean.
        marks: one sequence of N values for each of ``layout.marks``, in their order.
        count: N.
    """
    columns = dict(zip(layout.marks, marks, strict=True))
    values = np.ones(count)
    if layout.labels is not None:
        first, second = (_numbers(columns[name]) for name in layout.labels)
        right = ((first == 1) & (second == 0)) | ((first == 0) & (second == 1)) | ((first == 0.5) & (second == 0.5))
        values = np.where(right, first, np.inf)
    elif layout.probability is not None:
        values = _numbers([1.0 if value is None else value for value in columns[layout.probability]])
        values = np.where((values >= 0.5) & (values <= 1.0), values, np.inf)
    if layout.labelled is not None:
        values = np.where(_numbers(columns[layout.labelled]) == 0, np.nan, values)
    return values


def wrong_marks(layout: Layout, marks: Sequence[object]) -> str:
    """What is wrong with the marks of one pair, and what would be right."""
    if layout.labels is not None:
        pair = tuple(marks[:2])
        return f"labels {pair} must be 1 and 0, 0 and 1, or 0.5 twice for a tie"
    return f"chosen_probability {marks[0]!r} must be a number from 0.5 (a tie) to 1"


def _numbers(values: Sequence[object]) -> NDArray[np.float64]:
    return np.array([_number(value) for value in values], dtype=np.float64)


def _number(value: object) -> float:
    """NaN for whatever is no number: it equals nothing, so that no mark is made of it."""
    return float(value) if isinstance(value, int | float) else float("nan")
