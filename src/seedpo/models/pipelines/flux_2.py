"""FLUX.2: a transformer on latents of 2 x 2 cells, whose text is three states of a language model, flow matching.

dev reads Mistral 3 and takes guidance as an input; klein reads Qwen 3, and its base is guided by a negative prompt.
The network sees all tokens of a text, padding too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLFlux2, Flux2KleinPipeline, Flux2Pipeline
from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu, format_input
from torch import Tensor, nn

from seedpo.core.flow import FlowProcess
from seedpo.core.types import Conditioning
from seedpo.errors import ConfigError
from seedpo.models.families import Family, PromptForm, Size, widened
from seedpo.models.pipelines.parts import evenly, flow_process, image_size
from seedpo.models.samplers import FLOW_SAMPLERS

CELL = 2
"""Latents on each side of a cell."""


@dataclass(frozen=True, kw_only=True)
class Flux2Conditioning(Conditioning):
    """Embedded prompts.

    Attributes:
        prompt_embeds: three states of the language model side by side, (B, L, 3 D), in its number format: 512 tokens
            of dev take 16 MB in half precision.
        guidance: value of embedded guidance, (B,); ``None`` for klein.
    """

    prompt_embeds: Tensor
    guidance: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Flux2Tokens(Conditioning):
    """Prompts as the tokenizer reads them.

    Attributes:
        ids: token ids, (B, L) int64.
        mask: 1 for tokens of the text and 0 for padding, (B, L) int64.
        guidance: as in :class:`Flux2Conditioning`.
    """

    ids: Tensor
    mask: Tensor
    guidance: Tensor | None = None


def _pixels_per_cell(pipeline: Any) -> int:
    pixels: int = CELL * pipeline.vae_scale_factor
    return pixels


def _image_size(pipeline: Any, resolution: int | Size | None) -> Size:
    usual = pipeline.default_sample_size * pipeline.vae_scale_factor
    return image_size(resolution, usual=usual, multiple=_pixels_per_cell(pipeline))


def _latent_shape(pipeline: Any, size: Size) -> tuple[int, ...]:
    height, width = (side // _pixels_per_cell(pipeline) for side in size)
    return pipeline.transformer.config.in_channels, height, width


def _process(pipeline: Any, size: Size) -> FlowProcess:
    """With the pipeline's own shift, which depends on the number of steps as well."""
    _, height, width = _latent_shape(pipeline, size)
    return flow_process(pipeline, mu=partial(compute_empirical_mu, height * width), sigmas=evenly)


def _tokens(tokens: Any, prompts: Sequence[str], form: PromptForm) -> Flux2Tokens:
    """The record of a tokenizer's answer for B prompts and, after them, the empty one.

    Raises:
        ConfigError: if a prompt would be cut away, because what stands around it fills the length already.
    """
    ids, mask = tokens["input_ids"], tokens["attention_mask"]
    if mask[-1].all():
        raise ConfigError(
            f"max_sequence_length = {form.length} leaves no room for a prompt: what this model's text encoder reads "
            "around it takes as much; set it higher, 512 is usual"
        )
    guidance = None if form.guidance is None else torch.full((len(prompts),), form.guidance)
    return Flux2Tokens(ids=ids[:-1], mask=mask[:-1], guidance=guidance)


def _tokenize_dev(pipeline: Any, prompts: Sequence[str], form: PromptForm) -> Flux2Tokens:
    """Conversations of the pipeline's system message and a prompt."""
    tokens = pipeline.tokenizer.apply_chat_template(
        format_input([*prompts, ""], pipeline.system_message),
        add_generation_prompt=False,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        padding="max_length",
        truncation=True,
        max_length=form.length,
    )
    return _tokens(tokens, prompts, form)


def _tokenize_klein(pipeline: Any, prompts: Sequence[str], form: PromptForm) -> Flux2Tokens:
    """Conversations of a prompt and the start of an answer without thinking."""
    tokenizer = pipeline.tokenizer
    texts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        for prompt in (*prompts, "")
    ]
    tokens = tokenizer(texts, padding="max_length", truncation=True, max_length=form.length, return_tensors="pt")
    return _tokens(tokens, prompts, form)


def _embed_tokens(encoders: Sequence[Any], tokens: Flux2Tokens, *, layers: tuple[int, ...]) -> Flux2Conditioning:
    """States of the language model after some of its layers, side by side."""
    (encoder,) = encoders
    states = encoder(
        input_ids=tokens.ids.to(encoder.device),
        attention_mask=tokens.mask.to(encoder.device),
        output_hidden_states=True,
        use_cache=False,
        logits_to_keep=1,  # none is read, and those of all tokens take much memory
    ).hidden_states
    embeds = torch.cat([states[layer] for layer in layers], -1)
    return Flux2Conditioning(
        prompt_embeds=embeds, guidance=None if tokens.guidance is None else tokens.guidance.to(embeds.device)
    )


