"""A run's model on the meta device: the same classes and the same adapter, without a single weight."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DDIMScheduler, SchedulerMixin, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from seedpo.errors import DataError
from seedpo.models.families import FAMILIES
from seedpo.models.policy import PipelinePolicy
from seedpo.models.precision import autocast_dtype, store_rounded, vae_dtype
from seedpo.planning.configurations import Configuration, ModelConfiguration, autoencoder_configuration
from seedpo.training.settings import RunConfig

AUTOENCODERS: dict[str, Any] = {"AutoencoderKL": AutoencoderKL, "AutoencoderTiny": AutoencoderTiny}


@contextmanager
def _explained(what: str, origin: str) -> Iterator[None]:
    """Turns what the libraries raise for a configuration that they cannot build into one line."""
    try:
        with torch.device("meta"):
            yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{origin}: no {what} can be built from its configuration ({error})") from error


def build_policy(config: RunConfig, model: ModelConfiguration) -> PipelinePolicy:
    """The run's policy on the meta device, with the precision of its parts as they would be on a GPU.

    Args:
        config: the run's settings.
        model: the model's configuration files.

    Raises:
        ConfigError: if the resolution does not fit the model.
        DataError: if the configuration is not that of a Stable Diffusion 1, 2 or XL model.
    """
    parts, half = model.parts, autocast_dtype(config.mixed_precision)
    two_encoders = "text_encoder_2" in parts
    family = FAMILIES.load("StableDiffusionXLPipeline" if two_encoders else "StableDiffusionPipeline")
    with _explained("UNet2DConditionModel", model.origin):
        unet = UNet2DConditionModel.from_config(dict(parts["unet"]))
    vae = build_autoencoder(parts["vae"], model.origin)
    with _explained("text encoder", model.origin):
        networks = {"text_encoder": CLIPTextModel(CLIPTextConfig(**parts["text_encoder"]))}
        tokenizers: dict[str, Any] = {"tokenizer": None}
        if two_encoders:
            networks["text_encoder_2"] = CLIPTextModelWithProjection(CLIPTextConfig(**parts["text_encoder_2"]))
            tokenizers["tokenizer_2"] = None
    unloaded = {} if two_encoders else {"safety_checker": None, "requires_safety_checker": False}
    extra = {} if two_encoders else {"feature_extractor": None}
    pipeline = family.pipeline(
        unet=unet, vae=vae, **networks, **tokenizers, **unloaded, **extra, scheduler=_scheduler(parts["scheduler"])
    )
    policy = PipelinePolicy(
        pipeline,
        adapter=config.adapter,
        lora_rank=config.lora_rank,
        resolution=config.resolution,
        gradient_checkpointing=config.gradient_checkpointing,
    )
    policy.to("meta")  # an adapter is made on the CPU
    # Autocast knows no meta device: what the policy would do for it is done here, and the meter imitates its casts.
    if half is not None:
        frozen = [] if policy.adapter.frozen is None else [policy.adapter.frozen]
        for network in (unet, *networks.values(), *frozen):
            store_rounded(network, half)
    nn.Module.to(vae, vae_dtype(vae, config.mixed_precision))
    return policy


def _scheduler(configuration: Configuration) -> SchedulerMixin:
    """A scheduler of the class that the configuration names, since its noise levels may be of another family."""
    import diffusers

    cls = getattr(diffusers, str(configuration.get("_class_name")), DDIMScheduler)
    return cls.from_config(dict(configuration))


def build_autoencoder(configuration: Configuration, origin: str) -> Any:
    """An autoencoder on the meta device.

    Raises:
        DataError: if its class is not known here or cannot be built.
    """
    name = configuration.get("_class_name")
    if name not in AUTOENCODERS:
        raise DataError(f"{origin}: the autoencoder is a {name}; there are: {', '.join(AUTOENCODERS)}")
    with _explained(str(name), origin):
        autoencoder = AUTOENCODERS[name].from_config(dict(configuration))
    return autoencoder.eval().requires_grad_(False)


def build_preview(config: RunConfig) -> Any | None:
    """The autoencoder that decodes previews, if the run has one of its own."""
    if config.preview_vae is None:
        return None
    configuration = autoencoder_configuration(config.preview_vae, key="preview_vae")
    return build_autoencoder(configuration, f"preview_vae = {config.preview_vae}")


def weight_bytes(network: nn.Module | None) -> int:
    """Bytes of a network's weights and buffers, as they are stored."""
    if network is None:
        return 0
    return sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers()))
