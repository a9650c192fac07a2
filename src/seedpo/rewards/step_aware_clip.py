"""A CLIP preference model that knows the time step: the step-aware preference model of SPO.

CLIP with adaptive layer norm on the time step in every vision block and before the projection (SPO, arXiv 2406.04314,
sec. 3.2); the parameter names are those of SPO's published checkpoints. At the start every modulation is the identity,
so that the model is the plain CLIP that it was made from. (The official code starts all six modulations at one, which
shifts and doubles the normalised activations.)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from diffusers.models.embeddings import get_timestep_embedding
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.functional import interpolate
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from seedpo.errors import DataError
from seedpo.rewards.text_embeddings import TextEmbeddings

TIME_CHANNELS = 256
"""Width of the sinusoidal embedding of the time step."""

TOKENIZER_FILES = ("tokenizer.json", "vocab.json")
"""Files of which a tokenizer's folder holds one or both."""

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class TimestepEmbedder(nn.Module):
    """Time steps (B,) as vectors (B, D)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(TIME_CHANNELS, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, timestep: Tensor) -> Tensor:
        """Embeds time steps."""
        embedded: Tensor = self.mlp(
            get_timestep_embedding(timestep, TIME_CHANNELS, flip_sin_to_cos=True, downscale_freq_shift=0)
        )
        return embedded


def _modulation(width: int, parts: int) -> nn.Sequential:
    """Shifts, scales and gates from an embedded time step."""
    return nn.Sequential(nn.SiLU(), nn.Linear(width, parts * width))


class StepAwareCLIP(CLIPModel):  # type: ignore[misc]
    """CLIP whose vision tower is modulated by the time step."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__(config)
        width = config.vision_config.hidden_size
        self.t_embedder = TimestepEmbedder(width)
        for layer in self.vision_model.encoder.layers:
            layer.adaLN_modulation = _modulation(width, 6)
        self.vision_model.adaLN_modulation = _modulation(width, 2)
        self.reset_modulation()

    @torch.no_grad()
    def reset_modulation(self) -> None:
        """Makes every modulation the identity: no shift, no scale, gates of one."""
        width = self.config.vision_config.hidden_size
        for layer in self.vision_model.encoder.layers:
            linear = layer.adaLN_modulation[-1]
            linear.weight.zero_()
            linear.bias.zero_()
            linear.bias.view(6, width)[[2, 5]] = 1.0
        self.vision_model.adaLN_modulation[-1].weight.zero_()
        self.vision_model.adaLN_modulation[-1].bias.zero_()

    def image_embeds(self, pixel_values: Tensor, timestep: Tensor) -> Tensor:
        """Normalised embeddings (B, D) of normalised images (B, 3, S, S) seen at time steps (B,)."""
        condition = self.t_embedder(timestep)
        tower = self.vision_model
        hidden = tower.pre_layrnorm(tower.embeddings(pixel_values))
        for layer in tower.encoder.layers:
            shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = layer.adaLN_modulation(condition)[:, None].chunk(
                6, dim=-1
            )
            attended = layer.self_attn(
                hidden_states=layer.layer_norm1(hidden) * (1.0 + scale) + shift, attention_mask=None
            )[0]
            hidden = hidden + gate * attended
            hidden = hidden + gate_mlp * layer.mlp(layer.layer_norm2(hidden) * (1.0 + scale_mlp) + shift_mlp)
        shift, scale = tower.adaLN_modulation(condition).chunk(2, dim=-1)
        pooled = tower.post_layernorm(hidden[:, 0]) * (1.0 + scale) + shift
        return nn.functional.normalize(self.visual_projection(pooled), dim=-1)

    def text_embeds(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Normalised embeddings (B, D) of token ids (B, L)."""
        pooled: Tensor = self.text_model(input_ids=input_ids, attention_mask=attention_mask).pooler_output
        return nn.functional.normalize(self.text_projection(pooled), dim=-1)

    def preference_logits(self, pixel_values: Tensor, timestep: Tensor, text_embeds: Tensor) -> Tensor:
        """Scores (B,): the scaled cosine of image and text, in units of log-odds between two images of a prompt."""
        cosine = (self.image_embeds(pixel_values, timestep) * text_embeds).sum(-1)
        logits: Tensor = self.logit_scale.exp() * cosine
        return logits


def normalise(images: Tensor, size: int) -> Tensor:
    """Images (B, 3, H, W) in [0, 1] as CLIP expects them, resized to ``size`` where needed."""
    if images.shape[-2:] != (size, size):
        images = interpolate(images, size=(size, size), mode="bicubic", antialias=True).clamp(0.0, 1.0)
    mean, std = (torch.tensor(values, device=images.device)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
    return (images - mean) / std


class StepAwareScorer:
    """A reward from a step-aware CLIP; without a time step it scores finished images (t = 0).

    Args:
        model: the preference model.
        tokenizer: its tokenizer.
    """

    def __init__(self, model: StepAwareCLIP, tokenizer: CLIPTokenizer) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self._text = TextEmbeddings(self._embed)

    def to(self, device: torch.device | str) -> Self:
        """Moves the model to a device."""
        self.model.to(device)
        self._text.clear()
        return self

    @torch.no_grad()
    def __call__(self, images: Tensor, prompts: Sequence[str], *, timestep: Tensor | None = None) -> Tensor:
        """Scores (B,) of images (B, 3, H, W) in [0, 1]; differences are log-odds of being preferred."""
        device = next(self.model.parameters()).device
        time = torch.zeros(len(images), device=device) if timestep is None else timestep.to(device)
        pixels = normalise(images.to(device).float(), self.model.config.vision_config.image_size)
        scores: Tensor = self.model.preference_logits(pixels, time, self._text.of(prompts))
        return scores

    def _embed(self, prompt: str) -> Tensor:
        device = next(self.model.parameters()).device
        inputs = {name: ids.to(device) for name, ids in tokens(self.tokenizer, [prompt]).items()}
        embed: Tensor = self.model.text_embeds(**inputs)[0]
        return embed


def tokens(tokenizer: CLIPTokenizer, prompts: Sequence[str]) -> dict[str, Any]:
    """Token ids and attention mask of prompts, padded and cut to the tokenizer's length."""
    return dict(
        tokenizer(
            list(prompts),
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
    )


def load_scorer(folder: str | Path) -> StepAwareScorer:
    """Loads a scorer from a folder with a CLIP configuration, safetensors weights and a tokenizer.

    Raises:
        DataError: if the folder holds no such model.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise DataError(f"scorer folder {folder} has no config.json")
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):  # transformers would make one without words
        raise DataError(f"scorer folder {folder} has no tokenizer: none of {', '.join(TOKENIZER_FILES)}")
    try:
        model, report = StepAwareCLIP.from_pretrained(folder, use_safetensors=True, output_loading_info=True)
        tokenizer = CLIPTokenizer.from_pretrained(folder)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise DataError(f"scorer folder {folder} cannot be loaded as a step-aware CLIP: {error}") from error
    if report["missing_keys"]:
        raise DataError(f"scorer {folder} lacks weights, for example {min(report['missing_keys'])!r}")
    return StepAwareScorer(model.float(), tokenizer)
