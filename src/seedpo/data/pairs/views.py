"""A set of labelled pairs seen through another one: what both have in common."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from seedpo.data.images.buckets import Size, buckets_of
from seedpo.data.pairs.fingerprints import fingerprint_of
from seedpo.data.pairs.joined import repeats_of
from seedpo.data.pairs.prompt_columns import prompts_of
from seedpo.data.pairs.prompt_counts import stated_count
from seedpo.data.pairs.streams import restore_to, state_of
from seedpo.data.tables.blocks import Blocks, blocks_of
from seedpo.protocols import Fingerprint, PreferencePairs, State


class PairsView:
    """The same pairs in the same order; a subclass says what is different about each.

    Args:
        pairs: the labelled pairs.
    """

    def __init__(self, pairs: PreferencePairs) -> None:
        self.pairs = pairs
        self.sequential = pairs.sequential

    def __len__(self) -> int:
        return len(self.pairs)

    def repeats(self) -> Sequence[int] | None:
        """Visits of each pair in an epoch; ``None``: one of each."""
        return repeats_of(self.pairs)

    def buckets(self) -> Sequence[Size] | None:
        """Height and width of the images of each pair; ``None``: one size for all."""
        return buckets_of(self.pairs)

    def blocks(self) -> Blocks | None:
        """Pairs that are read together; ``None``: all are shuffled together."""
        return blocks_of(self.pairs)

    def all_prompts(self) -> Iterable[str | None]:
        """The prompt of each pair; ``None`` where it cannot be read."""
        return prompts_of(self.pairs)

    def pairs_of_prompt(self, row: int) -> int | None:
        """Pairs with the prompt of one pair, as its row says; ``None`` if it does not."""
        return stated_count(self.pairs, row)

    def fingerprint(self) -> Fingerprint:
        """That of the pairs as they are stored."""
        return fingerprint_of(self.pairs)

    def one_pass(self) -> Iterable[int]:
        """Numbers of the pairs of one pass."""
        return self.pairs.one_pass()

    def images(self, row: int) -> Sequence[tuple[str, str]]:
        """Place and SHA-256 of both image files of a pair, as they are stored; nothing of sets that cannot tell."""
        own = getattr(self.pairs, "images", None)
        return [] if own is None else own(row)

    def state(self) -> State:
        """Where a stream can go on."""
        return state_of(self.pairs)

    def restore(self, state: State) -> None:
        """Takes back what :meth:`state` gave."""
        restore_to(self.pairs, state)
