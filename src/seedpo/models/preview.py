"""A small autoencoder that decodes previews: a tiny one (``AutoencoderTiny``, TAESD) or a smaller ``AutoencoderKL``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from safetensors import SafetensorError
from torch import Tensor

from seedpo.errors import ConfigError, DataError
from seedpo.models.denoiser import images_of
from seedpo.weights import align

_CLASSES: dict[str, Any] = {"AutoencoderTiny": AutoencoderTiny, "AutoencoderKL": AutoencoderKL}

LATENTS_PER_CALL = 8
"""Latents decoded at a time."""


def load_preview_decoder(
    name: str, *, channels: int, device: torch.device, dtype: torch.dtype = torch.float32, clamp: bool = True
) -> Callable[[Tensor], Tensor]:
    """A function from latents (B, C, H, W) to images (B, 3, height, width) in [0, 1], without gradient.

    Args:
        name: a folder in diffusers' format, or a hub id.
        channels: C of the policy's latents.
        device: where to decode.
        dtype: in which precision.
        clamp: whether images are clamped to [0, 1].

    Raises:
        DataError: if there is no such autoencoder, or it is of another class.
        ConfigError: if its latents have another number of channels than the policy's.
    """
    vae = _load(name).to(device=device, dtype=dtype).eval().requires_grad_(False)
    if vae.config.latent_channels != channels:
        raise ConfigError(
            f"preview_vae = {name}: its latents have {vae.config.latent_channels} channels, the model's {channels}; "
            "name the small autoencoder that was made for this model"
        )

    @torch.no_grad()
    def decode(latents: Tensor) -> Tensor:
        return images_of(vae, latents, rows=LATENTS_PER_CALL, clamp=clamp)

    return decode


def _load(name: str) -> Any:
    local = Path(name).is_dir()
    try:
        config = AutoencoderKL.load_config(name, local_files_only=local)
        vae = _CLASSES[config.get("_class_name", "")]
        return align(vae.from_pretrained(name, use_safetensors=True, local_files_only=local))
    except KeyError as error:
        raise DataError(f"preview_vae = {name}: {error} is not one of {', '.join(_CLASSES)}") from error
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"preview_vae = {name} cannot be loaded ({reason}); name a folder or hub id of an AutoencoderTiny, for "
            "example madebyollin/taesd (taesdxl, taesd3, taef1 for SDXL, SD3 and FLUX.1)"
        ) from error
