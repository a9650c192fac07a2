"""From a seed to the embedded pipeline's folder, in two resumable parts."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel

from seedpo.scenes.building.autoencoder import train_autoencoder
from seedpo.scenes.building.components import build_scheduler, build_tokenizer
from seedpo.scenes.building.denoiser import train_denoiser


def build_autoencoder_part(folder: Path, *, steps: int = 4000, batch_size: int = 32, seed: int = 0) -> None:
    """Trains the autoencoder and writes it to ``folder/vae``."""
    train_autoencoder(steps=steps, batch_size=batch_size, seed=seed).half().save_pretrained(folder / "vae")


def build_denoiser_part(folder: Path, *, steps: int = 4500, batch_size: int = 128, seed: int = 0) -> None:
    """Trains UNet and text encoder on the autoencoder in ``folder/vae`` and completes the pipeline there.

    Unfinished averages are written to ``folder/unfinished`` on the way.
    """
    autoencoder = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32)
    autoencoder.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    tokenizer = build_tokenizer(folder / "tokenizer")

    def save(unet: UNet2DConditionModel, text_encoder: CLIPTextModel, out: Path) -> None:
        StableDiffusionPipeline(
            vae=_stored(AutoencoderKL.from_config(autoencoder.config), autoencoder).half(),
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=_stored(UNet2DConditionModel.from_config(unet.config), unet).half(),
            scheduler=build_scheduler(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        ).save_pretrained(out)

    unet, text_encoder = train_denoiser(
        autoencoder,
        tokenizer,
        steps=steps,
        batch_size=batch_size,
        seed=seed,
        on_snapshot=lambda unet, text_encoder: save(unet, text_encoder, folder / "unfinished"),
    )
    save(unet, text_encoder, folder)


def _stored(copy: nn.Module, trained: nn.Module) -> nn.Module:
    """A copy with the trained weights, so that halving it leaves the trained model as it is."""
    copy.load_state_dict(trained.state_dict())
    return copy
