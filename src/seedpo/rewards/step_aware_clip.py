"""A CLIP preference model that takes the time step: the step-aware preference model of SPO.

CLIP with adaptive layer norm on the time step in every vision block and before the projection (SPO, arXiv 2406.04314,
sec. 3.2); the parameter names are those of SPO's published checkpoints. At the start every modulation is the identity:
the model is the plain CLIP that it was made from.

:mod:`seedpo.rewards.spm` reads SPO's own files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from diffusers.models.embeddings import get_timestep_embedding
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.utils.checkpoint import checkpoint
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from seedpo.errors import DataError
from seedpo.protocols import Images
from seedpo.rewards.clip import PromptTable, clip_tokenizer, load_clip, no_pixels, no_tokens, transformers_tokens
from seedpo.rewards.networks import RewardNetwork, on_meta
from seedpo.rewards.preprocessing import CLIP_MEAN, CLIP_STD
from seedpo.rewards.scoring import byte_batches, check_counts

TIME_CHANNELS = 256
"""Width of the sinusoidal embedding of the time step."""


class TimestepEmbedder(nn.Module):
    """Time steps (B,) as vectors (B, D)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(TIME_CHANNELS, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, timestep: Tensor) -> Tensor:
        """Embeds time steps."""
        waves = get_timestep_embedding(timestep, TIME_CHANNELS, flip_sin_to_cos=True, downscale_freq_shift=0)
        embedded: Tensor = self.mlp(waves.to(self.mlp[0].weight.dtype))
        return embedded


def _modulation(width: int, parts: int) -> nn.Sequential:
    """Shifts, scales and gates from an embedded time step."""
    return nn.Sequential(nn.SiLU(), nn.Linear(width, parts * width))


def _modulated_layer(layer: Any, hidden: Tensor, condition: Tensor) -> Tensor:
    """A layer of the vision tower, (B, L, D) to (B, L, D), modulated by embedded time steps (B, D)."""
    shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = layer.adaLN_modulation(condition)[:, None].chunk(6, dim=-1)
    attended = layer.self_attn(hidden_states=layer.layer_norm1(hidden) * (1.0 + scale) + shift, attention_mask=None)[0]
    hidden = hidden + gate * attended
    moved: Tensor = hidden + gate_mlp * layer.mlp(layer.layer_norm2(hidden) * (1.0 + scale_mlp) + shift_mlp)
    return moved


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
            if layer.gradient_checkpointing and torch.is_grad_enabled():
                hidden = checkpoint(_modulated_layer, layer, hidden, condition, use_reentrant=False)
            else:
                hidden = _modulated_layer(layer, hidden, condition)
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
    """Images as SPO's preference models see them: shorter side resized, centre cropped, normalised.

    Bicubic without antialiasing, on the floats: previews are not files and are not rounded to bytes. Images of the
    model's own size are only normalised.

    Values are clamped to [0, 1] after resizing, as in SPO's code. There the decoder's raw output comes in. Here
    previews are clamped already, unless `fidelity.previews_clamped_late` hands them over as they are.

    Args:
        images: (B, 3, H, W), in [0, 1] or a little outside.
        size: height and width of the result, in pixels.

    Returns:
        (B, 3, size, size) float32.
    """
    images = images.float()
    lengths = images.shape[-2:]
    scale = size / min(lengths)
    wanted = [int(length * scale + 0.5) for length in lengths]
    if wanted != list(lengths):
        images = interpolate(images, size=wanted, mode="bicubic", align_corners=False)
    above, left = (round((length - size) / 2.0) for length in wanted)
    images = images[..., above : above + size, left : left + size].clamp(0.0, 1.0)
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
        self._text = PromptTable(self._embed)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        device: torch.device = self.model.logit_scale.device
        return device

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Moves the model to a device, or to a number format."""
        self.model.to(device=device, dtype=dtype)
        self._text.clear()
        return self

    @torch.no_grad()
    def __call__(self, images: Images, prompts: Sequence[str], *, timestep: Tensor | None = None) -> Tensor:
        """Scores (B,) float32; differences are log-odds of being preferred.

        Args:
            images: (B, 3, H, W) in [0, 1], scored in one call; or B PIL images of any sizes.
            prompts: B prompts, cut to the model's length.
            timestep: of the previews, (B,); `None` for finished images (t = 0).

        Raises:
            DataError: if the counts differ, or an element is not an image.
        """
        check_counts(images, prompts)
        time = torch.zeros(len(prompts), device=self.device) if timestep is None else timestep.to(self.device)
        text, size = self._text.of(prompts), self.model.config.vision_config.image_size
        if isinstance(images, Tensor):
            return self._scored(normalise(images.to(self.device), size), time, text)
        scores = torch.empty(len(prompts), device=self.device)
        for rows, pixels in byte_batches(images, device=self.device):
            scores[rows] = self._scored(normalise(pixels.float() / 255.0, size), time[rows], text[rows])
        return scores

    def _scored(self, pixels: Tensor, time: Tensor, text: Tensor) -> Tensor:
        logits: Tensor = self.model.preference_logits(pixels.to(self.model.dtype), time, text)
        return logits.float()

    def _embed(self, prompt: str) -> Tensor:
        length = min(self.tokenizer.model_max_length, self.model.config.text_config.max_position_embeddings)
        inputs = transformers_tokens(self.tokenizer, prompt, length)
        embed: Tensor = self.model.text_embeds(**{name: ids.to(self.device) for name, ids in inputs.items()})[0]
        return embed


def load_scorer(folder: str | Path) -> StepAwareScorer:
    """Loads a scorer from a folder with a CLIP configuration, safetensors weights and a tokenizer.

    Raises:
        DataError: if the folder does not hold such a model.
    """
    name, folder = str(folder), Path(folder)
    if not (folder / "config.json").is_file():
        raise DataError(f"reward folder {folder} has no config.json; name the folder of a step-aware CLIP")
    tokenizer = clip_tokenizer(name, folder, repository=None)
    return StepAwareScorer(load_clip(name, folder, network=StepAwareCLIP, as_what="a step-aware CLIP"), tokenizer)


def step_aware_network(configuration: Mapping[str, Any]) -> RewardNetwork:
    """A step-aware CLIP without weights."""
    network = on_meta(lambda: StepAwareCLIP(CLIPConfig(**configuration)))
    return RewardNetwork(
        network=network,
        images=lambda count: network.image_embeds(no_pixels(network, count), torch.zeros(count, device="meta")),
        prompts=lambda count: network.get_text_features(input_ids=no_tokens(network, count)),
    )
