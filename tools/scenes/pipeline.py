"""From a seed to the folders of the embedded pipelines, part by part."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    ModelMixin,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from tools.scenes.autoencoder import practice_latents, train_autoencoder
from tools.scenes.components import build_flow_scheduler, build_scheduler, build_tokenizer
from tools.scenes.denoiser import FINISH, POOL_SIZE, PRACTICE, Phase, train_denoiser
from tools.scenes.flow import PHASES, FlowPhase, train_flow

PRACTICED = "practiced"
"""Folder of the UNet and text encoder between the two phases of their training."""


def build_autoencoder_part(folder: Path, *, steps: int = 3500, batch_size: int = 32, seed: int = 0) -> None:
    """Trains the autoencoder and writes it to ``folder/vae``."""
    train_autoencoder(steps=steps, batch_size=batch_size, seed=seed).half().save_pretrained(folder / "vae")


def build_practice_part(folder: Path, *, phase: Phase = PRACTICE, batch_size: int = 128, seed: int = 0) -> None:
    """Trains UNet and text encoder on practice drawings, for the autoencoder in ``folder/vae``."""
    autoencoder, tokenizer = _load_autoencoder(folder), build_tokenizer(folder / "tokenizer")
    unet, text_encoder = train_denoiser(autoencoder, tokenizer, phase, batch_size=batch_size, seed=seed)
    unet.half().save_pretrained(folder / PRACTICED / "unet")
    text_encoder.save_pretrained(folder / PRACTICED / "text_encoder")


def build_denoiser_part(folder: Path, *, phase: Phase = FINISH, batch_size: int = 128, seed: int = 0) -> None:
    """Goes on with the practised UNet and text encoder on the world's own drawings, and completes the pipeline."""
    autoencoder, tokenizer = _load_autoencoder(folder), build_tokenizer(folder / "tokenizer")
    start = (
        UNet2DConditionModel.from_pretrained(folder / PRACTICED / "unet", torch_dtype=torch.float32),
        CLIPTextModel.from_pretrained(folder / PRACTICED / "text_encoder"),
    )
    unet, text_encoder = train_denoiser(autoencoder, tokenizer, phase, start=start, batch_size=batch_size, seed=seed)
    save_pipeline(folder, autoencoder=autoencoder, unet=unet, text_encoder=text_encoder, tokenizer=tokenizer)


def save_pipeline(
    folder: Path,
    *,
    autoencoder: AutoencoderKL,
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
) -> None:
    """Writes a pipeline in diffusers' format, the large parts in half precision."""
    StableDiffusionPipeline(
        vae=_halved(autoencoder),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=_halved(unet),
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)


def build_flow_part(
    folder: Path,
    base: Path,
    *,
    phases: Sequence[FlowPhase] = PHASES,
    batch_size: int = 96,
    pool_size: int = POOL_SIZE,
    seed: int = 0,
) -> None:
    """Trains the flow-matching pipeline for the autoencoder in ``base/vae``, and writes it to ``folder``."""
    autoencoder, tokenizer = _load_autoencoder(base), build_tokenizer(folder / "tokenizer")
    latents = practice_latents(autoencoder, generator=torch.Generator().manual_seed(seed))
    autoencoder.register_to_config(shift_factor=latents.mean().item(), scaling_factor=1.0 / latents.std().item())
    transformer, encoders = train_flow(
        autoencoder, tokenizer, phases, batch_size=batch_size, pool_size=pool_size, seed=seed
    )
    save_flow_pipeline(
        folder, autoencoder=autoencoder, transformer=transformer, text_encoders=encoders, tokenizer=tokenizer
    )


def save_flow_pipeline(
    folder: Path,
    *,
    autoencoder: AutoencoderKL,
    transformer: SD3Transformer2DModel,
    text_encoders: Sequence[CLIPTextModelWithProjection],
    tokenizer: CLIPTokenizer,
) -> None:
    """Writes a pipeline of Stable Diffusion 3 without T5, the large parts in half precision."""
    first, second = text_encoders
    StableDiffusion3Pipeline(
        vae=_halved(autoencoder),
        transformer=_halved(transformer),
        scheduler=build_flow_scheduler(),
        text_encoder=first,
        text_encoder_2=second,
        text_encoder_3=None,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        tokenizer_3=None,
    ).save_pretrained(folder)


def _load_autoencoder(folder: Path) -> AutoencoderKL:
    autoencoder = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32)
    return autoencoder.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def _halved(trained: ModelMixin) -> ModelMixin:
    """A copy of a model in half precision, which does not tell where the model was loaded from."""
    config = {name: value for name, value in trained.config.items() if name != "_name_or_path"}
    copy = type(trained).from_config(config)
    copy.load_state_dict(trained.state_dict())
    return copy.half()
