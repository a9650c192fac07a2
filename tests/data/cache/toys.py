"""Labelled pairs that are formulas, and a model that counts what it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from seedpo.models.pipelines.stable_diffusion import TextConditioning
from seedpo.protocols import LabelledPair
from tests.methods.sources.toys import ToyDenoiser

PAIRS = 7


def image(value: int) -> Tensor:
    """Of a gray that is brighter at the right."""
    return (value + torch.linspace(0, 5, 32).repeat(3, 32, 1)) / 255


@dataclass
class ToyPairs:
    """Row i holds images of about gray 10 i + 1 and 10 i + 2; every second pair is a tie; prompts repeat."""

    count: int = PAIRS
    version: str = "1"
    sequential: bool = False
    asked: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> LabelledPair:
        self.asked.append(row)
        return LabelledPair(
            prompt=self.prompt(row),
            chosen=image(10 * row + 1),
            rejected=image(10 * row + 2),
            chosen_probability=0.5 if row % 2 else 1.0,
            original_size=(40 + row, 64),
            crop=(row, 2),
        )

    def prompt(self, row: int) -> str:
        return f"prompt {row % 3}"

    def content(self, row: int) -> str:
        return f"{self.version} {row}"


@dataclass
class ToyModel(ToyDenoiser):
    """Counts embedded prompts too, and remembers what it released."""

    embedded: int = 0
    released: list[str] = field(default_factory=list)
    sizes: bool = False

    def encode_prompts(self, prompts: Sequence[str]) -> TextConditioning:
        self.embedded += len(prompts)
        conditioning = super().encode_prompts(prompts)
        if not self.sizes:
            return conditioning
        return TextConditioning(
            prompt_embeds=conditioning.prompt_embeds,
            pooled_prompt_embeds=conditioning.prompt_embeds[:, 0],
            time_ids=torch.zeros(len(prompts), 6),
        )

    def release(self, *parts: str) -> None:
        self.released += parts
