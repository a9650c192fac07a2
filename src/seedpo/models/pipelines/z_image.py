"""Z-Image: a single-stream transformer on lists of latents, a Qwen3 language model for text, flow matching."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import ZImagePipeline
from torch import Tensor, nn

from seedpo.core.flow import FlowProcess
from seedpo.models.families import Family, PromptForm, Size
from seedpo.models.pipelines.parts import (
    ATTENTION,
    MaskedPrompts,
    MaskedTokens,
    flow_process,
    image_size,
    latent_shape,
    masked_tokens,
)
from seedpo.models.samplers import FLOW_SAMPLERS

TURBO_SHIFT = 3.0
"""Shift of Z-Image-Turbo's scheduler; that of Z-Image is 6. Nothing else in their configurations differs."""


def _evenly(count: int) -> list[float]:
    """The levels 1 to 1 / N in float32, as the pipeline hands them to its scheduler."""
    levels: list[float] = torch.linspace(1.0, 1 / count, count).tolist()
    return levels


def _process(pipeline: Any, size: Size) -> FlowProcess:
    return flow_process(pipeline, sigmas=_evenly)


def _is_turbo(pipeline: Any) -> bool:
    return bool(pipeline.scheduler.config.get("shift") == TURBO_SHIFT)


def _distilled(pipeline: Any) -> str | None:
    if not _is_turbo(pipeline):
        return None
    return (
        "shift = 3 in its scheduler_config.json is that of Z-Image-Turbo, which is distilled to eight steps and would "
        "lose them; train Z-Image, whose shift is 6"
    )


def _unguided(pipeline: Any) -> str | None:
    return "Z-Image-Turbo has guidance distilled into its weights" if _is_turbo(pipeline) else None


def _image_size(pipeline: Any, resolution: int | Size | None) -> Size:
    return image_size(resolution, usual=1024, multiple=2 * pipeline.vae_scale_factor)


def _tokenize(pipeline: Any, prompts: Sequence[str], form: PromptForm) -> MaskedTokens:
    """Each prompt as a user's message, before an answer with thinking."""
    assert form.length is not None

    def conversation(prompt: str) -> str:
        text: str = pipeline.tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True, enable_thinking=True
        )
        return text

    return masked_tokens(pipeline.tokenizer, conversation, prompts, form.length)


def _embed_tokens(encoders: Sequence[Any], tokens: MaskedTokens) -> MaskedPrompts:
    """The last but one hidden states."""
    (encoder,) = encoders
    tokens = tokens.to(encoder.device)
    output = encoder(
        input_ids=tokens.ids, attention_mask=tokens.attention_mask(), output_hidden_states=True, use_cache=False
    )
    return tokens.embedded(output.hidden_states[-2])


def _predict(
    transformer: nn.Module, latents: Tensor, sigma: Tensor, conditioning: MaskedPrompts, dtype: torch.dtype
) -> Tensor:
    """The network takes 1 - sigma, lists of latents with a frame axis and of texts, and predicts x_0 - noise."""
    prompts = zip(conditioning.prompt_embeds.to(dtype), conditioning.lengths(), strict=True)
    outputs = transformer(
        list(latents.to(dtype).unsqueeze(2)),
        (1000 - 1000 * sigma) / 1000,  # as the pipeline rounds it
        [states[:length] for states, length in prompts],
        return_dict=False,
    )[0]
    return -torch.stack(outputs).squeeze(2)


Z_IMAGE = Family(
    pipeline=ZImagePipeline,
    network="transformer",
    text_parts=("text_encoder",),
    process=_process,
    distilled=_distilled,
    unguided=_unguided,
    image_size=_image_size,
    latent_shape=latent_shape,
    conditioning=MaskedPrompts,
    tokens=MaskedTokens,
    tokenize=_tokenize,
    embed_tokens=_embed_tokens,
    predict=_predict,
    max_sequence_length=512,
    longest_text=992,  # the image's place, behind the text in multiples of 32, is at most 1023
    usual_guidance=6.0,  # the pipeline counts one less: v_c + 5 (v_c - v_u)
    adapter_layers={
        "attention": ATTENTION,
        "mlp": ("feed_forward.w1", "feed_forward.w2", "feed_forward.w3"),
    },
    original_layers={
        f"{block}.{{}}.attention.{name}": tuple(f"{block}.{{}}.attention.{own}" for own in layers)
        for block in ("layers", "noise_refiner", "context_refiner")
        for name, layers in {"qkv": ("to_q", "to_k", "to_v"), "out": ("to_out.0",)}.items()
    },
    own_sampler="euler",
    samplers=FLOW_SAMPLERS,
)
"""Z-Image, and Z-Image-Turbo for drawing."""
