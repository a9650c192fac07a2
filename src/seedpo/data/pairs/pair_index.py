"""Which rows of a table make which pairs, and what became of each row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seedpo.data.layouts import PairRule, Reading, Reason, find_layout
from seedpo.data.layouts.columns import column_root, value_at
from seedpo.data.settings import PairsConfig
from seedpo.data.tables.rows import Table
from seedpo.data.text import shown
from seedpo.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Fate:
    """What became of a row of a table.

    Attributes:
        row: its number in the table.
        pairs: numbers of the pairs that it is part of.
        reason: why it is in none; ``None`` if it is.
        is_fault: whether the reason is a fault, and not that it is a tie or that nobody judged it.
    """

    row: int
    pairs: Sequence[int]
    reason: str | None
    is_fault: bool = False


@dataclass(frozen=True, kw_only=True)
class PairIndex:
    """Where the images of each pair lie, or of each like, which has one; those that cannot be read included.

    Attributes:
        reading: the table's layout.
        rows: rows of the images, (N, K).
        items: their places in a list of images, (N, K); -1 where a cell holds one image.
        sides: which of the layout's two columns of images each lies in, (N, K).
        probability: that the first image is preferred, or that the only one is liked, (N,).
        reason: of each row of the table, its place in ``reasons``; -1 for a row that needs none.
        reasons: why rows make no pair.
        in_tie: whether a row is part of a tie, whether ties are left out or not.
        tied: pairs in which neither image is preferred.
        unreadable: rows that cannot be read, and why.
    """

    reading: Reading
    rows: NDArray[np.int64]
    items: NDArray[np.int32]
    sides: NDArray[np.int8]
    probability: NDArray[np.float64]
    reason: NDArray[np.int16]
    reasons: Sequence[Reason]
    in_tie: NDArray[np.bool_]
    tied: int
    unreadable: Mapping[int, str]

    def __len__(self) -> int:
        return len(self.probability)

    def left_out(self) -> Mapping[str, int]:
        """Rows that make no pair, by the kind of reason: ``unlabelled``, ``alone``, ``fault``."""
        places, counts = np.unique(self.reason, return_counts=True)
        kinds: Counter[str] = Counter()
        for place, count in zip(places.tolist(), counts.tolist(), strict=True):
            if place >= 0:
                kinds[self.reasons[place].kind] += count
        return kinds

    def row_counts(self) -> tuple[int, dict[str, int]]:
        """Rows of which a readable pair is made, as far as is known, and the others by what they are.

        Together they are the rows of the table.
        """
        is_used = np.zeros(len(self.reason), dtype=np.bool_)
        is_used[self.rows.ravel()] = True
        ties = int((self.in_tie & ~is_used).sum())
        counts = self.left_out()
        faults = counts.get("fault", 0) + len(self.unreadable)
        used = int(is_used.sum()) - faults
        unlabelled, alone = counts.get("unlabelled", 0), counts.get("alone", 0)
        rest = len(self.reason) - used - ties - faults - unlabelled - alone
        return used, {
            "ties": ties,
            "without a label": unlabelled,
            "without a partner": alone,
            "faulty": faults,
            "in no pair by pairs.from_scores": rest,
        }

    def faulty(self) -> NDArray[np.bool_]:
        """Whether the marks of each row are wrong."""
        faults = np.array([why.kind == "fault" for why in self.reasons], dtype=bool)
        return np.append(faults, False)[self.reason]  # -1 is the last place

    def fault(self, row: int) -> Reason | None:
        """Why the marks of a row are wrong; ``None`` if they are not."""
        place = int(self.reason[row])
        return self.reasons[place] if place >= 0 and self.reasons[place].kind == "fault" else None

    def fates(self) -> Iterator[Fate]:
        """What became of each row of the table, in their order."""
        members = self.rows.ravel()
        order = np.argsort(members, kind="stable")
        ends = np.searchsorted(members[order], np.arange(len(self.reason) + 1)).tolist()
        for row in range(len(self.reason)):
            pairs = sorted(set((order[ends[row] : ends[row + 1]] // self.rows.shape[1]).tolist()))
            reason = self._reason(row, pairs)
            is_fault = row in self.unreadable or self.fault(row) is not None
            yield Fate(row=row, pairs=() if reason else pairs, reason=reason, is_fault=is_fault)

    def _reason(self, row: int, pairs: Sequence[int]) -> str | None:
        if row in self.unreadable:
            return self.unreadable[row]
        if (place := int(self.reason[row])) >= 0:
            return self.reasons[place].text
        if pairs:
            return None
        return "a tie" if self.in_tie[row] else "no pair is made of it by pairs.from_scores"


def index_pairs(table: Table, config: PairsConfig) -> PairIndex:
    """Finds a table's layout and the pairs of its rows.

    Raises:
        DataError: if no layout fits, or no pair is left.
    """
    reading = find_layout(table.columns, origin=table.origin, shape=table.shape(), own=config.columns)
    check_likes(reading, config, origin=table.origin)
    marks = [
        table.lengths(name) if name in reading.counted else column_values(table, name)
        for name in reading.marks.values()
    ]
    verdicts = reading.judge(marks, len(table), pair_rule(config))
    unreadable = table.faults()
    lost = np.zeros(len(table), dtype=bool)
    lost[verdicts.faults()] = True
    lost[list(unreadable)] = True
    reason = verdicts.reason.copy()
    reason[list(unreadable)] = -1
    sound = ~lost[verdicts.rows].any(axis=1)
    is_tie = sound & (verdicts.probability == 0.5)
    in_tie = np.zeros(len(table), dtype=bool)
    in_tie[verdicts.rows[is_tie].ravel()] = True
    used = sound & ~is_tie if config.ties == "drop" else sound
    bad = np.flatnonzero(lost)
    images = verdicts.rows.shape[1]
    rows = np.concatenate([verdicts.rows[used], np.stack([bad] * images, axis=1)])
    order = np.argsort(rows[:, 0], kind="stable")
    index = PairIndex(
        reading=reading,
        rows=rows[order],
        items=np.concatenate([verdicts.items[used], np.full((len(bad), images), -1, dtype=np.int32)])[order],
        sides=np.concatenate([verdicts.columns()[used], np.tile(np.arange(images, dtype=np.int8), (len(bad), 1))])[
            order
        ],
        probability=np.concatenate([verdicts.probability[used], np.ones(len(bad))])[order],
        reason=reason,
        reasons=verdicts.reasons,
        in_tie=in_tie,
        tied=int(is_tie.sum()),
        unreadable=unreadable,
    )
    _check_some(index, table)
    return index


def _check_some(index: PairIndex, table: Table) -> None:
    left_out = index.left_out()
    wrong = left_out.get("fault", 0)
    if wrong and wrong + len(index.unreadable) == len(index):
        row = next(row for row in range(len(table)) if index.fault(row))
        others = f"; {wrong - 1} more rows are wrong" if wrong > 1 else ""
        raise DataError(f"{table.place(row)}: {wrong_marks(index, table, row)}{others}")
    if not len(index):
        unlabelled, alone = (left_out.get(kind, 0) for kind in ("unlabelled", "alone"))
        kind = "pair with a preference" if index.rows.shape[1] > 1 else "image that is liked or not"
        raise DataError(
            f"{table.origin} holds no {kind}: {index.tied} ties in {len(table)} rows"
            + (f", {unlabelled} without a label" if unlabelled else "")
            + (f", {alone} without a partner" if alone else "")
            + ("; set pairs.ties=half to train on ties" if index.tied and index.rows.shape[1] > 1 else "")
            + ("; method kto trains on likes of single images" if alone and index.reading.layout.likes else "")
        )


def check_likes(reading: Reading, config: PairsConfig, *, origin: str) -> None:
    """Refuses data that hold pairs or scores where likes are due, and the other way round.

    Raises:
        DataError: naming the layout and the fix.
    """
    title, holds_likes = reading.layout.title, reading.layout.likes is not None
    if config.from_scores == "likes" and not holds_likes:
        raise DataError(
            f"{origin} holds «{title}», no likes of single images; set pairs.from_scores=likes-of-pairs to take "
            "preferred images as liked and the others as not, or name a table with prompt, image and liked"
        )
    if config.from_scores == "likes-of-pairs" and holds_likes:
        raise DataError(f"{origin} holds «{title}» already; set pairs.from_scores=likes")


def wrong_marks(index: PairIndex, table: Table, row: int) -> str:
    """What is wrong with the marks of a row, and what would be right."""
    reason, names = index.fault(row), list(index.reading.marks.values())
    values = table.row(row, _roots(names, table.columns))
    return fault_text(reason.text if reason else "", {name: value_at(values, name) for name in names})


def fault_text(rule: str, marks: Mapping[str, Any]) -> str:
    """What would be right for marks, and what they are."""
    return f"{rule}; they are {', '.join(f'{name} = {shown(value)}' for name, value in marks.items())}"


def pair_rule(config: PairsConfig) -> PairRule:
    """How scores become pairs."""
    return PairRule(from_scores=config.from_scores, min_gap=config.min_gap)


def column_values(table: Table, name: str) -> Sequence[Any]:
    """A light column of a table, whole; also one that lies in structures of another."""
    root = column_root(name, table.columns) or name
    values = table.values(root)
    return values if root == name else [value_at({root: value}, name) for value in values]


def _roots(names: Sequence[str], columns: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(column_root(name, columns) or name for name in names))
