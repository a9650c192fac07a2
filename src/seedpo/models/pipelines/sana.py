"""SANA: a linear transformer on deeply compressed latents (C, H, W), a Gemma 2 with an instruction, flow matching."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from diffusers import AutoencoderDC, FlowMatchEulerDiscreteScheduler, SanaPipeline, SanaTransformer2DModel
from torch import Tensor, nn

from seedpo.core.flow import FlowProcess
from seedpo.core.types import Conditioning
from seedpo.models.families import Family, PromptForm, Size, widened
from seedpo.models.pipelines.parts import ATTENTION, evenly, flow_process, image_size, latent_shape
from seedpo.models.samplers import FLOW_SAMPLERS

INSTRUCTION = "\n".join(signature(SanaPipeline.__call__).parameters["complex_human_instruction"].default)
"""What the pipeline's call says before a prompt, unless told otherwise."""


@dataclass(frozen=True, kw_only=True)
class SanaConditioning(Conditioning):
    """Embedded prompts.

    Attributes:
        prompt_embeds: last states of the language model, (B, L, D), in its number format.
        mask: 1 for tokens of the text and 0 for padding, (B, L) int64.
    """

    prompt_embeds: Tensor
    mask: Tensor


@dataclass(frozen=True, kw_only=True)
class SanaTokens(Conditioning):
    """Prompts as the tokenizer reads them.

    Attributes:
        ids: token ids of the instruction and the prompt, (B, M) int64.
        mask: 1 for tokens of the text and 0 for padding, (B, M) int64.
        places: of the tokens whose states the network sees, (B, L) int64.
    """

    ids: Tensor
    mask: Tensor
    places: Tensor


def _process(pipeline: Any, size: Size) -> FlowProcess:
    """With Euler's levels: those of its multistep solver, shifted alike, but from pure noise (1, not 0.999)."""
    own = pipeline.scheduler.config
    is_flow = own.get("use_flow_sigmas") and own.get("prediction_type") == "flow_prediction"
    if is_flow and not own.get("use_dynamic_shifting"):
        euler = FlowMatchEulerDiscreteScheduler(shift=own.flow_shift)
        return flow_process(pipeline, scheduler=euler, sigmas=evenly)
    return flow_process(pipeline)


def _image_size(pipeline: Any, resolution: int | Size | None) -> Size:
    factor, config = pipeline.vae_scale_factor, pipeline.transformer.config
    return image_size(resolution, usual=config.sample_size * factor, multiple=factor * config.patch_size)


def _tokenize(pipeline: Any, prompts: Sequence[str], form: PromptForm) -> SanaTokens:
    """The instruction and the prompt in lower case; the empty prompt stands alone, as the pipeline's negative one does.

    A negative prompt that is not empty gets the instruction too; the pipeline's does not. The network sees the first
    token and the last L - 1 of these::

        instruction, prompt       x . . . . . x x x x x x
        empty prompt              x x x x x x x . . . . .
    """
    assert form.length is not None
    tokenizer = pipeline.tokenizer
    tokenizer.padding_side = "right"
    texts = [prompt.lower().strip() for prompt in prompts]
    longest = len(tokenizer.encode(INSTRUCTION)) + form.length - 2
    tokens = tokenizer(
        [INSTRUCTION + text if text else "" for text in texts],
        padding="max_length",
        max_length=longest,
        truncation=True,
        return_tensors="pt",
    )
    first = torch.arange(form.length)
    last = torch.where(first > 0, first + longest - form.length, 0)
    places = torch.stack([last if text else first for text in texts])
    return SanaTokens(ids=tokens.input_ids, mask=tokens.attention_mask, places=places)


def _embed_tokens(encoders: Sequence[Any], tokens: SanaTokens) -> SanaConditioning:
    """The language model's last states at the places that the network sees."""
    (encoder,) = encoders
    ids, mask, places = (values.to(encoder.device) for values in (tokens.ids, tokens.mask, tokens.places))
    states = encoder(ids, attention_mask=mask)[0]
    return SanaConditioning(
        prompt_embeds=states.gather(1, places[..., None].expand(-1, -1, states.shape[-1])),
        mask=mask.gather(1, places),
    )


def _timestep_scale(network: nn.Module) -> float:
    """Of a transformer, also inside the wrapper of several processes."""
    transformer: Any = next(part for part in network.modules() if isinstance(part, SanaTransformer2DModel))
    scale: float = transformer.config.timestep_scale
    return scale


def _predict(
    transformer: nn.Module, latents: Tensor, sigma: Tensor, conditioning: SanaConditioning, dtype: torch.dtype
) -> Tensor:
    velocity: Tensor = transformer(
        latents.to(dtype),
        encoder_hidden_states=conditioning.prompt_embeds.to(dtype),
        encoder_attention_mask=conditioning.mask,
        timestep=1000 * sigma * _timestep_scale(transformer),
        return_dict=False,
    )[0]
    return velocity[:, : latents.shape[1]]  # beside it some networks predict a variance


def _encode(vae: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """This autoencoder has no distribution: the standard deviation is 0."""
    latents = widened(vae.encode(pixels).latent) * vae.config.scaling_factor
    return latents, torch.zeros_like(latents)


SANA = Family(
    pipeline=SanaPipeline,
    network="transformer",
    text_parts=("text_encoder",),
    autoencoder=AutoencoderDC,
    process=_process,
    image_size=_image_size,
    latent_shape=latent_shape,
    conditioning=SanaConditioning,
    tokens=SanaTokens,
    tokenize=_tokenize,
    embed_tokens=_embed_tokens,
    predict=_predict,
    encode=_encode,
    max_sequence_length=300,
    adapter_layers={
        "attention": ATTENTION,
        "mlp": ("ff.conv_inverted", "ff.conv_point"),
    },
    own_sampler="euler",
    samplers=FLOW_SAMPLERS,
)
"""SANA and SANA 1.5."""
