"""Qwen-Image: a transformer of two streams on packed latents, Qwen2.5-VL for text, a video autoencoder, flow."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from diffusers import AutoencoderKLQwenImage, QwenImagePipeline
from torch import Tensor, nn

from seedpo.core.flow import FlowProcess
from seedpo.core.processes import classifier_free_guidance
from seedpo.models.families import Family, PromptForm, Size, widened
from seedpo.models.pipelines.parts import (
    JOINT_ATTENTION,
    MaskedPrompts,
    MaskedTokens,
    evenly,
    flow_process,
    image_size,
    latent_shape,
    linear_mu,
    masked_tokens,
    packed,
    unpacked,
)
from seedpo.models.samplers import FLOW_SAMPLERS


def _guide(negative: Tensor, positive: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance, every token scaled to the length that it has in the positive prediction."""
    guided, aim = packed(classifier_free_guidance(negative, positive, scale)), packed(positive)
    lengths = [tokens.norm(dim=-1, keepdim=True) for tokens in (aim, guided)]
    return unpacked(guided * (lengths[0] / lengths[1]), *positive.shape[-2:])


def _process(pipeline: Any, size: Size) -> FlowProcess:
    cell = 2 * pipeline.vae_scale_factor
    tokens = (size[0] // cell) * (size[1] // cell)
    return flow_process(
        pipeline,
        mu=lambda count: linear_mu(pipeline.scheduler, tokens),
        sigmas=evenly,
        always_dynamic=True,
        guide=_guide,
    )


def _image_size(pipeline: Any, resolution: int | Size | None) -> Size:
    factor = pipeline.vae_scale_factor
    return image_size(resolution, usual=pipeline.default_sample_size * factor, multiple=2 * factor)


def _tokenize(pipeline: Any, prompts: Sequence[str], form: PromptForm) -> MaskedTokens:
    """Each prompt inside the pipeline's instruction."""
    assert form.length is not None
    template, lead = pipeline.prompt_template_encode, pipeline.prompt_template_encode_start_idx
    return masked_tokens(pipeline.tokenizer, template.format, prompts, form.length, lead=lead)


def _embed_tokens(encoders: Sequence[Any], tokens: MaskedTokens) -> MaskedPrompts:
    """The last hidden states without those of the instruction; the language model's head is left out."""
    (encoder,) = encoders
    tokens = tokens.to(encoder.device)
    output = encoder.model(input_ids=tokens.ids, attention_mask=tokens.attention_mask(), use_cache=False)
    return tokens.embedded(output.last_hidden_state)


def _predict(
    transformer: nn.Module, latents: Tensor, sigma: Tensor, conditioning: MaskedPrompts, dtype: torch.dtype
) -> Tensor:
    """The text is cut to its longest row, and masked only where rows differ, as in the pipeline."""
    height, width = latents.shape[-2:]
    lengths = conditioning.lengths()
    longest = max(lengths)
    tokens: Tensor = transformer(
        hidden_states=packed(latents.to(dtype)),
        timestep=sigma,
        encoder_hidden_states=conditioning.prompt_embeds[:, :longest].to(dtype),
        encoder_hidden_states_mask=None if min(lengths) == longest else conditioning.mask[:, :longest],
        img_shapes=[[(1, height // 2, width // 2)]] * len(latents),
        return_dict=False,
    )[0]
    return unpacked(tokens, height, width)


def _unread_layers(transformer: Any) -> tuple[str, ...]:
    """The text's way out of the last block."""
    last = f"transformer_blocks.{transformer.config.num_layers - 1}."
    return f"{last}attn.add_q_proj", f"{last}attn.to_add_out", f"{last}txt_mlp."


def _moments(vae: Any, like: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel of the autoencoder's latents, (C, 1, 1)."""
    mean, std = (
        torch.tensor(values, device=like.device, dtype=like.dtype).view(-1, 1, 1)
        for values in (vae.config.latents_mean, vae.config.latents_std)
    )
    return mean, std


def _encode(vae: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Each image is a video of one frame."""
    latents = vae.encode(pixels.unsqueeze(2)).latent_dist
    mean, std = widened(latents.mean.squeeze(2)), widened(latents.std.squeeze(2))
    centre, spread = _moments(vae, mean)
    return (mean - centre) / spread, std / spread


def _decode(vae: Any, latents: Tensor) -> Tensor:
    centre, spread = _moments(vae, latents)
    pixels: Tensor = vae.decode((latents * spread + centre).unsqueeze(2), return_dict=False)[0]
    return pixels.squeeze(2)


QWEN_IMAGE = Family(
    pipeline=QwenImagePipeline,
    network="transformer",
    text_parts=("text_encoder",),
    autoencoder=AutoencoderKLQwenImage,
    process=_process,
    image_size=_image_size,
    latent_shape=partial(latent_shape, cells=4),
    latent_channels=lambda transformer, vae: (transformer.config.in_channels // 4, vae.config.z_dim),
    conditioning=MaskedPrompts,
    tokens=MaskedTokens,
    tokenize=_tokenize,
    embed_tokens=_embed_tokens,
    predict=_predict,
    encode=_encode,
    decode=_decode,
    max_sequence_length=512,
    longest_text=1024,
    usual_guidance=4.0,  # true_cfg_scale; the pipeline's guidance_scale is for other models
    adapter_layers={
        "attention": JOINT_ATTENTION,
        "mlp": ("img_mlp.net.0.proj", "img_mlp.net.2", "txt_mlp.net.0.proj", "txt_mlp.net.2"),
    },
    unread_layers=_unread_layers,
    own_sampler="euler",
    samplers=FLOW_SAMPLERS,
)
"""Qwen-Image."""
