"""What a layout of preferences is: the columns by which it is known, and the pairs that its rows make."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from seedpo.data.layouts.columns import Columns
from seedpo.data.settings import LIKES, FromScores

PROMPT_COLUMNS = ("prompt", "caption")
"""Names of the column of prompts."""

JUDGED = "has_label"
"""Column, of any layout, that is false where nobody judged the row."""

Marks = Mapping[str, Sequence[object]]
"""Columns that say which image is preferred, by their usual names; all of one length."""

Names = Sequence[str]
"""Names that a column may have, the usual one first."""


@dataclass(frozen=True, kw_only=True)
class PairRule:
    """How scores and ranks become pairs; see ``pairs.from_scores`` and ``pairs.min_gap``."""

    from_scores: FromScores = "all"
    min_gap: float = 0.0


@dataclass(frozen=True)
class Reason:
    """Why a row makes no pair that can be used.

    Attributes:
        kind: ``unlabelled`` and ``alone`` are left out and counted, a ``fault`` counts as a pair that cannot be read.
        text: in words; of a fault, what would be right.
    """

    kind: Literal["unlabelled", "alone", "fault"]
    text: str


UNLABELLED = Reason("unlabelled", "nobody judged it")
ALONE = Reason("alone", "no other image of its prompt has another mark")


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """The pairs that some rows make, sorted by the row of the first image, and why the other rows make none.

    A pair has K = 2 images. A like has K = 1, and its probability is 1 if the image is liked and 0 if it is not.

    Attributes:
        rows: rows of the images of each pair, (N, K).
        items: their places in a list of images, (N, K); -1 where a cell holds one image.
        sides: which of the layout's two columns of images each lies in, (N, K); ``None``: 0 and 1.
        probability: that the first image is preferred, (N,); 0.5 for a tie.
        reason: of each row, its place in ``reasons``; -1 for a row that needs none.
        reasons: why rows make no pair.
    """

    rows: NDArray[np.int64]
    items: NDArray[np.int32]
    probability: NDArray[np.float64]
    reason: NDArray[np.int16]
    reasons: Sequence[Reason]
    sides: NDArray[np.int8] | None = None

    def columns(self) -> NDArray[np.int8]:
        """The sides, also where they are 0 and 1, (N, K)."""
        own = np.arange(self.rows.shape[1], dtype=np.int8)
        return np.broadcast_to(own, self.rows.shape) if self.sides is None else self.sides

    def count(self, kind: str) -> int:
        """Rows that make no pair for a kind of reason."""
        return int(np.isin(self.reason, [place for place, why in enumerate(self.reasons) if why.kind == kind]).sum())

    def faults(self) -> NDArray[np.int64]:
        """Rows whose marks are wrong."""
        kinds = [place for place, why in enumerate(self.reasons) if why.kind == "fault"]
        return np.flatnonzero(np.isin(self.reason, kinds))


Judge = Callable[[Marks, int, PairRule], Verdicts]
"""Makes verdicts of the marks of some rows and of their number."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The columns of one kind of table, and what they mean.

    Attributes:
        title: what it is called in messages.
        prompts: names of the column of prompts.
        images: names of the columns of the first and of the second image; equal where one column holds both.
        marks: names of the columns that say which image is preferred.
        optional: further such columns that may be missing.
        lists: whether the first and the second column of images hold lists of images.
        judge: the pairs that rows make; the marks come by their usual names.
        likes: the single images that rows make; ``None`` if the marks are of no image by itself.
        rule: what is right for the marks, in words.
        counted: usual names of marks of which the judge is given the lengths of lists; -1 for a cell without one.
        several_rows: whether the images of a pair lie in different rows, so that all rows must be known.
        refines: titles of layouts whose columns it has too, which it takes precedence over.
    """

    title: str
    prompts: Names = PROMPT_COLUMNS
    images: tuple[Names, Names]
    marks: Sequence[Names] = ()
    optional: Sequence[Names] = ((JUDGED,),)
    lists: tuple[bool, bool] = (False, False)
    judge: Judge
    likes: Judge | None = None
    rule: str
    counted: Collection[str] = ()
    several_rows: bool = False
    refines: Collection[str] = ()

    @property
    def needed(self) -> Sequence[Names]:
        """Names of all columns that must be there."""
        return list(dict.fromkeys((tuple(self.prompts), *map(tuple, self.images), *map(tuple, self.marks))))

    @property
    def known_names(self) -> set[str]:
        """Every name that one of its columns may have."""
        return {name for names in (*self.needed, *self.optional) for name in names}

    def missing(self, columns: Collection[str]) -> list[str]:
        """Usual names of those needed columns that a table lacks."""
        return [names[0] for names in self.needed if not any(name in columns for name in names)]

    def fits(self, columns: Columns) -> bool:
        """Whether a table has this layout."""
        if self.missing(columns):
            return False
        images = [_present(names, columns) for names in self.images]
        return all(columns.holds_lists(name) == is_list for name, is_list in zip(images, self.lists, strict=True))

    def of_table(self, columns: Collection[str]) -> Reading:
        """The layout with those names that a table has."""
        marks = {names[0]: _present(names, columns) for names in self.marks}
        marks |= {names[0]: name for names in self.optional for name in names if name in columns}
        first, second = (_present(names, columns) for names in self.images)
        return Reading(layout=self, prompt=_present(self.prompts, columns), images=(first, second), marks=marks)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A layout with the names that one table has.

    Attributes:
        layout: what the columns mean.
        prompt: column of prompts.
        images: columns of the first and of the second image.
        marks: columns that say which image is preferred, by their usual names.
    """

    layout: Layout
    prompt: str
    images: tuple[str, str]
    marks: Mapping[str, str] = field(default_factory=dict)

    @property
    def content(self) -> tuple[str, str, str]:
        """Columns of the prompt and of the two images."""
        return (self.prompt, *self.images)

    @property
    def counted(self) -> set[str]:
        """Columns of marks of which the lengths of lists are judged."""
        return {self.marks[usual] for usual in self.layout.counted}

    def judge(self, marks: Sequence[Sequence[object]], count: int, rule: PairRule) -> Verdicts:
        """The pairs that rows make, or the single images that are liked or not.

        Args:
            marks: one sequence of ``count`` values for each of ``self.marks``, in their order.
            count: number of the rows.
            rule: how scores and ranks become pairs.
        """
        columns = dict(zip(self.marks, marks, strict=True))
        if rule.from_scores == "likes" and self.layout.likes is not None:
            return self.layout.likes(columns, count, rule)
        if rule.from_scores not in LIKES:
            return self.layout.judge(columns, count, rule)
        verdicts = self.layout.judge(columns, count, replace(rule, from_scores="margin"))
        return likes_of_pairs(verdicts, one_column=self.images[0] == self.images[1])


