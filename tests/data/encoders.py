"""Pairs as a source takes them, without a model."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from seedpo.core.types import ImagePairs
from seedpo.models.pipelines.stable_diffusion import TextConditioning
from seedpo.protocols import PreferencePairs


class NumberedPairs:
    """Latents that hold the number in each pair's prompt, "prompt 3"; negative where it is mirrored."""

    def __init__(self, pairs: PreferencePairs) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def encode(self, rows: Sequence[int], mirrored: Sequence[bool], emptied: Sequence[bool] = ()) -> ImagePairs:
        numbers = [float(self.pairs[row].prompt.removeprefix("prompt ")) for row in rows]
        values = torch.tensor([-one if flip else one for one, flip in zip(numbers, mirrored, strict=True)])
        latents = values.view(-1, 1, 1, 1)
        return ImagePairs(
            chosen_latents=latents,
            rejected_latents=latents,
            conditioning=TextConditioning(prompt_embeds=latents[:, 0]),
            chosen_probability=torch.ones(len(rows)),
        )


def prompts_of(batch: ImagePairs) -> list[int]:
    return [int(value) for value in batch.chosen_latents.flatten().tolist()]
