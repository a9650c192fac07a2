"""Pairs from a fixed set of labelled images (Diffusion-DPO)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from seedpo.core.types import ImagePairs
from seedpo.protocols import Denoiser, State
from seedpo.sources.stream import IndexStream


class PreferencePairs(Protocol):
    """A set of labelled pairs without ties."""

    def __len__(self) -> int:
        """Number of pairs."""

    def __getitem__(self, row: int) -> tuple[str, Tensor, Tensor]:
        """Prompt, preferred image and other image, (3, H, W) in [0, 1]."""


class OfflinePairs:
    """Batches of a pair set, shuffled in every epoch; each pair's latents are encoded once and kept.

    Args:
        pairs: the labelled images.
        model: encodes images and prompts.
        batch_size: pairs per batch.
        seed: seed of the shuffles.
        rank: number of this process.
        world: number of processes.
    """

    def __init__(
        self, pairs: PreferencePairs, model: Denoiser, *, batch_size: int, seed: int, rank: int = 0, world: int = 1
    ) -> None:
        self.pairs = pairs
        self.model = model
        self.batch_size = batch_size
        self._stream = IndexStream(len(pairs), seed=seed, rank=rank, world=world)
        self._latents: dict[int, Tensor] = {}

    def next_batch(self) -> ImagePairs:
        """The next pairs as latents."""
        rows = self._stream.take(self.batch_size)
        prompts = [self.pairs[row][0] for row in rows]
        missing = [row for row in dict.fromkeys(rows) if row not in self._latents]
        if missing:
            images = torch.stack([image for row in missing for image in self.pairs[row][1:]])
            for row, latents in zip(missing, torch.split(self.model.encode_images(images).cpu(), 2), strict=True):
                self._latents[row] = latents
        latents = torch.stack([self._latents[row] for row in rows]).to(self.model.device)
        return ImagePairs(
            chosen_latents=latents[:, 0],
            rejected_latents=latents[:, 1],
            conditioning=self.model.encode_prompts(prompts),
        )

    def metrics(self) -> Mapping[str, float]:
        """Nothing is observed."""
        return {}

    def state(self) -> State:
        """The position in the set."""
        return self._stream.state()

    def restore(self, state: State) -> None:
        """Goes back to a position."""
        self._stream.restore(state)
