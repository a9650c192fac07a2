"""Stable Diffusion 1.x, 2.x and XL: a UNet on latents (C, H, W), CLIP text encoders, a DDPM noise schedule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from torch import Tensor, nn

from seedpo.core.processes import DiffusionProcess
from seedpo.core.types import Conditioning, Rows
from seedpo.errors import ConfigError, DataError
from seedpo.models.families import Family, PromptForm, Size, widened
from seedpo.models.pipelines.parts import ATTENTION, CLIP_ATTENTION, few_step_name
from seedpo.models.samplers import DDPM_SAMPLERS


class _SizedPrompts(Conditioning):
    """Prompts with the sizes that SDXL takes; its subclasses hold them."""

    time_ids: Tensor | None

    @property
    def sizes(self) -> Tensor | None:
        """``time_ids``."""
        return self.time_ids

    def with_sizes(self: Rows, sizes: Tensor | None) -> Rows:
        """The same with other ``time_ids``, where the model takes them."""
        own: Tensor | None = self.time_ids  # type: ignore[attr-defined]
        return self if own is None or sizes is None else replace(self, time_ids=sizes.to(own))  # type: ignore[call-arg]


@dataclass(frozen=True, kw_only=True)
class TextConditioning(_SizedPrompts):
    """Embedded prompts and, for SDXL, image sizes.

    Attributes:
        prompt_embeds: one embedded prompt per row, (B, L, D).
        pooled_prompt_embeds: pooled embedding for models that take one (SDXL), (B, P).
        time_ids: size and crop in pixels for models that take them (SDXL), (B, 6).
    """

    prompt_embeds: Tensor
    pooled_prompt_embeds: Tensor | None = None
    time_ids: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class PromptTokens(_SizedPrompts):
    """Prompts as the tokenizers read them and, for SDXL, image sizes.

    Attributes:
        ids: token ids for the text encoder, (B, L) int64.
        ids_2: those for the second one (SDXL), (B, L) int64.
        is_zero: whether a prompt is embedded as zeros, (B,) bool; ``None``: none is.
        time_ids: as in :class:`TextConditioning`.
    """

    ids: Tensor
    ids_2: Tensor | None = None
    is_zero: Tensor | None = None
    time_ids: Tensor | None = None


def diffusion_process(scheduler: Any) -> DiffusionProcess:
    """Reads the noise levels and the kind of prediction from a diffusers scheduler of the DDPM family.

    Latents are clipped only if the configuration says so. A DDIM scheduler made from a configuration without that key
    (those of PNDM, Euler, DPM-Solver) would clip them.

    Raises:
        DataError: if the scheduler is of another family (EDM, flow matching), whose noise levels DDIM cannot follow.
    """
    if not hasattr(scheduler, "alphas_cumprod"):
        raise DataError(
            f"a model with {type(scheduler).__name__} cannot be trained: its noise levels are not those of DDPM; "
            "use a model of the Stable Diffusion 1, 2 or XL family"
        )
    ddim = DDIMScheduler.from_config(scheduler.config, clip_sample=scheduler.config.get("clip_sample", False))
    return DiffusionProcess(
        alphas_cumprod=ddim.alphas_cumprod,
        final_alpha_cumprod=float(ddim.final_alpha_cumprod),
        prediction_type=ddim.config.prediction_type,
        timestep_spacing=ddim.config.timestep_spacing,
        steps_offset=ddim.config.steps_offset,
        clip_sample_range=ddim.config.clip_sample_range if ddim.config.clip_sample else None,
    )


def _process(pipeline: Any, size: Size) -> DiffusionProcess:
    if pipeline.unet.config.time_cond_proj_dim is not None:
        raise DataError("a UNet with distilled guidance (LCM) cannot be trained; use the model that it was made from")
    return diffusion_process(pipeline.scheduler)


def _distilled(pipeline: Any) -> str | None:
    """Consistency models come with a scheduler of their own; others are known by their names alone."""
    scheduler = type(pipeline.scheduler).__name__
    if scheduler in ("LCMScheduler", "TCDScheduler"):
        return f"its {scheduler} is that of a few-step student, which training blurs; train the model it was made from"
    return few_step_name(pipeline)


def _image_size(pipeline: Any, resolution: int | Size | None) -> Size:
    factor = pipeline.vae_scale_factor
    if resolution is None:
        size = pipeline.unet.config.sample_size
        if size is None:
            raise ConfigError("this model does not say for which image size it was made; set resolution, in pixels")
        height, width = (size, size) if isinstance(size, int) else size
        return height * factor, width * factor
    if not isinstance(resolution, int):
        height, width = resolution
        if height % factor or width % factor or min(resolution) <= 0:
            raise ConfigError(
                f"size {height}x{width}: height and width must be multiples of {factor}, this model's pixels per latent"
            )
        return resolution
    if resolution % factor:
        raise ConfigError(f"resolution = {resolution} must be a multiple of {factor}, this model's pixels per latent")
    return resolution, resolution


def _latent_shape(pipeline: Any, size: Size) -> tuple[int, ...]:
    factor = pipeline.vae_scale_factor
    return pipeline.unet.config.in_channels, size[0] // factor, size[1] // factor


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


def _tokenize(pipeline: Any, prompts: Sequence[str], form: PromptForm) -> PromptTokens:
    """Token ids for the one text encoder."""
    return PromptTokens(ids=_token_ids(pipeline.tokenizer, prompts))


def _embed_tokens(encoders: Sequence[Any], tokens: PromptTokens) -> TextConditioning:
    """The last hidden states of the one text encoder."""
    (encoder,) = encoders
    return TextConditioning(prompt_embeds=widened(encoder(tokens.ids.to(encoder.device)).last_hidden_state))


def _tokenize_xl(pipeline: Any, prompts: Sequence[str], form: PromptForm) -> PromptTokens:
    """Token ids for both text encoders, and image sizes.

    If the pipeline has ``force_zeros_for_empty_prompt``, an empty prompt is embedded as zeros, as diffusers does for a
    missing negative prompt. Images count as drawn in the model's size and not cropped:
    ``time_ids`` has the columns original height and width, crop from the top and from the left, target height and
    width.
    """
    zeros = pipeline.config.force_zeros_for_empty_prompt
    time_ids = torch.tensor([*form.size, 0, 0, *form.size], dtype=torch.float32)
    return PromptTokens(
        ids=_token_ids(pipeline.tokenizer, prompts),
        ids_2=_token_ids(pipeline.tokenizer_2, prompts),
        is_zero=torch.tensor([not prompt for prompt in prompts]) if zeros else None,
        time_ids=time_ids.repeat(len(prompts), 1),
    )


def _embed_tokens_xl(encoders: Sequence[Any], tokens: PromptTokens) -> TextConditioning:
    """The last but one hidden states of both text encoders side by side, and the second one's pooled embedding."""
    first, second = encoders
    assert tokens.ids_2 is not None
    assert tokens.time_ids is not None
    states = first(tokens.ids.to(first.device), output_hidden_states=True).hidden_states[-2]
    output = second(tokens.ids_2.to(second.device), output_hidden_states=True)
    embeds, pooled = torch.cat([states, output.hidden_states[-2]], -1), output.text_embeds
    if tokens.is_zero is not None:
        is_zero = tokens.is_zero.to(embeds.device)
        embeds, pooled = embeds.masked_fill(is_zero[:, None, None], 0.0), pooled.masked_fill(is_zero[:, None], 0.0)
    return TextConditioning(
        prompt_embeds=widened(embeds),
        pooled_prompt_embeds=widened(pooled),
        time_ids=tokens.time_ids.to(embeds.device),
    )


