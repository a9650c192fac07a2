"""Families of models: all that differs between pipeline classes, as one record each.

A family enters with one module that holds its record, and one row of
:data:`seedpo.models.pipeline_classes.FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from seedpo.core.processes import Process
from seedpo.core.types import Conditioning
from seedpo.errors import ConfigError
from seedpo.models.pipeline_classes import FAMILIES
from seedpo.models.samplers import Scheduler

Size = tuple[int, int]
"""Height and width of images, in pixels."""


@dataclass(frozen=True, kw_only=True)
class PromptForm:
    """What an embedded prompt depends on beside its text.

    Attributes:
        size: of the images.
        length: tokens of the longest text encoder; ``None``: the family has no such choice.
        guidance: value of embedded guidance; ``None``: the network takes none.
    """

    size: Size
    length: int | None = None
    guidance: float | None = None


def widened(values: Tensor) -> Tensor:
    """The values in float32, unless they are wider already."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def latent_channels(network: Any, vae: Any) -> tuple[int, int]:
    """Latent channels that a network takes, and those of an autoencoder, from their configurations."""
    return network.config.in_channels, vae.config.latent_channels


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
        process: the process of a pipeline that draws images of a size; it refuses a pipeline that cannot be used.
        image_size: size of images, from the pipeline and the side or size that the user set, if any.
        latent_shape: shape of the latents of one image, from the pipeline and the size of images.
        latent_channels: how many the network takes and how many the autoencoder has, from both.
        conditioning: embedded prompts: what ``embed`` gives and ``predict`` takes.
        tokens: prompts before they are embedded: what ``tokenize`` gives and ``embed_tokens`` takes.
        tokenize: reads B prompts, from the pipeline, the prompts and their form.
        embed_tokens: embeds them, from the text encoders in the order of ``text_parts`` (``None`` where one is
            absent), and the tokens.
        predict: the network's prediction as the process defines it, from the network, latents (B, C, H, W), times
            (B,), conditioning and the number format of the inputs. What packs latents packs and unpacks them here.
        encode: mean and standard deviation of the latents of pixels in [-1, 1], from the autoencoder.
        decode: pixels of latents, from the autoencoder.
        adapter_layers: endings of the names of layers that can carry a LoRA adapter, by group.
        adapter_names: an adapter's tensors under the names in a file of diffusers, from those of peft.
        original_layers: layers of the network under their names in the model's original code, ``{}`` for a number, and
            here; several share the rows of one. Only those that diffusers' loader of LoRAs does not rename.
        text_layers: endings of the names of layers that can carry a LoRA adapter, by text encoder; others cannot. These
            encoders compute under autocast; all others as they were loaded.
        unread_text_layers: how many of a text encoder's last layers no embedding comes from, by part.
        unread_layers: parts of the names of the denoising network's layers that no prediction comes from, from it.
        single_file_keys: tensors that only single-file checkpoints of this class have.
        own_sampler: name of the sampler whose steps the process takes.
        samplers: other samplers of images, by name.
        autoencoder: class of the pipeline's autoencoder.
        optional_parts: text encoders that a pipeline may lack.
        max_sequence_length: tokens of the longest text encoder, where a user may choose; ``None``: there is no choice.
        longest_text: the largest ``max_sequence_length``; ``None``: any.
        embedded_guidance: the usual value of guidance that the network takes as an input; ``None``: it takes none.
        distilled: why a pipeline must not be trained: few-step students lose their speed and blur; ``None``: it may.
        unguided: why classifier-free guidance cannot be used with a pipeline; ``None``: it can.
        usual_steps: denoising steps of a sampler; ``None``: the default of the pipeline's call.
        usual_guidance: usual guidance scale, where 1 is none; ``None``: the default of the pipeline's call.
    """

    pipeline: Any
    network: str
    text_parts: tuple[str, ...]
    process: Callable[[Any, Size], Process]
    image_size: Callable[[Any, int | Size | None], Size]
    latent_shape: Callable[[Any, Size], tuple[int, ...]]
    conditioning: type[Conditioning]
    tokens: type[Conditioning]
    tokenize: Callable[[Any, Sequence[str], PromptForm], Conditioning]
    embed_tokens: Callable[[Sequence[Any], Any], Conditioning]
    predict: Callable[[nn.Module, Tensor, Tensor, Any, torch.dtype], Tensor]
    latent_channels: Callable[[Any, Any], tuple[int, int]] = latent_channels
    encode: Callable[[Any, Tensor], tuple[Tensor, Tensor]] = encode_pixels
    decode: Callable[[Any, Tensor], Tensor] = decode_latents
    adapter_layers: Mapping[str, tuple[str, ...]]
    adapter_names: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict
    original_layers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    text_layers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unread_text_layers: Mapping[str, int] = field(default_factory=dict)
    unread_layers: Callable[[Any], tuple[str, ...]] = lambda network: ()
    single_file_keys: tuple[str, ...] = ()
    own_sampler: str = "ddim"
    samplers: Mapping[str, Scheduler] = field(default_factory=dict)
    autoencoder: Any = AutoencoderKL
    optional_parts: tuple[str, ...] = ()
    max_sequence_length: int | None = None
    longest_text: int | None = None
    embedded_guidance: float | None = None
    distilled: Callable[[Any], str | None] = lambda pipeline: None
    unguided: Callable[[Any], str | None] = lambda pipeline: None
    usual_steps: int | None = None
    usual_guidance: float | None = None

    def misfit(self, network: Any, vae: Any) -> str | None:
        """Why an autoencoder does not fit the network; ``None`` if it does."""
        expected, channels = self.latent_channels(network, vae)
        if channels == expected:
            return None
        return f"the {self.network} takes {expected} latent channels, the autoencoder has {channels}"

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of everything that a pipeline needs to be used here."""
        needed = [name for name in self.text_parts if name not in self.optional_parts]
        return (*map(tokenizer_of, needed), *needed, self.network, "vae", "scheduler")

    def text_encoders(self, pipeline: Any) -> list[Any]:
        """The text encoders of a pipeline, in the order of ``text_parts``; ``None`` where one is absent."""
        return [getattr(pipeline, name) for name in self.text_parts]

    def embed(self, pipeline: Any, prompts: Sequence[str], form: PromptForm) -> Conditioning:
        """Embeds B prompts."""
        return self.embed_tokens(self.text_encoders(pipeline), self.tokenize(pipeline, prompts, form))

    def prompt_form(self, size: Size, *, length: int | None = None, guidance: float | None = None) -> PromptForm:
        """The form of prompts for images of a size, with a user's choices in place of the usual ones.

        Raises:
            ConfigError: if the family has no such choice, or a text would be too long.
        """
        name = self.pipeline.__name__
        if length is not None and self.max_sequence_length is None:
            raise ConfigError(f"max_sequence_length = {length}: a {name} has texts of one length; leave it out")
        if length is not None and self.longest_text is not None and length > self.longest_text:
            raise ConfigError(f"max_sequence_length = {length} is above {self.longest_text}, the longest for a {name}")
        if guidance is not None and self.embedded_guidance is None:
            raise ConfigError(f"embedded_guidance = {guidance}: a {name} takes none; set guidance_scale instead")
        return PromptForm(
            size=size,
            length=self.max_sequence_length if length is None else length,
            guidance=self.embedded_guidance if guidance is None else guidance,
        )


def tokenizer_of(text_part: str) -> str:
    """The name of a text encoder's tokenizer."""
    return text_part.replace("text_encoder", "tokenizer")


def family_of(pipeline: Any) -> Family:
    """The family of a loaded pipeline.

    Raises:
        ConfigError: if its class has none.
    """
    family: Family = FAMILIES.load(type(pipeline).__name__)
    return family
