"""Labelled pairs with something changed on the way: another label, another size."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import torch

from seedpo.data.images.buckets import Size, buckets_of
from seedpo.data.pairs.fingerprints import fingerprint_of
from seedpo.data.pairs.joined import repeats_of
from seedpo.data.pairs.prompt_columns import prompts_of
from seedpo.data.pairs.readers import expect
from seedpo.data.pairs.streams import restore_to, state_of
from seedpo.data.tables.blocks import Blocks, blocks_of
from seedpo.data.text import shown
from seedpo.errors import DataError
from seedpo.protocols import Fingerprint, LabelledPair, PreferencePairs, Reward, State


@dataclass(frozen=True, kw_only=True)
class Change:
    """What becomes of a pair.

    Attributes:
        label: names the change with its settings; content hashes depend on it.
        pair: the changed pair, given the number of its row and the pair. It leaves the prompt as it is.
    """

    label: str
    pair: Callable[[int, LabelledPair], LabelledPair]


def _as_square_original(row: int, pair: LabelledPair) -> LabelledPair:
    height, width = pair.chosen.shape[-2:]
    return replace(pair, original_size=(height, width), crop=(0, 0))


TIES_AS_WINS = Change(label="ties_as_wins", pair=lambda row, pair: replace(pair, chosen_probability=1.0))
"""A tie counts as a preference for its first image."""

SQUARE_TIME_IDS = Change(label="square_time_ids", pair=_as_square_original)
"""SDXL is told that the image was made in the size that is trained on and never cropped."""


def relabel(reward: Reward, *, name: str, gap: float) -> Change:
    """The preferences of a reward: p = softmax of both scores, a tie unless p_1 and p_2 differ by more than ``gap``.

    As published for SPO's preference model of SDXL. SPO's code scores the images as they are stored; here they are
    scored in the size that is trained on.

    Args:
        reward: the scorer; differences of its scores are log-odds.
        name: what the reward is called.
        gap: 0 to 1; 0.1 as published.
    """

    def pair(row: int, pair: LabelledPair) -> LabelledPair:
        scores = reward(torch.stack([pair.chosen, pair.rejected]), [pair.prompt] * 2).detach().double().cpu()
        if not torch.isfinite(scores).all():
            raise DataError(f"reward {name} gives pair {row} ({shown(pair.prompt)}) a score that is not finite")
        first, second = torch.softmax(scores, 0).tolist()
        if first - second > gap:
            return replace(pair, chosen_probability=1.0)
        if second - first > gap:
            return replace(pair, chosen=pair.rejected, rejected=pair.chosen, chosen_probability=1.0)
        return replace(pair, chosen_probability=0.5)

    return Change(label=f"relabel={name} {gap!r}", pair=pair)


class ChangedPairs:
    """A set of pairs, each changed when it is read.

    Args:
        pairs: the labelled pairs.
        changes: what is done, in this order.
    """

    def __init__(self, pairs: PreferencePairs, changes: Sequence[Change]) -> None:
        self.pairs = pairs
        self.changes = changes
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

    def expect(self, rows: Sequence[int]) -> None:
        """Says which pairs are asked for next."""
        expect(self.pairs, rows)

    def all_prompts(self) -> Iterable[str | None]:
        """The prompt of each pair, which no change concerns; ``None`` where it cannot be read."""
        return prompts_of(self.pairs)

    def fingerprint(self) -> Fingerprint:
        """That of the pairs as they are stored; the settings say what is changed."""
        return fingerprint_of(self.pairs)

    def one_pass(self) -> Iterable[int]:
        """Numbers of the pairs of one pass."""
        return self.pairs.one_pass()

    def __getitem__(self, row: int) -> LabelledPair:
        """One pair, changed.

        Raises:
            DataError: if it cannot be read or changed.
        """
        return reduce(lambda pair, change: change.pair(row, pair), self.changes, self.pairs[row])

    def state(self) -> State:
        """Where a stream can go on."""
        return state_of(self.pairs)

    def restore(self, state: State) -> None:
        """Takes back what :meth:`state` gave."""
        restore_to(self.pairs, state)

    def prompt(self, row: int) -> str:
        """The prompt of one pair, which no change concerns; its images are not read."""
        return self.pairs.prompt(row)

    def images(self, row: int) -> Sequence[tuple[str, str]]:
        """Place and SHA-256 of both image files of a pair, as they are stored; nothing of sets that cannot tell."""
        own = getattr(self.pairs, "images", None)
        return [] if own is None else own(row)

    def content(self, row: int) -> str:
        """SHA-256 of all that the changed pair depends on; the row, too, since a change may."""
        labels = [change.label for change in self.changes]
        return hashlib.sha256(f"{labels} {row} {self.pairs.content(row)}".encode()).hexdigest()
