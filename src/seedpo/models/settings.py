"""The keys that name a model and say how it is loaded and what of it is trained."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from seedpo.settings import NetworkSettings


class ModelSettings(NetworkSettings):
    """A diffusion model, and what of it is trained."""

    model: str = "scenes"
    """Model of the Stable Diffusion 1, 2 or XL family: a registered name, a folder with a diffusers pipeline, a
    single-file `.safetensors` checkpoint, or `owner/name[@revision]` on the hub."""
    vae: str | None = None
    """Another autoencoder: a folder or `owner/name[@revision]`, for SDXL for example `madebyollin/sdxl-vae-fp16-fix`,
    which may run in half precision; none: the model's own."""
    single_file_config: str | None = None
    """Folder (or hub id) of a diffusers pipeline with the architecture, tokenizers and noise schedule of a single-file
    checkpoint; none: diffusers' choice, fetched from the hub. Without a single-file checkpoint it does nothing."""
    resolution: int | None = Field(None, ge=8)
    """Height and width of images in pixels, a multiple of 8 for Stable Diffusion; none: the model's own."""
    adapter: Literal["lora", "full"] = "lora"
    """`lora` trains an adapter, whose absence is the reference; `full` trains the network beside a frozen copy."""
    lora_rank: int = Field(4, ge=1)
    """Rank of the adapter; its alpha equals its rank."""
    gradient_checkpointing: bool = False
    """Whether activations are computed again in the backward pass: far less memory, about a third more time."""
    compile: bool = False
    """Whether `torch.compile` translates the network: minutes at the start, faster steps afterwards."""

    @property
    def weights_folder(self) -> str:
        """Where the trained weights lie in the run folder at the end."""
        return {"lora": "adapter", "full": "unet"}[self.adapter]
