"""A diffusers pipeline behind the narrow :class:`seedpo.protocols.Denoiser`: it draws images and trains nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from seedpo.core.processes import Process
from seedpo.core.types import Conditioning
from seedpo.errors import ConfigError
from seedpo.models.families import Size, decode_latents, family_of, tokenizer_of, widened
from seedpo.models.loading import add_lora, add_trained, load_base
from seedpo.models.precision import autocast_dtype, store_rounded, vae_dtype
from seedpo.models.settings import ModelSettings
from seedpo.settings import Precision

PIXELS_PER_CALL = 2**20
"""Pixels that the autoencoder is given at a time (one image of 1024 px, four of 512 px): more take too much memory."""

Part = Literal["text_encoder", "vae"]


def images_of(
    vae: Any,
    latents: Tensor,
    *,
    rows: int,
    decode: Callable[[Any, Tensor], Tensor] = decode_latents,
    clamp: bool = True,
) -> Tensor:
    """Images (B, 3, height, width) in [0, 1] of latents (B, ...), decoded ``rows`` at a time.

    Without ``clamp`` they are what the decoder gives, a little outside that range.
    """
    device, parts = next(vae.parameters()).device, []
    for some in torch.split(latents, rows):
        pixels = decode(vae, some.to(device=device, dtype=vae.dtype))
        parts.append(pixels.float() / 2.0 + 0.5)
    images = torch.cat(parts)
    return images.clamp(0.0, 1.0) if clamp else images


class PipelineDenoiser:
    """A pipeline that draws images.

    Args:
        pipeline: a loaded pipeline, in float32; its parts are changed in place.
        resolution: side, or height and width, of images in pixels; ``None`` for the model's own.
        mixed_precision: number format of the forward passes; see :mod:`seedpo.models.precision`.
        max_sequence_length: tokens of the longest text encoder; ``None``: the family's usual.
        embedded_guidance: guidance that the network takes as an input; ``None``: the family's usual.
        trained: weights that are trained, by name; all others are frozen.

    Attributes:
        pipeline: the pipeline.
        family: what is special about its class.
        process: how latents are noised, and how a sampler takes one step.
        image_size: height and width of images, in pixels.
        latent_shape: shape of the latents of one image.
        prompt_form: what embedded prompts depend on beside their text.
        module: the network that :meth:`predict` calls.
        pinned: parts that stay on the device even if they are released.

    Raises:
        ConfigError: if the resolution does not fit the model, neither it nor the model gives one, or the model has no
            choice of text length or embedded guidance.
        DataError: if the pipeline's noise schedule or its network cannot be used.
    """

    def __init__(
        self,
        pipeline: Any,
        *,
        resolution: int | Size | None = None,
        mixed_precision: Precision = "no",
        max_sequence_length: int | None = None,
        embedded_guidance: float | None = None,
        trained: Mapping[str, nn.Parameter] | None = None,
    ) -> None:
        self.pipeline = pipeline
        self.family = family_of(pipeline)
        self.image_size = self.family.image_size(pipeline, resolution)
        self.process: Process = self.family.process(pipeline, self.image_size)
        self.prompt_form = self.family.prompt_form(
            self.image_size, length=max_sequence_length, guidance=embedded_guidance
        )
        self.latent_shape = self.family.latent_shape(pipeline, self.image_size)
        self.module: nn.Module = self.network
        self._half = autocast_dtype(mixed_precision)
        self.pinned: frozenset[Part] = frozenset()
        self._released: set[str] = set()
        parts = [part for part in self.family.text_encoders(pipeline) if part is not None]
        for part in (pipeline.vae, self.network, *parts):
            part.requires_grad_(False).eval()
        for parameter in (trained or {}).values():
            parameter.requires_grad_(True)
        if self._half is not None:
            for part in (self.network, *(getattr(pipeline, name) for name in self.family.text_layers)):
                store_rounded(part, self._half)
        dtype = vae_dtype(pipeline.vae, mixed_precision)
        if pipeline.vae.dtype != dtype:
            pipeline.vae.to(dtype)

    @property
    def conditioning_type(self) -> type[Conditioning]:
        """What :meth:`encode_prompts` gives and :meth:`predict` takes."""
        return self.family.conditioning

    @property
    def network(self) -> Any:
        """The pipeline's denoising network, without any wrapper."""
        return getattr(self.pipeline, self.family.network)

    @property
    def latent_scale(self) -> float | None:
        """What the autoencoder's latents are multiplied by; ``None`` where it does not say."""
        scale: float | None = self.pipeline.vae.config.get("scaling_factor")
        return scale

    @property
    def latent_shift(self) -> float:
        """What is taken from the autoencoder's latents before they are multiplied; 0 where it does not say."""
        return float(self.pipeline.vae.config.get("shift_factor") or 0.0)

    @property
    def device(self) -> torch.device:
        """Where latents are expected."""
        device: torch.device = next(self.network.parameters()).device
        return device

    def to(self, device: torch.device | str) -> None:
        """Moves everything except released parts."""
        for name in (*self._text_parts, "vae", self.family.network):
            if name not in self._released:
                getattr(self.pipeline, name).to(device)

    @property
    def _text_parts(self) -> tuple[str, ...]:
        """Names of the text encoders that the pipeline has."""
        return tuple(name for name in self.family.text_parts if getattr(self.pipeline, name) is not None)

    def release(self, *parts: Part) -> None:
        """Keeps parts in main memory from now on; a call that needs one brings it to the device and back.

        Args:
            parts: ``text_encoder`` (all of them) if embeddings are cached, ``vae`` if latents are.
        """
        for part in set(parts) - self.pinned:
            names = self._text_parts if part == "text_encoder" else (part,)
            self._released.update(names)
            for name in names:
                getattr(self.pipeline, name).to("cpu")

    @contextmanager
    def _on_device(self, *names: str) -> Iterator[None]:
        """Inside, released parts are on the device."""
        away = [getattr(self.pipeline, name) for name in names if name in self._released]
        for part in away:
            part.to(self.device)
        try:
            yield
        finally:
            for part in away:
                part.to("cpu")

    def _autocast(self) -> AbstractContextManager[object]:
        # Not `enabled=False`: that would switch off what a caller, or accelerate, has switched on.
        return nullcontext() if self._half is None else torch.autocast(self.device.type, dtype=self._half)

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """Embeds prompts as the pipeline does; each distinct prompt is encoded once."""
        distinct = {prompt: row for row, prompt in enumerate(dict.fromkeys(prompts))}
        conditioning = self._encode(list(distinct)).to(self.device)
        return conditioning[torch.tensor([distinct[prompt] for prompt in prompts], device=self.device)]

    def _encode(self, prompts: Sequence[str]) -> Conditioning:
        with self._on_device(*self._text_parts), self._autocast():
            return self.family.embed(self.pipeline, prompts, self.prompt_form)

    def unread_text(self, prompt: str) -> str:
        """The end of a prompt that the longest text encoder does not read; empty if it reads all.

        A template around prompts (Qwen-Image, Z-Image, FLUX.2) is not counted.
        """
        part = self._text_parts[-1]
        tokenizer = getattr(self.pipeline, tokenizer_of(part))
        tokenizer = getattr(tokenizer, "tokenizer", tokenizer)  # of a processor
        chosen = self.prompt_form.length if part == self.family.text_parts[-1] else None
        length = tokenizer.model_max_length if chosen is None else chosen
        own = tokenizer(prompt, add_special_tokens=False).input_ids
        read = max(0, length - tokenizer.num_special_tokens_to_add())
        return str(tokenizer.decode(own[read:])) if len(own) > read else ""

    def require_guidance(self, scale: float, *, key: str) -> None:
        """Refuses classifier-free guidance with a model that has none.

        Args:
            scale: 1 is no guidance.
            key: what sets it, for the message.

        Raises:
            ConfigError: if the scale is another.
        """
        if scale != 1 and (reason := self.family.unguided(self.pipeline)) is not None:
            raise ConfigError(f"{key} = {scale:g} must be 1: {reason}")

    def predict(self, latents: Tensor, timestep: Tensor, conditioning: Any) -> Tensor:
        """The network's raw prediction for latents (B, ...) at time steps (B,), in float32 or wider."""
        dtype = torch.float32 if self._half is not None else _float_format(self.network)
        with self._autocast():
            return widened(self._raw_prediction(latents, timestep, conditioning, dtype))

    def _raw_prediction(self, latents: Tensor, timestep: Tensor, conditioning: Any, dtype: torch.dtype) -> Tensor:
        return self.family.predict(self.module, latents, timestep, conditioning, dtype)

    def encode_images(self, images: Tensor) -> Tensor:
        """Mean latents (B, ...) of images (B, 3, height, width) in [0, 1], scaled as the network expects them."""
        return self.encode_distribution(images)[0]

    @torch.no_grad()
    def encode_distribution(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, (B, ...) each, of the autoencoder's distribution of the images' latents."""
        vae, rows = self.pipeline.vae, rows_per_call(*images.shape[-2:])
        with self._on_device("vae"):
            parts = [
                self.family.encode(vae, some.to(device=self.device, dtype=vae.dtype) * 2.0 - 1.0)
                for some in torch.split(images, rows)
            ]
        means, stds = zip(*parts, strict=True)
        return torch.cat(means), torch.cat(stds)

    @torch.no_grad()
    def decode(self, latents: Tensor, *, clamp: bool = True) -> Tensor:
        """Images (B, 3, height, width) in [0, 1]; without ``clamp`` as the decoder gives them."""
        rows = rows_per_call(*self.image_size)
        with self._on_device("vae"):
            return images_of(self.pipeline.vae, latents, rows=rows, decode=self.family.decode, clamp=clamp)


def _float_format(network: nn.Module) -> torch.dtype:
    """The number format of a network's weights; those of quantised layers have none."""
    return next(parameter.dtype for parameter in network.parameters() if parameter.is_floating_point())


def rows_per_call(height: int, width: int) -> int:
    """Images of a size in pixels that the autoencoder is given at a time."""
    return max(1, PIXELS_PER_CALL // (height * width))


def load_denoiser(
    settings: ModelSettings, *, weights: Path | None = None, lora: Path | None = None, size: Size | None = None
) -> PipelineDenoiser:
    """Loads the model that settings name, to draw with it; no copy of the network is made.

    Args:
        settings: the model.
        weights: folder of the trained weights of a run with these settings; ``None`` for the base model.
        lora: file of a LoRA in a format that diffusers reads.
        size: height and width of images in pixels; ``None`` for the resolution of the settings.

    Raises:
        ConfigError: if the name is unknown, or the resolution does not fit the model.
        DataError: if the model or the weights cannot be loaded.
    """
    pipeline = load_base(settings)
    if weights is not None:
        add_trained(pipeline, weights, adapter=settings.adapter)
    if lora is not None:
        add_lora(pipeline, lora)
    return PipelineDenoiser(
        pipeline,
        resolution=size or settings.resolution,
        mixed_precision=settings.mixed_precision,
        max_sequence_length=settings.max_sequence_length,
        embedded_guidance=settings.embedded_guidance,
    )
