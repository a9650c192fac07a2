"""Blocks of pairs that are read together, such as the row groups of parquet files, and an order that respects them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """Which pairs are read together, and how many blocks of them are shuffled together.

    Attributes:
        number: of the block of each pair, (N,) int64.
        window: blocks whose pairs are shuffled together, 1 or more.
    """

    number: NDArray[np.int64]
    window: int


@runtime_checkable
class BlockedPairs(Protocol):
    """A set of pairs that may be shuffled block by block."""

    def blocks(self) -> Blocks | None:
        """The block of each pair; ``None``: all pairs are shuffled together."""


@runtime_checkable
class BlockedRows(Protocol):
    """A table of which whole blocks of rows are read at a time."""

    def blocks(self, rows: NDArray[np.int64]) -> Blocks | None:
        """The blocks of some rows; ``None``: all rows are shuffled together."""


def blocks_of(pairs: object) -> Blocks | None:
    """The blocks of a set of pairs; ``None``: all pairs are shuffled together."""
    return pairs.blocks() if isinstance(pairs, BlockedPairs) else None


def block_order(order: NDArray[np.int64], blocks: Blocks, generator: np.random.Generator) -> NDArray[np.int64]:
    """An order in which few blocks are needed at a time: blocks are shuffled, then pairs within windows of blocks.

    Args:
        order: a random permutation of the pairs, (N,).
        blocks: of the pairs.
        generator: shuffles the blocks.

    Returns:
        A permutation (N,): within a window the pairs are as in ``order``.
    """
    numbers, block = np.unique(blocks.number, return_inverse=True)
    window = generator.permutation(len(numbers)) // blocks.window
    return order[np.argsort(window[block[order]], kind="stable")]
