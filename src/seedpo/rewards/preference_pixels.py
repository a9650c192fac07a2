"""Labelled pairs as a plain preference model sees them: finished images, prepared for its vision tower."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from seedpo.core.types import Conditioning, ImagePairs
from seedpo.protocols import PreferencePairs
from seedpo.rewards.inputs import to_bytes
from seedpo.rewards.preprocessing import clip_pixels


class PixelPairs:
    """Pairs whose ``latents`` are prepared pixels (3, S, S): a model of finished images has no other latent space.

    They are prepared at every visit, as the scorer of finished images prepares them, and there is no embedded prompt.

    Args:
        pairs: the labelled images.
        size: height and width S of the model's images, in pixels.
    """

    def __init__(self, pairs: PreferencePairs, *, size: int) -> None:
        self.pairs = pairs
        self.size = size

    def __len__(self) -> int:
        return len(self.pairs)

    def encode(self, rows: Sequence[int], mirrored: Sequence[bool]) -> ImagePairs:
        """Pairs ready for training; both images of a pair are mirrored left to right where ``mirrored`` says so.

        Raises:
            DataError: if a row cannot be read.
        """
        read = [self.pairs[row] for row in rows]
        chosen = [self._prepared(pair.chosen, mirror) for pair, mirror in zip(read, mirrored, strict=True)]
        rejected = [self._prepared(pair.rejected, mirror) for pair, mirror in zip(read, mirrored, strict=True)]
        return ImagePairs(
            chosen_latents=torch.cat(chosen),
            rejected_latents=torch.cat(rejected),
            conditioning=Conditioning(prompt_embeds=torch.zeros(len(rows), 0, 0)),
            chosen_probability=torch.tensor([pair.chosen_probability for pair in read]),
        )

    def _prepared(self, image: Tensor, mirrored: bool) -> Tensor:
        pixels = to_bytes((image.flip(-1) if mirrored else image)[None])
        return clip_pixels(pixels, self.size, crop="transformers")
