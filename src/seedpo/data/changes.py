"""Labelled pairs with something changed on the way: as published, or with a fault of the reference code on request."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import reduce

import torch

from seedpo.protocols import LabelledPair, PreferencePairs

Change = Callable[[int, LabelledPair], LabelledPair]
"""What becomes of a pair, given the number of its row."""


def as_a_win(row: int, pair: LabelledPair) -> LabelledPair:
    """A tie counts as a preference for its first image."""
    return replace(pair, chosen_probability=1.0)


def as_square_original(row: int, pair: LabelledPair) -> LabelledPair:
    """SDXL is told that the image was made in this size and never cropped."""
    height, width = pair.chosen.shape[-2:]
    return replace(pair, original_size=(height, width), crop=(0, 0))


def emptied(share: float) -> Change:
    """A share of the pairs, the same ones at every visit, lose their prompt."""

    def change(row: int, pair: LabelledPair) -> LabelledPair:
        drawn = int.from_bytes(hashlib.sha256(f"empty prompt {row}".encode()).digest()[:8], "big") / 2**64
        return replace(pair, prompt="") if drawn < share else pair

    return change


class ChangedPairs:
    """A set of pairs, each changed when it is asked for.

    Args:
        pairs: the labelled pairs.
        changes: what is done, in this order, under names that say all about it: the content hashes depend on them.
    """

    def __init__(self, pairs: PreferencePairs, changes: Mapping[str, Change]) -> None:
        self.pairs = pairs
        self.changes = changes
        self.sequential = pairs.sequential

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, row: int) -> LabelledPair:
        """One pair, changed.

        Raises:
            DataError: if it cannot be read.
        """
        return reduce(lambda pair, change: change(row, pair), self.changes.values(), self.pairs[row])

    def prompt(self, row: int) -> str:
        """The prompt of one pair, changed; its images are not read."""
        blank = torch.zeros(3, 1, 1)
        pair = LabelledPair(prompt=self.pairs.prompt(row), chosen=blank, rejected=blank, original_size=(1, 1))
        return reduce(lambda pair, change: change(row, pair), self.changes.values(), pair).prompt

    def content(self, row: int) -> str:
        """SHA-256 of all that the changed pair depends on; the row, too, since a change may."""
        return hashlib.sha256(f"{list(self.changes)} {row} {self.pairs.content(row)}".encode()).hexdigest()
