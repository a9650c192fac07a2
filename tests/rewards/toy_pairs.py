"""Pairs that a preference model can learn, without files: plain images of which the brighter one is preferred."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from seedpo.protocols import LabelledPair
from seedpo.rewards.preference_model import PreferenceModel
from tests.rewards.tiny_clip import tiny_config, tiny_model, tiny_tokenizer

PROMPTS = ["a red star", "a blue ring", "a green cross", "a pink circle"]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class BrightPairs:
    """Noisy plain images of 8 x 8 pixels; every ``tie_every``-th pair is a tie."""

    sequential = False

    def __init__(self, count: int, *, seed: int = 0, tie_every: int | None = None) -> None:
        generator = seeded(seed)
        level = torch.rand(count, 2, generator=generator).sort(1, descending=True).values * 0.8 + 0.1
        level[:, 0] += 0.1
        images = level[:, :, None, None, None] + 0.05 * torch.randn(count, 2, 3, 8, 8, generator=generator)
        self.images = images.clamp(0, 1)
        self.tie_every = tie_every
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self.images)

    def one_pass(self) -> range:
        return range(len(self))

    def __getitem__(self, row: int) -> LabelledPair:
        self.read.append(row)
        tied = self.tie_every is not None and row % self.tie_every == 0
        return LabelledPair(
            prompt=self.prompt(row),
            chosen=self.images[row, 0],
            rejected=self.images[row, 1],
            chosen_probability=0.5 if tied else 1.0,
            original_size=(8, 8),
        )

    def prompt(self, row: int) -> str:
        return PROMPTS[row % len(PROMPTS)]

    def prompts(self, rows: Sequence[int]) -> list[str]:
        return [self.prompt(row) for row in rows]

    def content(self, row: int) -> str:
        return f"pair {row}"


def tiny_preference_model(folder: Path, *, step_aware: bool = True, seed: int = 1) -> PreferenceModel:
    """A model of a few thousand weights for images of 8 x 8 pixels."""
    from transformers import CLIPModel

    tokenizer = tiny_tokenizer(folder)
    if step_aware:
        return PreferenceModel(tiny_model(tokenizer, seed=seed), tokenizer)
    torch.manual_seed(seed)
    return PreferenceModel(CLIPModel(tiny_config(tokenizer)), tokenizer)
