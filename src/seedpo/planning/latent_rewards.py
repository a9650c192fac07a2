"""DiNa-LRM's network on the meta device: blocks of a Stable Diffusion 3.5 whose configuration is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seedpo.errors import DataError
from seedpo.models.families import encode_pixels
from seedpo.planning.configurations import pipeline_configuration
from seedpo.planning.networks import build_autoencoder, build_network, build_text_encoders
from seedpo.rewards.dina_lrm import NAME, PUBLISHED, TEXT_TOKENS, base_of, head_form, model_settings
from seedpo.rewards.dina_lrm_model import DinaRewardModel, EmbeddedPrompts
from seedpo.rewards.latent_scorer import USUAL_SIZE
from seedpo.rewards.networks import RewardNetwork, on_meta


def dina_network(place: str | None = None) -> RewardNetwork:
    """DiNa-LRM without weights, with the autoencoder that finished images need; they count as 1024 x 1024 pixels.

    Args:
        place: folder of a model, whose configurations are read; ``None``, or a name on the hub: the published ones.

    Raises:
        ConfigError: if the configuration of its base model is unknown.
        DataError: if a configuration cannot be read, or is of another model.
    """
    folder = None if place is None or not Path(place).is_dir() else Path(place)
    settings = dict(PUBLISHED) if folder is None else model_settings(folder / "config.json")
    base = pipeline_configuration(settings["backbone_model_id"] if folder is None else base_of(folder, settings))
    if "text_encoder_3" not in base.parts or base.parts.get("transformer", {}).get("_class_name") != _CLASS:
        raise DataError(f"reward {NAME}: {base.origin} is no Stable Diffusion 3 or 3.5 with all text encoders")

    def build() -> nn.Module:
        transformer = build_network(base)
        form = head_form(settings, blocks=transformer.config.num_layers, origin=NAME)
        encoders = build_text_encoders(base)
        model = DinaRewardModel(transformer, list(encoders.values()), form)
        return nn.ModuleDict({"reward": model, "autoencoder": build_autoencoder(base.parts["vae"], base.origin)})

    network = on_meta(build)
    model, vae = network["reward"], network["autoencoder"]

    def images(count: int) -> Tensor:
        pixels = torch.empty(count, 3, USUAL_SIZE, USUAL_SIZE, device="meta", dtype=vae.dtype)
        return _scored(model, encode_pixels(vae, pixels)[0])

    return RewardNetwork(
        network=network,
        images=images,
        prompts=lambda count: model.read(*_no_tokens(model, count)),
        latents=lambda latents: _scored(model, latents),
    )


_CLASS = "SD3Transformer2DModel"


def _clip_tokens(model: DinaRewardModel) -> int:
    encoder: Any = model.text_encoders[0]
    return int(encoder.config.max_position_embeddings)


def _no_tokens(model: DinaRewardModel, count: int) -> list[Tensor]:
    lengths = (_clip_tokens(model), _clip_tokens(model), TEXT_TOKENS)
    return [torch.zeros(count, length, dtype=torch.int64, device="meta") for length in lengths]


def _scored(model: DinaRewardModel, latents: Tensor) -> Tensor:
    """Scores of latents on the device ``meta``, under prompts that are read already."""
    config: Any = model.transformer.config
    count, length = len(latents), _clip_tokens(model) + TEXT_TOKENS
    prompts = EmbeddedPrompts(
        states=latents.new_empty(count, length, config.caption_projection_dim, dtype=model.dtype),
        pooled=latents.new_empty(count, config.pooled_projection_dim, dtype=model.dtype),
    )
    return model.scores_of_noisy(latents, latents.new_ones(count), prompts)
