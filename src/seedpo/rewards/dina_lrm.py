"""DiNa-LRM (arXiv 2602.11146), read as published: a latent reward model for Stable Diffusion 3.5.

A published model is a folder::

    config.json                        {model: {...}, training: {...}}: blocks, head, LoRA, name of the base model
    checkpoint/backbone_lora/          adapter_config.json and adapter_model.safetensors, as peft saves them
    checkpoint/rm_head.pt              tensors of the head; rm_head.safetensors in its place is read, too

Transformer, text encoders, tokenizers, scheduler and autoencoder are those of the base model: a pipeline in the folder
``base`` beside ``config.json``, or else the ``backbone_model_id`` of the configuration. The LoRA is merged.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seedpo.errors import DataError
from seedpo.models.families import family_of
from seedpo.models.loading import load_pipeline
from seedpo.models.pipelines.parts import token_ids
from seedpo.rewards.checkpoints import fill, located, some
from seedpo.rewards.clip import read_configuration
from seedpo.rewards.dina_lrm_model import CLEAN_LEVEL, DinaRewardModel, HeadForm
from seedpo.rewards.latent_scorer import FlowLatentSpace, LatentScorer
from seedpo.weights import read_weights

NAME = "dina-lrm"

REPOSITORY = "liuhuohuo/DiNa-LRM-SD35M-12layers"
"""Of the published model on the hub."""

BASE = "base"
"""Folder beside the configuration where the base model may lie."""

PUBLISHED: Mapping[str, Any] = {
    "backbone_model_id": "stabilityai/stable-diffusion-3.5-medium",
    "num_transformer_layers": 12,
    "use_lora": True,
    "visual_head_idx": [4, 8, 12],
    "text_head_idx": [4, 8, 12],
    "reward_head": {"num_queries": 4, "num_attn_heads": 8, "width": -1, "use_proj_in": False},
}
"""The part ``model`` of the configuration that the authors train with."""

TEXT_TOKENS = 256
"""Of the T5 in the authors' examples; they train with 128."""

_HEAD_SIZES = {"width": -1, "num_queries": 4, "num_attn_heads": 8}
"""Of the head, with the authors' defaults."""

_ADAPTER = "checkpoint/backbone_lora"
_LORA_PREFIX = "base_model.model."
_PLAIN_LORA = {"use_dora": False, "rank_pattern": {}, "alpha_pattern": {}, "bias": "none", "fan_in_fan_out": False}
"""What a LoRA must say, if anything, for the product of its factors to be all that it adds."""


@cache
def dina_lrm(place: str | None = None) -> LatentScorer:
    """The latent reward model for Stable Diffusion 3.5, loaded once per process.

    Args:
        place: folder with the files of the published model, or ``owner/name[@revision]`` on the hub.

    Raises:
        DataError: if it cannot be loaded; the message names files, keys or tensors.
    """
    files = ["config.json", "checkpoint/rm_head.*"]
    folder = located(NAME, place, repository=REPOSITORY, files=files, optional=[f"{_ADAPTER}/adapter_*"])
    settings = model_settings(folder / "config.json")
    base = load_pipeline(base_of(folder, settings))
    if family_of(base).network != "transformer" or type(base).__name__ != "StableDiffusion3Pipeline":
        raise DataError(f"reward {NAME}: its base model is a {type(base).__name__}; name a Stable Diffusion 3 or 3.5")
    if base.text_encoder_3 is None:
        raise DataError(f"reward {NAME}: its base model has no text_encoder_3 (T5), which it was trained with")
    form = head_form(settings, blocks=base.transformer.config.num_layers, origin=folder / "config.json")
    if settings["use_lora"]:
        merge_lora(base.transformer, folder / _ADAPTER)
    sigmas = base.scheduler.sigmas
    with torch.device("meta"):  # no time is spent on random weights
        model = DinaRewardModel(
            base.transformer.float(),
            [encoder.float() for encoder in (base.text_encoder, base.text_encoder_2, base.text_encoder_3)],
            form,
            clean_level=float(sigmas[(sigmas - CLEAN_LEVEL).abs().argmin()]),
        )
    head = sorted((folder / "checkpoint").glob("rm_head.*"))[-1]  # .safetensors before .pt
    fill(model.reward_head, read_weights(head), origin=head)
    lengths = (base.tokenizer_max_length, base.tokenizer_max_length, TEXT_TOKENS)
    tokenizers = (base.tokenizer, base.tokenizer_2, base.tokenizer_3)
    transformer, vae = base.transformer.config, base.vae.float()
    return LatentScorer(
        model,
        lambda prompt: [
            token_ids(tokenizer, [prompt], length) for tokenizer, length in zip(tokenizers, lengths, strict=True)
        ],
        space=FlowLatentSpace(
            channels=transformer.in_channels,
            scaling_factor=vae.config.scaling_factor,
            shift_factor=vae.config.get("shift_factor") or 0.0,
            cells=transformer.patch_size,
            patches=transformer.pos_embed_max_size,
        ),
        autoencoder=lambda: vae.eval().requires_grad_(False),
    )


def base_of(folder: Path, settings: Mapping[str, Any]) -> str:
    """Place of the base model: the folder beside the configuration, or else what this names."""
    own = folder / BASE
    return str(own) if own.is_dir() else str(settings["backbone_model_id"])


