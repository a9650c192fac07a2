"""Class tokens of DINOv2 (arXiv 2304.07193), through transformers' Dinov2Model."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import Dinov2Model

from seedpo.documents import UNREADABLE, read_json
from seedpo.errors import DataError
from seedpo.files import require_regular
from seedpo.metrics.features.batches import features_in_batches
from seedpo.protocols import Images
from seedpo.rewards.checkpoints import located
from seedpo.rewards.preprocessing import clip_pixels, pil_resize, shorter_side
from seedpo.weights import align

DINO = "facebook/dinov2-small"
"""DINOv2-S/14 on the hub."""

FILES = ("config.json", "preprocessor_config.json", "model*.safetensors*")

BICUBIC = 3
"""Pillow's number of the filter."""


class DinoFeatures:
    """The class token after the last normalisation, which transformers calls ``pooler_output``; of any length.

    Images are prepared as the checkpoint's own ``preprocessor_config.json`` says and transformers' BitImageProcessor
    does: shorter side resized (256 pixels, bicubic, bytes), centre cropped (224), normalised (ImageNet).

    Args:
        model: the network.
        resized: length of the shorter side, in pixels.
        crop: height and width of the centre, in pixels.
        mean: subtracted from the channels, in [0, 1].
        std: what the channels are then divided by.
    """

    def __init__(
        self,
        model: Dinov2Model,
        *,
        resized: int,
        crop: int,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.resized, self.crop, self.mean, self.std = resized, crop, mean, std

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Moves the network to a device and a dtype; `None` leaves it as it is."""
        self.model.to(device=device, dtype=dtype)
        return self

    def __call__(self, images: Images) -> Tensor:
        """Vectors (B, D) float32, on the CPU, of B images.

        Raises:
            DataError: if one is not an image, or a vector is not finite.
        """
        return features_in_batches(images, self._embed, name="dino", device=self.model.device)

    def pixels(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) uint8 as the network's input, (B, 3, crop, crop) float32."""
        resized = pil_resize(images, shorter_side(images.shape[-2], images.shape[-1], self.resized))
        above, left = ((length - self.crop) // 2 for length in resized.shape[-2:])
        middle = resized[..., above : above + self.crop, left : left + self.crop]
        return clip_pixels(middle, self.crop, crop="transformers", mean=self.mean, std=self.std)

    def _embed(self, images: Tensor) -> Tensor:
        tokens: Tensor = self.model(pixel_values=self.pixels(images).to(self.model.dtype)).pooler_output
        return tokens


@cache
def dino(place: str | None = None) -> DinoFeatures:
    """DINOv2-S/14, loaded once per process; about 90 MB from the hub unless a place is given. safetensors only.

    Args:
        place: another DINOv2 in transformers' format: folder, or ``owner/name[@revision]`` on the hub.

    Raises:
        DataError: if it cannot be loaded, is not a DINOv2, or prepares images in another way than by resizing,
            cropping the centre and normalising.
    """
    folder = located("dino", place, repository=DINO, files=FILES, kind="features", usage="METRIC@FOLDER")
    preparation = _preparation(folder / "preprocessor_config.json")
    try:
        require_regular(folder)
        model, report = Dinov2Model.from_pretrained(folder, use_safetensors=True, output_loading_info=True)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        why = " ".join(str(error).split())
        raise DataError(f"features dino cannot be loaded as a DINOv2: {why}; copy its files again") from error
    if missing := report["missing_keys"]:
        raise DataError(f"features dino lacks weights, for example {min(missing)!r}; copy its files again")
    return DinoFeatures(align(model.float()), **preparation)


def _preparation(path: Path) -> dict[str, Any]:
    """Arguments of :class:`DinoFeatures` from a ``preprocessor_config.json``."""
    try:
        settings = read_json(path)
        resized, crop = int(settings["size"]["shortest_edge"]), settings["crop_size"]
        mean, std = (tuple(float(value) for value in settings[key]) for key in ("image_mean", "image_std"))
    except UNREADABLE as error:
        raise DataError(f"{path} does not say how images are resized, cropped and normalised; copy it again") from error
    if (
        not crop.get("height") == crop.get("width") <= resized
        or len(mean) != 3
        or len(std) != 3
        or settings.get("resample", BICUBIC) != BICUBIC
    ):
        raise DataError(
            f"{path} prepares images in another way than DINOv2, bicubic with a square centre; name the folder of a "
            "DINOv2"
        )
    return {"resized": resized, "crop": int(crop["height"]), "mean": mean, "std": std}
