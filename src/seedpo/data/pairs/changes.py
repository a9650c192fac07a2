"""Labelled pairs with something changed on the way: another label, another size."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch import Tensor

from seedpo.data.pairs.readers import expect
from seedpo.data.pairs.views import PairsView
from seedpo.data.text import shown
from seedpo.errors import DataError
from seedpo.protocols import LabelledPair, PreferencePairs, Reward


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
        chosen, rejected = pair.images
        first, second = torch.softmax(_scores(reward, name, row, pair), 0).tolist()
        if first - second > gap:
            return replace(pair, chosen_probability=1.0)
        if second - first > gap:
            return replace(pair, chosen=rejected, rejected=chosen, chosen_probability=1.0)
        return replace(pair, chosen_probability=0.5)

    return Change(label=f"relabel={name} {gap!r}", pair=pair)


def with_gap(reward: Reward, *, name: str, definition: str = "") -> Change:
    """The gap of a reward between both images of a pair, which keeps its label.

    The images are scored in the size that is trained on, each pair by itself, so that the gap does not depend on the
    rest of a batch.

    Args:
        reward: the scorer.
        name: what the reward is called.
        definition: what else tells it from others of its name.
    """

    def pair(row: int, pair: LabelledPair) -> LabelledPair:
        chosen, rejected = _scores(reward, name, row, pair).tolist()
        return replace(pair, gap=chosen - rejected)

    return Change(label=f"gap={name}{definition}", pair=pair)


@torch.no_grad()
def _scores(reward: Reward, name: str, row: int, pair: LabelledPair) -> Tensor:
    """Scores of both images, (2,) float64 on the CPU."""
    scores = reward(torch.stack(pair.images), [pair.prompt] * 2).detach().double().cpu()
    if not torch.isfinite(scores).all():
        raise DataError(f"reward {name} gives pair {row} ({shown(pair.prompt)}) a score that is not finite")
    return scores


class ChangedPairs(PairsView):
    """A set of pairs, each changed when it is read.

    Args:
        pairs: the labelled pairs.
        changes: what is done, in this order.
    """

    def __init__(self, pairs: PreferencePairs, changes: Sequence[Change]) -> None:
        super().__init__(pairs)
        self.changes = changes

    def expect(self, rows: Sequence[int]) -> None:
        """Says which pairs are asked for next."""
        expect(self.pairs, rows)

    def __getitem__(self, row: int) -> LabelledPair:
        """One pair, changed.

        Raises:
            DataError: if it cannot be read or changed.
        """
        return reduce(lambda pair, change: change.pair(row, pair), self.changes, self.pairs[row])

    def prompt(self, row: int) -> str:
        """The prompt of one pair, which no change concerns; its images are not read."""
        return self.pairs.prompt(row)

    def content(self, row: int) -> str:
        """SHA-256 of all that the changed pair depends on; the row, too, since a change may."""
        labels = [change.label for change in self.changes]
        return hashlib.sha256(f"{labels} {row} {self.pairs.content(row)}".encode()).hexdigest()