def model_settings(file: Path) -> dict[str, Any]:
    """The part ``model`` of a configuration.

    Raises:
        DataError: if it is missing, lacks a key, or is of a model that is not read here; the message names the key.
    """
    content = read_configuration(file)
    settings, training = content.get("model"), content.get("training") or {}
    if not isinstance(settings, dict) or not isinstance(training, dict):
        raise DataError(f"{file} has no part model; is it the configuration of a DiNa-LRM?")
    if missing := [key for key in PUBLISHED if key not in settings]:
        raise DataError(f"{file}: the part model lacks {some(missing)}; copy the file again")
    refused = {
        "model.use_logistic": (settings.get("use_logistic", False), "the curve's constants are not in the checkpoint"),
        "model.freeze_backbone = false without use_lora": (
            not settings["use_lora"] and not settings.get("freeze_backbone", False),
            "a checkpoint of the whole network is not read",
        ),
        "training.add_noise = false": (not training.get("add_noise", True), "it cannot score noisy latents"),
    }
    for key, (value, reason) in refused.items():
        if value:
            raise DataError(f"{file}: {key}: {reason}; name the published model {REPOSITORY}, or one like it")
    return settings


def head_form(settings: Mapping[str, Any], *, blocks: int, origin: str | Path) -> HeadForm:
    """Blocks and head that the part ``model`` of a configuration describes.

    Args:
        settings: the part.
        blocks: of the whole transformer.
        origin: of the settings, for errors.

    Raises:
        DataError: if a number is none or out of range; the message names the key.
    """
    head = settings["reward_head"]
    if not isinstance(head, dict) or head.get("out_dim", 1) != 1:
        raise DataError(
            f"{origin}: model.reward_head must be the settings of a head with out_dim 1; copy the file again"
        )
    count = settings["num_transformer_layers"]
    if type(count) is not int or not 0 < count < blocks:
        raise DataError(f"{origin}: model.num_transformer_layers = {count} must lie in 1 to {blocks - 1}")
    read = {}
    for key in ("visual_head_idx", "text_head_idx"):
        numbers = settings[key]
        if not isinstance(numbers, list) or not numbers or any(number not in range(count + 1) for number in numbers):
            raise DataError(f"{origin}: model.{key} = {numbers} must be numbers of blocks, 0 to {count}")
        read[key] = tuple(sorted(set(numbers)))
    width, queries, heads = (head.get(key, usual) for key, usual in _HEAD_SIZES.items())
    for key, value in (("num_queries", queries), ("num_attn_heads", heads)):
        if type(value) is not int or value < 1:
            raise DataError(f"{origin}: model.reward_head.{key} = {value} must be a whole number of at least 1")
    if type(width) is not int or (width != -1 and (width < 4 or width % heads)):
        raise DataError(f"{origin}: model.reward_head.width = {width} must be a multiple of num_attn_heads, or -1")
    return HeadForm(
        blocks=count,
        image_blocks=read["visual_head_idx"],
        text_blocks=read["text_head_idx"],
        width=None if width == -1 else width,
        queries=queries,
        heads=heads,
        projected=bool(head.get("use_proj_in", False)),
    )


@torch.no_grad()
def merge_lora(network: Any, folder: Path) -> None:
    """Adds a LoRA that peft saved to the weights of a network, in place: W + alpha / r (B A).

    Raises:
        DataError: if a file is missing or broken, or the LoRA is of another kind or network.
    """
    file = folder / "adapter_config.json"
    if not file.is_file():
        raise DataError(f"{file} is missing; copy the folder {folder.name} of the published model there")
    config = read_configuration(file)
    for key, plain in _PLAIN_LORA.items():
        if config.get(key) not in (None, plain):
            raise DataError(f"{file}: {key} = {config[key]} is of another kind than DiNa-LRM's LoRA; copy it again")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float):
        raise DataError(f"{file}: r = {rank} and lora_alpha = {alpha} must be the LoRA's numbers; copy it again")
    scale = alpha / (rank**0.5 if config.get("use_rslora") else rank)
    weights_file = next(
        (folder / name for name in ("adapter_model.safetensors", "adapter_model.bin") if (folder / name).is_file()),
        folder / "adapter_model.safetensors",
    )
    factors = read_weights(weights_file)
    for layer, (down, up) in _layers(factors, weights_file).items():
        weight = _weight(network, layer)
        if weight is None or (len(up), down.shape[1]) != tuple(weight.shape) or len(down) != up.shape[1]:
            raise DataError(
                f"{weights_file} does not fit the base model: its LoRA of {layer} has shapes {tuple(down.shape)} and "
                f"{tuple(up.shape)}; is it the right base model?"
            )
        weight += scale * (up.to(weight) @ down.to(weight))


def _layers(factors: Mapping[str, Tensor], file: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Both factors of each layer.

    Raises:
        DataError: if there are none, or one of two is missing.
    """
    layers = sorted({name.removeprefix(_LORA_PREFIX).rpartition(".lora_")[0] for name in factors})
    pairs = {
        layer: [factors.get(f"{_LORA_PREFIX}{layer}.lora_{part}.weight") for part in "AB"] for layer in layers if layer
    }
    whole = {layer: (down, up) for layer, (down, up) in pairs.items() if down is not None and up is not None}
    if not whole or 2 * len(whole) != len(factors):
        strange = [name for name in factors if name.rpartition(".lora_")[0].removeprefix(_LORA_PREFIX) not in whole]
        raise DataError(f"{file} is not a LoRA as peft saves it: {some(strange) or 'it is empty'}; copy it again")
    return whole


def _weight(network: Any, layer: str) -> Tensor | None:
    try:
        weight = network.get_submodule(layer).weight
    except AttributeError:
        return None
    return weight if isinstance(weight, Tensor) and weight.ndim == 2 else None
