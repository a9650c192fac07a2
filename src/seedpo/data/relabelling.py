"""Labelled pairs whose label a reward gives anew, as published for SPO's preference model of SDXL."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import torch

from seedpo.errors import DataError
from seedpo.protocols import LabelledPair, PreferencePairs, Reward


class RelabelledPairs:
    """Pairs with the preferences of a reward: p = softmax of both scores, a tie unless p_1 and p_2 differ enough.

    SPO's code scores the images as they are stored; here they are scored in the size that is trained on.

    Args:
        pairs: the pairs; their own labels play no part.
        reward: the scorer; differences of its scores are log-odds.
        name: what the reward is called; the content hashes depend on it.
        gap: least difference of the two probabilities that makes a preference, 0 to 1; 0.1 as published.
    """

    def __init__(self, pairs: PreferencePairs, reward: Reward, *, name: str, gap: float) -> None:
        self.pairs = pairs
        self.reward = reward
        self.name = name
        self.gap = gap
        self.sequential = pairs.sequential

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, row: int) -> LabelledPair:
        """One pair, the image that the reward prefers first.

        Raises:
            DataError: if it cannot be read, or a score is not finite.
        """
        pair = self.pairs[row]
        scores = self.reward(torch.stack([pair.chosen, pair.rejected]), [pair.prompt] * 2).detach().double().cpu()
        if not torch.isfinite(scores).all():
            raise DataError(f"reward {self.name} gives pair {row} ({pair.prompt!r}) a score that is not finite")
        first, second = torch.softmax(scores, 0).tolist()
        if first - second > self.gap:
            return replace(pair, chosen_probability=1.0)
        if second - first > self.gap:
            return replace(pair, chosen=pair.rejected, rejected=pair.chosen, chosen_probability=1.0)
        return replace(pair, chosen_probability=0.5)

    def prompt(self, row: int) -> str:
        """What both images of a pair were made for."""
        return self.pairs.prompt(row)

    def content(self, row: int) -> str:
        """SHA-256 of all that the pair depends on, its new label too."""
        return hashlib.sha256(f"{self.name} {self.gap!r} {self.pairs.content(row)}".encode()).hexdigest()
