"""Stable Diffusion 1.x, 2.x and XL pipelines behind the narrow :class:`seedpo.protocols.Policy`.

The trained network is the pipeline's UNet, whole or through a LoRA adapter. With an adapter the reference is the same
network with the adapter switched off, so that no second UNet is held; in full fine-tuning it is a frozen copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Literal

import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn

from seedpo.core.diffusion import NoiseSchedule
from seedpo.core.types import Conditioning
from seedpo.errors import ConfigError, DataError
from seedpo.models.lora import LORA_FILE, add_adapter, leave_casts_to_autocast, peft_weights, save_adapter
from seedpo.models.pipelines import KINDS, Pipeline
from seedpo.models.precision import autocast_dtype, store_rounded, vae_dtype
from seedpo.models.saving import WEIGHTS_FILE, read_weights, save_unet
from seedpo.models.schedule import noise_schedule
from seedpo.settings import Precision

PIXELS_PER_CALL = 2**20
"""Pixels that the autoencoder is given at a time (one image of 1024 px, four of 512 px): more take too much memory."""

Part = Literal["text_encoder", "vae"]


class StableDiffusionPolicy:
    """A Stable Diffusion pipeline as policy and reference.

    Args:
        pipeline: a loaded pipeline, in float32; its parts are changed in place.
        adapter: ``lora`` adds an adapter to the UNet, ``full`` trains the UNet itself.
        lora_rank: rank (and alpha) of the adapter.
        seed: seed of the adapter's initial weights.
        resolution: height and width of images in pixels; none: the model's own.
        mixed_precision: format of the forward passes; see :mod:`seedpo.models.precision`.
        gradient_checkpointing: keep few activations of the trained UNet and compute the others again in the backward
            pass: less memory, about a third more time, the same gradients.
        compile_networks: hand the UNet, and its frozen copy if there is one, to ``torch.compile``.

    Raises:
        ConfigError: if ``resolution`` is no multiple of the autoencoder's factor, or neither it nor the model says one.
        DataError: if the pipeline's noise schedule or its UNet is of another family, or cannot carry an adapter.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        adapter: Literal["lora", "full"] = "lora",
        lora_rank: int = 4,
        seed: int = 0,
        resolution: int | None = None,
        mixed_precision: Precision = "no",
        gradient_checkpointing: bool = False,
        compile_networks: bool = False,
    ) -> None:
        self.pipeline = pipeline
        self.adapter = adapter
        self._kind = KINDS[type(pipeline).__name__]
        self._schedule = noise_schedule(pipeline.scheduler)
        self._factor: int = pipeline.vae_scale_factor
        self._latent_size = _latent_size(pipeline, resolution)
        self._half = autocast_dtype(mixed_precision)
        self._released: set[str] = set()
        self._on_reference = False
        self._moved: dict[str, Tensor] = {}
        if pipeline.unet.config.time_cond_proj_dim is not None:
            raise DataError("a UNet with distilled guidance (LCM) cannot be trained; take the model it was made from")
        parts = [getattr(pipeline, name) for name in self._kind.text_parts]
        for part in (pipeline.vae, pipeline.unet, *parts):
            part.requires_grad_(False).eval()
        self.module: nn.Module = pipeline.unet
        self.frozen: nn.Module | None = None
        """The reference of full fine-tuning; whoever prepares ``module`` for a device prepares it too."""
        if adapter == "lora":
            add_adapter(pipeline.unet, rank=lora_rank, seed=seed)
        else:
            self.frozen = deepcopy(pipeline.unet)
            pipeline.unet.requires_grad_(True)
        networks = [pipeline.unet] if self.frozen is None else [pipeline.unet, self.frozen]
        if self._half is not None:
            leave_casts_to_autocast(pipeline.unet)
            for network in (*networks, *parts):
                store_rounded(network, self._half)
        dtype = vae_dtype(pipeline.vae, mixed_precision)
        if pipeline.vae.dtype != dtype:
            pipeline.vae.to(dtype)
        if gradient_checkpointing:
            pipeline.unet.enable_gradient_checkpointing()
        if compile_networks:
            for network in networks:
                network.compile()

    @property
    def schedule(self) -> NoiseSchedule:
        """Noise levels and the kind of prediction."""
        return self._schedule

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of one latent image."""
        channels: int = self.pipeline.unet.config.in_channels
        return channels, *self._latent_size

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of images, in pixels."""
        height, width = self._latent_size
        return height * self._factor, width * self._factor

    @property
    def device(self) -> torch.device:
        """Where latents are expected."""
        device: torch.device = next(self.pipeline.unet.parameters()).device
        return device

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """Names and tensors of the parameters that are trained, in a fixed order."""
        return {name: value for name, value in self.pipeline.unet.named_parameters() if value.requires_grad}

    def to(self, device: torch.device | str) -> None:
        """Moves everything but what was released."""
        kept = [name for name in (*self._kind.text_parts, "vae", "unet") if name not in self._released]
        for network in (*(getattr(self.pipeline, name) for name in kept), self.frozen):
            if network is not None:
                network.to(device)

    def release(self, *parts: Part) -> None:
        """Keeps parts in main memory from now on; a call that needs one brings it to the device and back.

        Args:
            parts: ``text_encoder`` (all of them) where embeddings are cached, ``vae`` where latents are.
        """
        for part in parts:
            names = self._kind.text_parts if part == "text_encoder" else (part,)
            self._released.update(names)
            for name in names:
                getattr(self.pipeline, name).to("cpu")

    @contextmanager
    def _at_work(self, *names: str) -> Iterator[None]:
        """Inside, parts that were released are on the device."""
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
        """Embeds prompts as the pipeline does: padded and cut to the tokenizer's length, each distinct one once.

        SDXL is told that the images have the model's size and are not cropped; ``time_ids`` has the columns original
        height and width, crop from above and from the left, target height and width.
        """
        distinct = {prompt: row for row, prompt in enumerate(dict.fromkeys(prompts))}
        with self._at_work(*self._kind.text_parts), self._autocast():
            embeds, pooled = self._kind.embed(self.pipeline, list(distinct))
        rows = torch.tensor([distinct[prompt] for prompt in prompts], device=self.device)
        sizes = torch.tensor([*self.image_size, 0, 0, *self.image_size], dtype=torch.float32, device=self.device)
        return Conditioning(
            prompt_embeds=_widened(embeds)[rows],
            pooled_prompt_embeds=None if pooled is None else _widened(pooled)[rows],
            time_ids=sizes.repeat(len(prompts), 1) if self._kind.sizes else None,
        )

    def predict(self, latents: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        """The UNet's raw prediction, (B, C, H, W), in float32 or wider."""
        network = self.frozen if self._on_reference and self.frozen is not None else self.module
        dtype = torch.float32 if self._half is not None else self.pipeline.unet.conv_in.weight.dtype
        added = {"text_embeds": conditioning.pooled_prompt_embeds, "time_ids": conditioning.time_ids}
        with self._autocast():
            prediction: Tensor = network(
                latents.to(dtype),
                timestep,
                encoder_hidden_states=conditioning.prompt_embeds.to(dtype),
                added_cond_kwargs={name: value.to(dtype) for name, value in added.items() if value is not None},
                return_dict=False,
            )[0]
        return _widened(prediction)

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Within this context :meth:`predict` answers as the untrained model does, without gradient."""
        self._on_reference = True
        if self._moved:
            self._exchange()
        elif self.adapter == "lora":
            self.pipeline.unet.disable_adapters()
        try:
            with torch.no_grad():
                yield
        finally:
            self._on_reference = False
            if self._moved:
                self._exchange()
            elif self.adapter == "lora":
                self.pipeline.unet.enable_adapters()

    def move_reference(self) -> None:
        """Makes the policy as it is now the reference; only to reproduce code that does so, since it unlearns the base.

        Must not be called within :meth:`reference`, nor while the weights are in shards.
        """
        if self.frozen is not None:
            self.frozen.load_state_dict(self.pipeline.unet.state_dict())
        else:
            self._moved = {name: value.detach().clone() for name, value in self.trainable_parameters().items()}

    def _exchange(self) -> None:
        """Puts the adapter that the reference has in the place of the trained one, or back."""
        for name, parameter in self.trainable_parameters().items():
            parameter.data, self._moved[name] = self._moved[name], parameter.data

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> Tensor:
        """Mean latents (B, C, H, W) of images (B, 3, height, width) in [0, 1], scaled as the UNet expects them."""
        vae, parts = self.pipeline.vae, []
        with self._at_work("vae"):
            for some in torch.split(images, _rows_per_call(images.shape[-2] * images.shape[-1])):
                pixels = some.to(device=self.device, dtype=vae.dtype) * 2.0 - 1.0
                parts.append(_widened(vae.encode(pixels).latent_dist.mean) * vae.config.scaling_factor)
        return torch.cat(parts)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Images (B, 3, height, width) in [0, 1]."""
        vae, parts = self.pipeline.vae, []
        pixels = latents.shape[-2] * latents.shape[-1] * self._factor**2
        with self._at_work("vae"):
            for some in torch.split(latents, _rows_per_call(pixels)):
                some = some.to(device=self.device, dtype=vae.dtype) / vae.config.scaling_factor
                images: Tensor = vae.decode(some, return_dict=False)[0]
                parts.append((images.float() / 2.0 + 0.5).clamp(0.0, 1.0))
        return torch.cat(parts)

    def save(self, folder: Path) -> None:
        """Writes the adapter as ``pytorch_lora_weights.safetensors``, or the whole UNet, in diffusers' format."""
        if self.adapter == "lora":
            save_adapter(self.pipeline.unet, folder)
        else:
            save_unet(self.pipeline.unet, folder)

    def load(self, folder: Path) -> None:
        """Reads what :meth:`save` wrote into the very tensors that are trained; the reference does not move.

        Raises:
            DataError: if the file is missing or cut, or its keys are not those of this adapter.
        """
        path = folder / (LORA_FILE if self.adapter == "lora" else WEIGHTS_FILE)
        weights = read_weights(path, self.adapter)
        unet = self.pipeline.unet
        if self.adapter == "lora":
            weights, expected = peft_weights(weights), get_peft_model_state_dict(unet)
        else:
            expected = unet.state_dict()
        wrong = set(weights.keys() ^ expected.keys()) | {
            name for name in weights.keys() & expected.keys() if weights[name].shape != expected[name].shape
        }
        if wrong:
            raise DataError(f"{path} does not fit this model: {len(wrong)} tensors differ, for example {min(wrong)!r}")
        if self.adapter == "lora":
            set_peft_model_state_dict(unet, weights)
        else:
            unet.load_state_dict(weights)


def _widened(values: Tensor) -> Tensor:
    """In float32, unless it is wider already."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _rows_per_call(pixels: int) -> int:
    return max(1, PIXELS_PER_CALL // pixels)


def _latent_size(pipeline: Pipeline, resolution: int | None) -> tuple[int, int]:
    """Height and width of latents."""
    if resolution is None:
        size = pipeline.unet.config.sample_size
        if size is None:
            raise ConfigError("this model does not say for which image size it was made; set resolution, in pixels")
        return (size, size) if isinstance(size, int) else tuple(size)
    factor = pipeline.vae_scale_factor
    if resolution % factor:
        raise ConfigError(f"resolution = {resolution} must be a multiple of {factor}, this model's pixels per latent")
    return resolution // factor, resolution // factor
