"""Image embeddings of a CLIP (arXiv 2103.00020), prepared as transformers' CLIPImageProcessor prepares PIL images."""

from __future__ import annotations

from functools import cache, partial
from typing import Self

import torch
from torch import Tensor
from transformers import CLIPModel

from seedpo.metrics.features.batches import features_in_batches
from seedpo.protocols import Images
from seedpo.rewards.checkpoints import located
from seedpo.rewards.clip import CLIP_FILES, CLIP_L, image_embeds, load_clip
from seedpo.rewards.preprocessing import clip_pixels


class ClipFeatures:
    """Projected image embeddings of length 1.

    Args:
        model: the network; its text tower is dropped.
        name: of the features, for errors.
    """

    def __init__(self, model: CLIPModel, *, name: str = "clip") -> None:
        self.model = model.eval().requires_grad_(False)
        self.name = name
        del self.model.text_model

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Moves the network to a device and a dtype; `None` leaves it as it is."""
        self.model.to(device=device, dtype=dtype)
        return self

    def __call__(self, images: Images) -> Tensor:
        """Vectors (B, D) float32 of length 1, on the CPU, of B images.

        Raises:
            DataError: if one is not an image, or a vector is not finite.
        """
        size = self.model.config.vision_config.image_size
        prepare = partial(clip_pixels, size=size, crop="transformers")
        return features_in_batches(
            images,
            lambda pixels: image_embeds(self.model, prepare(pixels)),
            name=self.name,
            device=self.model.device,
        )


@cache
def clip(place: str | None = None) -> ClipFeatures:
    """Embeddings by OpenAI's CLIP-L/14, loaded once per process; 1.7 GB from the hub unless a place is given.

    Args:
        place: another CLIP in transformers' format: folder, or ``owner/name[@revision]`` on the hub.

    Raises:
        DataError: if it cannot be loaded, or is not a CLIP.
    """
    folder = located("clip", place, repository=CLIP_L, files=CLIP_FILES, kind="features", usage="METRIC@FOLDER")
    return ClipFeatures(load_clip("clip", folder, kind="features", as_what="a CLIP"))
