"""Stable Diffusion 1.x, 2.x and XL: a UNet on latents (C, H, W), CLIP text encoders, a DDPM noise schedule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from torch import Tensor, nn

from seedpo.core.processes import DiffusionProcess
from seedpo.core.types import Conditioning
from seedpo.errors import ConfigError, DataError
from seedpo.models.families import Family, Size, widened
from seedpo.models.samplers import DDPM_SAMPLERS


@dataclass(frozen=True, kw_only=True)
class TextConditioning(Conditioning):
    """Embedded prompts and, for SDXL, image sizes.

    Attributes:
        prompt_embeds: one embedded prompt per row, (B, L, D).
        pooled_prompt_embeds: pooled embedding for models that take one (SDXL), (B, P).
        time_ids: size and crop in pixels for models that take them (SDXL), (B, 6).
    """

    prompt_embeds: Tensor
    pooled_prompt_embeds: Tensor | None = None
    time_ids: Tensor | None = None

    @property
    def sizes(self) -> Tensor | None:
        """``time_ids``."""
        return self.time_ids

    def with_sizes(self, sizes: Tensor | None) -> TextConditioning:
        """The same with other ``time_ids``, where the model takes them."""
        if self.time_ids is None or sizes is None:
            return self
        return replace(self, time_ids=sizes.to(self.time_ids))


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


def _process(pipeline: Any) -> DiffusionProcess:
    if pipeline.unet.config.time_cond_proj_dim is not None:
        raise DataError("a UNet with distilled guidance (LCM) cannot be trained; use the model that it was made from")
    return diffusion_process(pipeline.scheduler)


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


def _misfit(unet: Any, vae: Any) -> str | None:
    expected, channels = unet.config.in_channels, vae.config.latent_channels
    return (
        None if channels == expected else f"the UNet takes {expected} latent channels, the autoencoder has {channels}"
    )


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


def _embed(pipeline: Any, prompts: Sequence[str], size: Size) -> TextConditioning:
    """The last hidden states of the one text encoder."""
    encoder = pipeline.text_encoder
    ids = _token_ids(pipeline.tokenizer, prompts).to(encoder.device)
    return TextConditioning(prompt_embeds=widened(encoder(ids).last_hidden_state))


def _embed_xl(pipeline: Any, prompts: Sequence[str], size: Size) -> TextConditioning:
    """The last but one hidden states of both text encoders side by side, and the second one's pooled embedding.

    If the pipeline has ``force_zeros_for_empty_prompt``, an empty prompt is embedded as zeros, as diffusers does for a
    missing negative prompt. Images count as drawn in the model's size and not cropped:
    ``time_ids`` has the columns original height and width, crop from the top and from the left, target height and
    width.
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
    time_ids = torch.tensor([*size, 0, 0, *size], dtype=torch.float32, device=embeds.device)
    return TextConditioning(
        prompt_embeds=widened(embeds),
        pooled_prompt_embeds=widened(pooled),
        time_ids=time_ids.repeat(len(prompts), 1),
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
    "image_size": _image_size,
    "latent_shape": _latent_shape,
    "misfit": _misfit,
    "predict": _predict,
    "adapter_layers": {
        "attention": ("to_q", "to_k", "to_v", "to_out.0"),
        "mlp": ("ff.net.0.proj", "ff.net.2", "proj_in", "proj_out"),
        "convolution": ("conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv"),
    },
    "adapter_names": _adapter_names,
    "samplers": DDPM_SAMPLERS,
}

STABLE_DIFFUSION = Family(
    pipeline=StableDiffusionPipeline,
    text_parts=("text_encoder",),
    embed=_embed,
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
    embed=_embed_xl,
    single_file_keys=("conditioner.embedders.1.model.ln_final.weight",),
    **_UNET,
)
"""Stable Diffusion XL."""