def _predict(
    transformer: nn.Module, latents: Tensor, sigma: Tensor, conditioning: Flux2Conditioning, dtype: torch.dtype
) -> Tensor:
    """Places of tokens are (time, row, column, number in the text)."""
    (height, width), embeds = latents.shape[-2:], conditioning.prompt_embeds
    rows, columns, words, one = (
        torch.arange(count, device=latents.device) for count in (height, width, embeds.shape[1], 1)
    )
    velocity: Tensor = transformer(
        hidden_states=latents.flatten(2).transpose(1, 2).to(dtype),
        timestep=sigma,
        guidance=conditioning.guidance,
        encoder_hidden_states=embeds.to(dtype),
        txt_ids=torch.cartesian_prod(one, one, one, words),
        img_ids=torch.cartesian_prod(one, rows, columns, one),
        return_dict=False,
    )[0]
    return velocity.transpose(1, 2).reshape(latents.shape)


def _statistics(vae: Any) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the channels of cells, (1, C, 1, 1)."""
    variance = vae.bn.running_var + vae.config.batch_norm_eps
    return vae.bn.running_mean.view(1, -1, 1, 1), variance.sqrt().view(1, -1, 1, 1)


def _encode(vae: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    latents, (mean, std) = vae.encode(pixels).latent_dist, _statistics(vae)
    means, stds = (F.pixel_unshuffle(widened(values), CELL) for values in (latents.mean, latents.std))
    return (means - mean) / std, stds / std


def _decode(vae: Any, latents: Tensor) -> Tensor:
    mean, std = _statistics(vae)
    cells = (latents * std + mean).to(latents.dtype)
    pixels: Tensor = vae.decode(F.pixel_shuffle(cells, CELL), return_dict=False)[0]
    return pixels


def _is_distilled(pipeline: Any) -> str | None:
    if not pipeline.config.is_distilled:
        return None
    return (
        "it is distilled to a few steps (is_distilled in its model_index.json), which training would undo; "
        "train its base, for example FLUX.2-klein-base-4B"
    )


def _klein_unguided(pipeline: Any) -> str | None:
    return "it is distilled and draws without guidance" if pipeline.config.is_distilled else None


def _dev_unguided(pipeline: Any) -> str | None:
    return "it takes guidance as an input of the network; set embedded_guidance"


_FLUX_2: dict[str, Any] = {
    "network": "transformer",
    "text_parts": ("text_encoder",),
    "autoencoder": AutoencoderKLFlux2,
    "process": _process,
    "image_size": _image_size,
    "latent_shape": _latent_shape,
    "latent_channels": lambda transformer, vae: (transformer.config.in_channels // CELL**2, vae.config.latent_channels),
    "conditioning": Flux2Conditioning,
    "tokens": Flux2Tokens,
    "max_sequence_length": 512,
    "predict": _predict,
    "encode": _encode,
    "decode": _decode,
    "adapter_layers": {
        # Blocks of one stream have one layer for query, key, value and the hidden layer, and one after them.
        "attention": (
            "to_q",
            "to_k",
            "to_v",
            "to_out.0",
            "add_q_proj",
            "add_k_proj",
            "add_v_proj",
            "to_add_out",
            "to_qkv_mlp_proj",
            "to_out",
        ),
        "mlp": ("ff.linear_in", "ff.linear_out", "ff_context.linear_in", "ff_context.linear_out"),
    },
    "own_sampler": "euler",
    "samplers": FLOW_SAMPLERS,
}

FLUX_2 = Family(
    pipeline=Flux2Pipeline,
    tokenize=_tokenize_dev,
    embed_tokens=partial(_embed_tokens, layers=(10, 20, 30)),
    embedded_guidance=4.0,
    unguided=_dev_unguided,
    usual_guidance=1.0,
    **_FLUX_2,
)
"""FLUX.2 dev."""

FLUX_2_KLEIN = Family(
    pipeline=Flux2KleinPipeline,
    tokenize=_tokenize_klein,
    embed_tokens=partial(_embed_tokens, layers=(9, 18, 27)),
    distilled=_is_distilled,
    unguided=_klein_unguided,
    **_FLUX_2,
)
"""FLUX.2 klein and its base."""
