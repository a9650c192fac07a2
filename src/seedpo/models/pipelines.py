"""The pipeline classes that can be trained, and how each embeds prompts. A further class is a further row of data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from torch import Tensor

Pipeline: TypeAlias = StableDiffusionPipeline | StableDiffusionXLPipeline

Embed = Callable[[Any, Sequence[str]], tuple[Tensor, Tensor | None]]
"""A pipeline and B prompts to their embeddings (B, L, D) and pooled embeddings (B, P), if the class has them."""


def _token_ids(tokenizer: Any, prompts: Sequence[str]) -> Tensor:
    """Token ids (B, L), padded and cut to the tokenizer's length."""
    tokens = tokenizer(
        list(prompts),
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )
    ids: Tensor = tokens.input_ids
    return ids


def embed_by_one_encoder(pipeline: Any, prompts: Sequence[str]) -> tuple[Tensor, None]:
    """Last hidden states of the one text encoder (Stable Diffusion 1.x and 2.x)."""
    encoder = pipeline.text_encoder
    return encoder(_token_ids(pipeline.tokenizer, prompts).to(encoder.device)).last_hidden_state, None


def embed_by_two_encoders(pipeline: Any, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Last hidden states but one of both text encoders, side by side, and the second one's pooled embedding (XL).

    Where the pipeline has ``force_zeros_for_empty_prompt``, an empty prompt is embedded as zeros: what diffusers does
    for a negative prompt that is not given.
    """
    hidden: list[Tensor] = []
    for tokenizer, encoder in (
        (pipeline.tokenizer, pipeline.text_encoder),
        (pipeline.tokenizer_2, pipeline.text_encoder_2),
    ):
        output = encoder(_token_ids(tokenizer, prompts).to(encoder.device), output_hidden_states=True)
        hidden.append(output.hidden_states[-2])
    embeds, pooled = torch.cat(hidden, -1), output.text_embeds
    if pipeline.config.force_zeros_for_empty_prompt:
        empty = torch.tensor([not prompt for prompt in prompts], device=embeds.device)
        embeds, pooled = embeds.masked_fill(empty[:, None, None], 0.0), pooled.masked_fill(empty[:, None], 0.0)
    return embeds, pooled


@dataclass(frozen=True, kw_only=True)
class PipelineKind:
    """A pipeline class that can be trained.

    Attributes:
        pipeline: the class.
        embed: how it embeds prompts.
        text_parts: names of its text encoders.
        sizes: whether the UNet is told the size and crop of the image (``time_ids``).
    """

    pipeline: Any
    embed: Embed
    text_parts: tuple[str, ...]
    sizes: bool

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of everything without which a pipeline cannot be trained."""
        tokenizers = (name.replace("text_encoder", "tokenizer") for name in self.text_parts)
        return (*tokenizers, *self.text_parts, "unet", "vae", "scheduler")


KINDS: dict[str, PipelineKind] = {
    "StableDiffusionPipeline": PipelineKind(
        pipeline=StableDiffusionPipeline, embed=embed_by_one_encoder, text_parts=("text_encoder",), sizes=False
    ),
    "StableDiffusionXLPipeline": PipelineKind(
        pipeline=StableDiffusionXLPipeline,
        embed=embed_by_two_encoders,
        text_parts=("text_encoder", "text_encoder_2"),
        sizes=True,
    ),
}
"""By the name of the class, as ``model_index.json`` has it."""
