"""Families of models: all that differs between pipeline classes, as one record each.

A family enters with one module that holds its record, and one row of :data:`FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from seedpo.core.processes import Process
from seedpo.core.types import Conditioning
from seedpo.models.samplers import Scheduler
from seedpo.registry import Entry, Registry

Size = tuple[int, int]
"""Height and width of images, in pixels."""


def widened(values: Tensor) -> Tensor:
    """The values in float32, unless they are wider already."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def encode_pixels(vae: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the latents of pixels in [-1, 1].

    Shifted and scaled as the denoising network expects them.
    """
    latents, shift = vae.encode(pixels).latent_dist, vae.config.get("shift_factor")
    mean, scale = widened(latents.mean), vae.config.scaling_factor
    return (mean - shift if shift else mean) * scale, widened(latents.std) * scale


def decode_latents(vae: Any, latents: Tensor) -> Tensor:
    """Pixels of latents, about in [-1, 1]: the inverse of :func:`encode_pixels`."""
    latents, shift = latents / vae.config.scaling_factor, vae.config.get("shift_factor")
    pixels: Tensor = vae.decode(latents + shift if shift else latents, return_dict=False)[0]
    return pixels


@dataclass(frozen=True, kw_only=True)
class Family:
    """A pipeline class as data and functions.

    Attributes:
        pipeline: the class in diffusers.
        network: name of the pipeline's part that is trained, for example ``unet``.
        text_parts: names of its text encoders; the tokenizer of ``text_encoder_2`` is ``tokenizer_2``.
        process: the diffusion process of a pipeline; it refuses a pipeline that cannot be trained.
        image_size: size of images, from the pipeline and the side or size that the user set, if any.
        latent_shape: shape of the latents of one image, from the pipeline and the size of images.
        misfit: why an autoencoder does not fit the network, from both; ``None`` if it does.
        conditioning: embedded prompts: what ``embed`` gives and ``predict`` takes.
        tokens: prompts before they are embedded: what ``tokenize`` gives and ``embed_tokens`` takes.
        tokenize: reads B prompts, from the pipeline, the prompts and the size of images.
        embed_tokens: embeds them, from the text encoders in the order of ``text_parts``, and the tokens.
        predict: the network's raw prediction, from the network, latents (B, ...), times (B,), conditioning and the
            number format of the inputs.
        encode: mean and standard deviation of the latents of pixels in [-1, 1], from the autoencoder.
        decode: pixels of latents, from the autoencoder.
        adapter_layers: endings of the names of layers that can carry a LoRA adapter, by group.
        adapter_names: an adapter's tensors under the names in a file of diffusers, from those of peft.
        text_layers: endings of the names of the text encoders' layers that can carry a LoRA adapter; none: they cannot.
        unread_text_layers: how many of a text encoder's last layers no embedding comes from, by part.
        single_file_keys: tensors that only single-file checkpoints of this class have.
        own_sampler: name of the sampler whose steps the process takes.
        samplers: other samplers of images, by name.
    """

    pipeline: Any
    network: str
    text_parts: tuple[str, ...]
    process: Callable[[Any], Process]
    image_size: Callable[[Any, int | Size | None], Size]
    latent_shape: Callable[[Any, Size], tuple[int, ...]]
    misfit: Callable[[Any, Any], str | None]
    conditioning: type[Conditioning]
    tokens: type[Conditioning]
    tokenize: Callable[[Any, Sequence[str], Size], Conditioning]
    embed_tokens: Callable[[Sequence[Any], Any], Conditioning]
    predict: Callable[[nn.Module, Tensor, Tensor, Any, torch.dtype], Tensor]
    encode: Callable[[Any, Tensor], tuple[Tensor, Tensor]] = encode_pixels
    decode: Callable[[Any, Tensor], Tensor] = decode_latents
    adapter_layers: Mapping[str, tuple[str, ...]]
    adapter_names: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict
    text_layers: tuple[str, ...] = ()
    unread_text_layers: Mapping[str, int] = field(default_factory=dict)
    single_file_keys: tuple[str, ...] = ()
    own_sampler: str = "ddim"
    samplers: Mapping[str, Scheduler] = field(default_factory=dict)

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of everything that a pipeline needs to be used here."""
        tokenizers = (name.replace("text_encoder", "tokenizer") for name in self.text_parts)
        return (*tokenizers, *self.text_parts, self.network, "vae", "scheduler")

    def text_encoders(self, pipeline: Any) -> list[Any]:
        """The text encoders of a pipeline, in the order of ``text_parts``."""
        return [getattr(pipeline, name) for name in self.text_parts]

    def embed(self, pipeline: Any, prompts: Sequence[str], size: Size) -> Conditioning:
        """Embeds B prompts for images of a size."""
        return self.embed_tokens(self.text_encoders(pipeline), self.tokenize(pipeline, prompts, size))


FAMILIES = Registry(
    "pipeline class",
    (
        Entry(
            name="StableDiffusionPipeline",
            target="seedpo.models.stable_diffusion:STABLE_DIFFUSION",
            summary="Stable Diffusion 1.x and 2.x",
        ),
        Entry(
            name="StableDiffusionXLPipeline",
            target="seedpo.models.stable_diffusion:STABLE_DIFFUSION_XL",
            summary="Stable Diffusion XL",
        ),
    ),
)
"""Families by the name of the pipeline class, as ``model_index.json`` has it."""


def family_of(pipeline: Any) -> Family:
    """The family of a loaded pipeline.

    Raises:
        ConfigError: if its class has none.
    """
    family: Family = FAMILIES.load(type(pipeline).__name__)
    return family