def likes_of_pairs(verdicts: Verdicts, *, one_column: bool) -> Verdicts:
    """Each image once: liked if it is preferred in a pair, else not liked if another is preferred to it.

    So Diffusion-KTO's authors read Pick-a-Pic. An image of ties alone keeps the probability 0.5.

    Args:
        verdicts: pairs.
        one_column: whether both images of a pair lie in one column, so that row and item tell an image.
    """
    count = len(verdicts.rows)
    outcome = np.sign(verdicts.probability - 0.5)
    sides = np.repeat([0, 0 if one_column else 1], count)
    places = np.stack([verdicts.rows.T.ravel(), sides, verdicts.items.T.ravel()], axis=1)
    images, number = np.unique(places, axis=0, return_inverse=True)
    best, worst = np.full(len(images), -1.0), np.full(len(images), 1.0)
    for order, extreme in ((np.maximum, best), (np.minimum, worst)):
        order.at(extreme, number.ravel(), np.concatenate([outcome, -outcome]))
    return replace(
        verdicts,
        rows=images[:, :1].astype(np.int64),
        sides=images[:, 1:2].astype(np.int8),
        items=images[:, 2:].astype(np.int32),
        probability=np.where(best > 0, 1.0, np.where(worst < 0, 0.0, 0.5)),
    )


def _present(names: Names, columns: Collection[str]) -> str:
    return next((name for name in names if name in columns), names[0])
