"""Pairs encoded when they are first asked for, and kept in memory."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from seedpo.core.types import Conditioning, ImagePairs
from seedpo.protocols import Denoiser, LabelledPair, PreferencePairs

logger = logging.getLogger(__name__)

MEMORY = 8 * 2**30
"""Bytes of latents that one process keeps; what comes later is encoded at every visit."""


@torch.no_grad()
def encode_pair(pair: LabelledPair, model: Denoiser, *, mirrored: bool) -> Tensor:
    """Latents of both images, (2, C, H, W), on the CPU.

    A pair is encoded by itself, so that its numbers do not depend on what else is in a batch.
    """
    images = torch.stack([pair.chosen, pair.rejected])
    return model.encode_images(images.flip(-1) if mirrored else images).cpu()


def size_ids(pair: LabelledPair) -> Tensor:
    """What SDXL is told of an image's size, in diffusers' order, (6,): original, crop (above, left), target."""
    return torch.tensor([*pair.original_size, *pair.crop, *pair.chosen.shape[-2:]], dtype=torch.float32)


def with_sizes(conditioning: Conditioning, sizes: Sequence[Tensor]) -> Conditioning:
    """The conditioning with the sizes of the images at hand, for models that take them."""
    if conditioning.time_ids is None:
        return conditioning
    return Conditioning(
        prompt_embeds=conditioning.prompt_embeds,
        pooled_prompt_embeds=conditioning.pooled_prompt_embeds,
        time_ids=torch.stack(list(sizes)).to(conditioning.time_ids),
    )


def joined(
    latents: Sequence[Tensor],
    conditioning: Conditioning,
    *,
    chosen_probability: Sequence[float],
    sizes: Sequence[Tensor],
    device: torch.device,
) -> ImagePairs:
    """A batch of pairs from the latents (2, C, H, W) of each."""
    both = torch.stack(list(latents)).to(device)
    return ImagePairs(
        chosen_latents=both[:, 0],
        rejected_latents=both[:, 1],
        conditioning=with_sizes(conditioning, sizes),
        chosen_probability=torch.tensor(chosen_probability, dtype=torch.float32, device=device),
    )


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """What is left of a pair once its images are encoded."""

    latents: Tensor
    prompt: str
    chosen_probability: float
    sizes: Tensor


class LivePairs:
    """Latents of each pair encoded once and kept in memory; prompts embedded at every visit.

    Of pairs that come from a stream, and so never again, nothing is kept.

    Args:
        pairs: the labelled images.
        model: encodes images and prompts.
    """

    def __init__(self, pairs: PreferencePairs, model: Denoiser) -> None:
        self.pairs = pairs
        self.model = model
        self._kept: dict[tuple[int, bool], _Kept] = {}
        self._bytes = 0
        self._come_again = not getattr(pairs, "sequential", False)

    def __len__(self) -> int:
        return len(self.pairs)

    def encode(self, rows: Sequence[int], mirrored: Sequence[bool]) -> ImagePairs:
        """Pairs ready for training; both images of a pair are mirrored left to right where ``mirrored`` says so.

        Raises:
            DataError: if a row cannot be read.
        """
        kept = [self._one(row, mirror) for row, mirror in zip(rows, mirrored, strict=True)]
        return joined(
            [one.latents for one in kept],
            self.model.encode_prompts([one.prompt for one in kept]),
            chosen_probability=[one.chosen_probability for one in kept],
            sizes=[one.sizes for one in kept],
            device=self.model.device,
        )

    def _one(self, row: int, mirrored: bool) -> _Kept:
        if (row, mirrored) in self._kept:
            return self._kept[row, mirrored]
        pair = self.pairs[row]
        one = _Kept(
            latents=encode_pair(pair, self.model, mirrored=mirrored),
            prompt=pair.prompt,
            chosen_probability=pair.chosen_probability,
            sizes=size_ids(pair),
        )
        if self._come_again and self._bytes < MEMORY:
            self._kept[row, mirrored] = one
            self._bytes += one.latents.nbytes
            if self._bytes >= MEMORY:
                logger.warning(
                    "latents fill %d GiB of memory; further pairs are encoded at every visit: set cache.folder to keep "
                    "them on the disk",
                    MEMORY >> 30,
                )
        return one