def _predict(
    unet: nn.Module, latents: Tensor, timestep: Tensor, conditioning: TextConditioning, dtype: torch.dtype
) -> Tensor:
    added = {"text_embeds": conditioning.pooled_prompt_embeds, "time_ids": conditioning.time_ids}
    prediction: Tensor = unet(
        latents.to(dtype),
        timestep,
        encoder_hidden_states=conditioning.prompt_embeds.to(dtype),
        added_cond_kwargs={name: value.to(dtype) for name, value in added.items() if value is not None},
        return_dict=False,
    )[0]
    return prediction


def _adapter_names(layers: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names that diffusers reads; it expects all layers to be named alike."""
    return {
        name.replace(".lora_A.", ".lora.down.").replace(".lora_B.", ".lora.up."): value
        for name, value in layers.items()
    }


_UNET: dict[str, Any] = {
    "network": "unet",
    "process": _process,
    "conditioning": TextConditioning,
    "tokens": PromptTokens,
    "image_size": _image_size,
    "latent_shape": _latent_shape,
    "predict": _predict,
    "adapter_layers": {
        "attention": ATTENTION,
        "mlp": ("ff.net.0.proj", "ff.net.2", "proj_in", "proj_out"),
        "convolution": ("conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv"),
    },
    "adapter_names": _adapter_names,
    "distilled": _distilled,
    "samplers": DDPM_SAMPLERS,
}

STABLE_DIFFUSION = Family(
    pipeline=StableDiffusionPipeline,
    text_parts=("text_encoder",),
    text_layers={"text_encoder": CLIP_ATTENTION},
    tokenize=_tokenize,
    embed_tokens=_embed_tokens,
    single_file_keys=(
        "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
        "cond_stage_model.model.token_embedding.weight",
    ),
    **_UNET,
)
"""Stable Diffusion 1.x and 2.x."""

STABLE_DIFFUSION_XL = Family(
    pipeline=StableDiffusionXLPipeline,
    text_parts=("text_encoder", "text_encoder_2"),
    text_layers=dict.fromkeys(("text_encoder", "text_encoder_2"), CLIP_ATTENTION),
    tokenize=_tokenize_xl,
    embed_tokens=_embed_tokens_xl,
    unread_text_layers={"text_encoder": 1},  # the second one's pooled embedding comes from all of them
    single_file_keys=("conditioner.embedders.1.model.ln_final.weight",),
    **_UNET,
)
"""Stable Diffusion XL."""
