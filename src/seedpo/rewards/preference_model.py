"""A CLIP preference model as something that is trained: step-aware (SPO) or plain (PickScore)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import CLIPModel, CLIPTokenizer

from seedpo.rewards.checkpoints import fill, read_weights
from seedpo.rewards.previews import SeenPairs
from seedpo.rewards.step_aware_clip import StepAwareCLIP, tokens

WEIGHTS_FILE = "model.safetensors"

KNOWN_PROMPTS = 2**14
"""Prompts whose tokens are kept."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What a preference model says of B pairs.

    Attributes:
        text: normalised embeddings of the prompts, (B, D).
        images: normalised embeddings of preferred and other images, (B, 2, D).
        scale: exp(logit_scale), ().
    """

    text: Tensor
    images: Tensor
    scale: Tensor

    @property
    def logits(self) -> Tensor:
        """Scores of both images, (B, 2): the scaled cosines with their prompt, in log-odds."""
        return self.scale * (self.images * self.text[:, None]).sum(-1)


class PairNetwork(nn.Module):
    """The two towers in one forward pass, so that a wrapper that exchanges gradients sees all weights at work.

    Args:
        clip: the preference model.
    """

    def __init__(self, clip: CLIPModel) -> None:
        super().__init__()
        self.clip = clip

    def forward(
        self, pixels: Tensor, timestep: Tensor | None, input_ids: Tensor, attention_mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised embeddings of texts (B, D) and images (N, D), and the scale ().

        Args:
            pixels: prepared images, (N, 3, S, S).
            timestep: of each image, (N,); none: the model is plain, or the images are finished.
            input_ids: tokens of B prompts, (B, L).
            attention_mask: which of them count, (B, L).
        """
        clip = self.clip
        if isinstance(clip, StepAwareCLIP):
            times = torch.zeros(len(pixels), device=pixels.device) if timestep is None else timestep
            images = clip.image_embeds(pixels, times)
        else:
            images = nn.functional.normalize(
                clip.visual_projection(clip.vision_model(pixel_values=pixels).pooler_output), dim=-1
            )
        pooled = clip.text_model(input_ids=input_ids, attention_mask=attention_mask).pooler_output
        return nn.functional.normalize(clip.text_projection(pooled), dim=-1), images, clip.logit_scale.exp()


class PreferenceModel:
    """Trains all weights of a CLIP preference model; saved in the format that rewards are loaded from.

    Args:
        clip: the model, in float32; a :class:`StepAwareCLIP` is told the time step.
        tokenizer: its tokenizer.
    """

    def __init__(self, clip: CLIPModel, tokenizer: CLIPTokenizer) -> None:
        self.clip = clip.requires_grad_(True).train()
        self.tokenizer = tokenizer
        self.module: nn.Module = PairNetwork(clip)
        self._tokens = lru_cache(maxsize=KNOWN_PROMPTS)(self._tokenised)

    @property
    def image_size(self) -> int:
        """Height and width of the images that it is shown, in pixels."""
        size: int = self.clip.config.vision_config.image_size
        return size

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self.clip.logit_scale.device
        return device

    def compare(self, seen: SeenPairs, prompts: Sequence[str]) -> Comparison:
        """What it says of B pairs and their B prompts."""
        rows = [self._tokens(prompt) for prompt in prompts]
        ids, mask = (torch.cat(part).to(self.device) for part in zip(*rows, strict=True))
        pixels = seen.pixels.flatten(0, 1).to(self.device)
        timestep = None if seen.timestep is None else seen.timestep.repeat_interleave(2).to(self.device)
        text, images, scale = self.module(pixels, timestep, ids, mask)
        return Comparison(text=text, images=images.view(len(rows), 2, -1), scale=scale)

    def _tokenised(self, prompt: str) -> tuple[Tensor, Tensor]:
        found = tokens(self.tokenizer, [prompt])
        return found["input_ids"], found["attention_mask"]

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """Names and tensors of all weights, in a fixed order."""
        return {name: value for name, value in self.clip.named_parameters() if value.requires_grad}

    def save(self, folder: Path) -> None:
        """Writes configuration, weights and tokenizer in transformers' format."""
        self.clip.save_pretrained(folder, max_shard_size="100GB")
        self.tokenizer.save_pretrained(folder)

    def load(self, folder: Path) -> None:
        """Reads what :meth:`save` wrote into the very tensors that are trained.

        Raises:
            DataError: if the file is missing or cut, or its weights are of another model.
        """
        fill(self.clip, read_weights(folder / WEIGHTS_FILE), origin=folder / WEIGHTS_FILE)
