"""Some of the pairs of a set, and a division of a set by its prompts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from tqdm import tqdm

from seedpo.errors import DataError
from seedpo.protocols import LabelledPair, PreferencePairs


class SomePairs:
    """Some of the pairs of a set, renumbered from 0.

    Args:
        pairs: the set.
        rows: the numbers in it of those that are kept.
    """

    def __init__(self, pairs: PreferencePairs, rows: Sequence[int]) -> None:
        self.pairs = pairs
        self.rows = list(rows)

    sequential = False

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> LabelledPair:
        """One pair.

        Raises:
            DataError: if it cannot be read.
        """
        return self.pairs[self.rows[row]]

    def prompt(self, row: int) -> str:
        """What both images of a pair were made for, without decoding them."""
        return self.pairs.prompt(self.rows[row])

    def content(self, row: int) -> str:
        """SHA-256 of all that a pair depends on: the same as in the whole set."""
        return self.pairs.content(self.rows[row])


def divided_by_prompt(pairs: PreferencePairs, share: float, *, progress: bool = False) -> tuple[SomePairs, SomePairs]:
    """The pairs of most prompts, and those of a share of the prompts, which the prompts themselves decide.

    Whatever else is in the set, and in whatever order, a prompt stays on its side. Pairs whose prompt cannot be read
    stay with the first.

    Args:
        pairs: the set.
        share: of the prompts whose pairs are kept apart, above 0 and below 1.
        progress: whether to show a progress bar.

    Raises:
        DataError: if either side is empty.
    """
    sides: tuple[list[int], list[int]] = ([], [])
    for row in tqdm(range(len(pairs)), desc="reading prompts", disable=not progress, leave=False):
        sides[_is_apart(pairs, row, share)].append(row)
    if not all(sides):
        raise DataError(
            f"held_out_share = {share:g} leaves {len(sides[0])} pairs to train on and {len(sides[1])} to measure on; "
            "change it, or name a set of pairs with held_out"
        )
    return SomePairs(pairs, sides[0]), SomePairs(pairs, sides[1])


def _is_apart(pairs: PreferencePairs, row: int, share: float) -> bool:
    try:
        prompt = pairs.prompt(row)
    except DataError:  # whoever reads the pair says so
        return False
    return int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8], "big") / 2**64 < share
