"""Which columns hold a pair, and which of its images is preferred. A further layout is a row of :data:`LAYOUTS`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from seedpo.errors import DataError

PROMPT_COLUMNS = ("prompt", "caption")
"""Names of the column of prompts."""

JUDGED = "has_label"
"""Column, of any layout, that is false where nobody judged the pair."""

EXPECTED = (
    "expected are caption, jpg_0, jpg_1, label_0, label_1 (Pick-a-Pic), or prompt, chosen, rejected "
    "(and chosen_probability, if there are ties)"
)

Marks = Mapping[str, Sequence[object]]
"""Columns that say which image is preferred, by name."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The columns of one kind of table.

    Attributes:
        prompts: names of the column of prompts, the usual one first; the one that is there, once a table is known.
        images: columns of the two images.
        marks: columns that say which image is preferred.
        optional: further such columns that may be missing; none of them that is, once a table is known.
        preference: probability that the first image is preferred, (N,), infinite where the marks are wrong.
        rule: what is right for the marks, in words.
    """

    prompts: Sequence[str]
    images: tuple[str, str]
    marks: Sequence[str] = ()
    optional: Sequence[str] = ()
    preference: Callable[[Marks, int], NDArray[np.float64]]
    rule: str

    @property
    def content(self) -> tuple[str, str, str]:
        """Columns of the prompt and of the images."""
        return (self.prompts[0], *self.images)

    @property
    def all_marks(self) -> tuple[str, ...]:
        """All columns that say which image is preferred."""
        return (*self.marks, *self.optional)

    def of_table(self, columns: Collection[str]) -> Layout:
        """The layout with those names that a table has."""
        prompt = next((name for name in self.prompts if name in columns), self.prompts[0])
        return replace(self, prompts=(prompt,), optional=[name for name in self.optional if name in columns])


def _by_probability(marks: Marks, count: int) -> NDArray[np.float64]:
    if "chosen_probability" not in marks:
        return np.ones(count)
    values = _numbers([1.0 if value is None else value for value in marks["chosen_probability"]])
    return np.where((values >= 0.5) & (values <= 1.0), values, np.inf)


def _by_labels(marks: Marks, count: int) -> NDArray[np.float64]:
    first, second = _numbers(marks["label_0"]), _numbers(marks["label_1"])
    right = ((first == 1) & (second == 0)) | ((first == 0) & (second == 1)) | ((first == 0.5) & (second == 0.5))
    return np.where(right, first, np.inf)


LAYOUTS = (
    Layout(
        prompts=PROMPT_COLUMNS,
        images=("chosen", "rejected"),
        optional=("chosen_probability", JUDGED),
        preference=_by_probability,
        rule="chosen_probability must be a number from 0.5 (a tie) to 1",
    ),
    Layout(  # Pick-a-Pic
        prompts=("caption", "prompt"),
        images=("jpg_0", "jpg_1"),
        marks=("label_0", "label_1"),
        optional=(JUDGED,),
        preference=_by_labels,
        rule="labels must be 1 and 0, 0 and 1, or 0.5 twice for a tie",
    ),
)
"""Layouts in the order in which they are tried."""


def find_layout(columns: Collection[str], *, origin: str) -> Layout:
    """The layout of a table with these columns.

    Raises:
        DataError: if no layout has all of its columns there; the message names those that the nearest one lacks.
    """
    layouts = [layout.of_table(columns) for layout in LAYOUTS]
    for layout in layouts:
        if all(name in columns for name in (*layout.content, *layout.marks)):
            return layout
    nearest = max(layouts, key=lambda layout: sum(name in columns for name in (*layout.images, *layout.marks)))
    missing = [name for name in (*nearest.content, *nearest.marks) if name not in columns]
    raise DataError(f"{origin} lacks the columns {missing}; it has {sorted(columns)}; {EXPECTED}")


def preferences(layout: Layout, marks: Sequence[Sequence[object]], *, count: int) -> NDArray[np.float64]:
    """Probability that the first image is preferred, (N,): NaN where nobody judged, infinity where the mark is wrong.

    Args:
        layout: what the marks mean.
        marks: one sequence of N values for each of ``layout.all_marks``, in their order.
        count: N.
    """
    columns = dict(zip(layout.all_marks, marks, strict=True))
    values = layout.preference(columns, count)
    return np.where(_numbers(columns[JUDGED]) == 0, np.nan, values) if JUDGED in columns else values


def wrong_marks(layout: Layout, marks: Sequence[object]) -> str:
    """What is wrong with the marks of one pair, and what would be right."""
    seen = ", ".join(f"{name} = {value!r}" for name, value in zip(layout.all_marks, marks, strict=True))
    return f"{layout.rule}; they are {seen}"


def _numbers(values: Sequence[object]) -> NDArray[np.float64]:
    """Values as numbers; NaN for anything else, which equals nothing, so that it is never taken for a mark."""
    return np.array([value if isinstance(value, int | float) else np.nan for value in values], dtype=np.float64)
