"""A reward from the cosine of image and prompt under a CLIP; a recipe says what the scorers of this kind differ in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

import torch
from torch import Tensor, nn
from transformers import CLIPModel, CLIPTokenizer

from seedpo.protocols import Images
from seedpo.rewards.clip_tokens import Tokens, transformers_tokens
from seedpo.rewards.inputs import BATCH_SIZE, score_in_batches
from seedpo.rewards.preprocessing import clip_pixels
from seedpo.rewards.text_embeddings import TextEmbeddings


@dataclass(frozen=True, kw_only=True)
class ClipRecipe:
    """How a score is made with a CLIP.

    Attributes:
        pixels: from images (B, 3, H, W) uint8 and a size: normalised images (B, 3, size, size) float32.
        tokens: what the text tower is called with.
        score: from cosines (B,) and the model's logit scale (): scores (B,).
    """

    pixels: Callable[[Tensor, int], Tensor]
    tokens: Tokens
    score: Callable[[Tensor, Tensor], Tensor]


SCALED_COSINE = ClipRecipe(
    pixels=partial(clip_pixels, crop="transformers"),
    tokens=transformers_tokens,
    score=lambda cosine, logit_scale: logit_scale.exp() * cosine,
)
"""exp(logit_scale) cos(image, prompt), prepared by transformers: PickScore."""


class ClipScorer:
    """A reward from a CLIP.

    Cosines are taken in float32, whatever the network computes in. Each prompt is embedded once.

    Args:
        model: the network.
        tokenizer: its tokenizer.
        recipe: how images and prompts are prepared, and what becomes of the cosine.
        batch_size: most images that the network sees at once.
    """

    def __init__(
        self,
        model: CLIPModel,
        tokenizer: CLIPTokenizer,
        recipe: ClipRecipe = SCALED_COSINE,
        *,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.recipe = recipe
        self.batch_size = batch_size
        self._text = TextEmbeddings(self._embed)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Moves the network to a device and to a type of numbers; none leaves it as it is."""
        self.model.to(device=device, dtype=dtype)
        self._text.clear()
        return self

    def __call__(self, images: Images, prompts: Sequence[str]) -> Tensor:
        """Scores (B,) float32, on the network's device, of images (B, 3, H, W) in [0, 1] or B PIL images.

        Raises:
            DataError: if the counts differ, or something is not an image.
        """
        return score_in_batches(images, prompts, self._score, batch_size=self.batch_size, device=self.model.device)

    def _score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        pixels = self.recipe.pixels(images, self.model.config.vision_config.image_size)
        cosine = (image_embeds(self.model, pixels) * self._text.of(prompts)).sum(-1)
        return self.recipe.score(cosine, self.model.logit_scale.float())

    def _embed(self, prompt: str) -> Tensor:
        length = self.model.config.text_config.max_position_embeddings
        tokens = self.recipe.tokens(self.tokenizer, prompt, length)
        inputs = {name: ids.to(self.model.device) for name, ids in tokens.items()}
        pooled = self.model.text_model(**inputs).pooler_output
        return nn.functional.normalize(self.model.text_projection(pooled).float(), dim=-1)[0]


def image_embeds(model: CLIPModel, pixels: Tensor) -> Tensor:
    """Normalised embeddings (B, D) float32 of normalised images (B, 3, S, S)."""
    pooled = model.vision_model(pixel_values=pixels.to(model.dtype)).pooler_output
    return nn.functional.normalize(model.visual_projection(pooled).float(), dim=-1)
