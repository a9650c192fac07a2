"""A run's model on the meta device: the same classes and the same adapter, without a single weight."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any

import diffusers
import torch
import transformers
from torch import nn
from transformers import BatchEncoding

from seedpo.errors import DataError
from seedpo.models.denoiser import PipelineDenoiser
from seedpo.models.families import Family, tokenizer_of
from seedpo.models.loading import add_initial
from seedpo.models.policy import PipelinePolicy
from seedpo.models.precision import autocast_dtype, store_rounded, vae_dtype
from seedpo.models.settings import ModelSettings
from seedpo.planning.configurations import Configuration, ModelConfiguration, autoencoder_configuration
from seedpo.training.settings import RunConfig


@contextmanager
def _explained(what: str, origin: str) -> Iterator[None]:
    """Turns what the libraries raise for a configuration that they cannot build into one line."""
    try:
        with torch.device("meta"):
            yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{origin}: no {what} can be built from its configuration ({error})") from error


class StandInTokenizer:
    """Stands in for the tokenizers of all families: ids are 0, and texts fill all places but the last one.

    A text that fills them all would be taken for one that is cut off.
    """

    padding_side = "right"

    def __init__(self, length: int) -> None:
        self.model_max_length = length

    def __call__(self, texts: Sequence[object], *, max_length: int, **options: object) -> BatchEncoding:
        """Ids (N, L) and mask of N texts."""
        ids = torch.zeros(len(texts), max_length, dtype=torch.int64)
        mask = torch.ones_like(ids)
        mask[:, -1] = 0
        return BatchEncoding({"input_ids": ids, "attention_mask": mask})

    def apply_chat_template(self, conversations: Sequence[object], *, tokenize: bool, **options: Any) -> Any:
        """A conversation as text, or conversations as tokens."""
        return self(conversations, **options) if tokenize else ""

    def encode(self, text: str) -> list[int]:
        """Ids of a text of known length, four letters each, about as in English."""
        return [0] * (len(text) // 4)


def build_policy(config: RunConfig, model: ModelConfiguration) -> PipelinePolicy:
    """The run's policy on the meta device, with the precision of its parts as they would be on a GPU.

    Args:
        config: the run's settings.
        model: the model's configuration files.

    Raises:
        ConfigError: if the resolution does not fit the model.
        DataError: if a part cannot be built.
    """
    pipeline = _whole_pipeline(config, model)
    add_initial(pipeline, config)
    policy = PipelinePolicy(
        pipeline,
        adapter=config.adapter,
        lora=config.lora,
        resolution=config.resolution,
        max_sequence_length=config.max_sequence_length,
        embedded_guidance=config.embedded_guidance,
        gradient_checkpointing=config.gradient_checkpointing,
    )
    policy.to("meta")  # an adapter is made on the CPU
    _store_rounded(policy, config, [] if policy.adapter.frozen is None else [policy.adapter.frozen])
    return policy


def build_denoiser(settings: ModelSettings, model: ModelConfiguration) -> PipelineDenoiser:
    """A model that is not trained, on the meta device, with the precision of its parts as they would be on a GPU.

    Args:
        settings: how it is loaded.
        model: its configuration files.

    Raises:
        ConfigError: if the resolution does not fit the model.
        DataError: if a part cannot be built.
    """
    denoiser = PipelineDenoiser(
        _whole_pipeline(settings, model),
        resolution=settings.resolution,
        max_sequence_length=settings.max_sequence_length,
        embedded_guidance=settings.embedded_guidance,
    )
    _store_rounded(denoiser, settings)
    return denoiser


def _whole_pipeline(settings: ModelSettings, model: ModelConfiguration) -> Any:
    """The pipeline of a model with stand-ins for its tokenizers."""
    family, half = model.family, autocast_dtype(settings.mixed_precision)
    parts: dict[str, Any] = {"vae": build_autoencoder(model.parts["vae"], model.origin)}
    parts[family.network] = build_network(model)
    encoders = build_text_encoders(model)
    parts |= encoders
    parts["scheduler"] = _scheduler(model.parts["scheduler"])
    _store_half(parts, settings, family, half)
    pipeline = _pipeline(model, parts)
    for name in encoders:
        tokenizer = StandInTokenizer(getattr(parts[name].config, "max_position_embeddings", 0))
        object.__setattr__(pipeline, tokenizer_of(name), tokenizer)
    if 0 < pipeline.tokenizer.model_max_length < getattr(pipeline, "tokenizer_max_length", 0):
        pipeline.tokenizer_max_length = pipeline.tokenizer.model_max_length
    return pipeline


def _store_rounded(denoiser: PipelineDenoiser, settings: ModelSettings, others: Sequence[nn.Module] = ()) -> None:
    """Stores parts in half precision, as a denoiser does where it has a device.

    Autocast knows no meta device: what the denoiser would do for it is done here, and the meter imitates its casts.
    """
    family, pipeline, half = denoiser.family, denoiser.pipeline, autocast_dtype(settings.mixed_precision)
    encoders = [getattr(pipeline, name, None) for name in family.text_parts if name in family.text_layers]
    if half is not None:
        for part in (denoiser.network, *(encoder for encoder in encoders if encoder is not None), *others):
            store_rounded(part, half)
    nn.Module.to(pipeline.vae, vae_dtype(pipeline.vae, settings.mixed_precision))


def build_network(model: ModelConfiguration) -> Any:
    """A model's denoising network, where torch makes tensors.

    Raises:
        DataError: if it cannot be built.
    """
    network = model.parts[model.family.network]
    with _explained(model.family.network, model.origin):
        return getattr(diffusers, network["_class_name"]).from_config(dict(network))


def build_text_encoders(model: ModelConfiguration) -> dict[str, Any]:
    """A model's text encoders by their names, where torch makes tensors.

    Raises:
        DataError: if one cannot be built.
    """
    encoders = {}
    for name in (name for name in model.family.text_parts if name in model.parts):
        with _explained(name, model.origin):
            cls = getattr(transformers, model.parts[name]["architectures"][0])
            encoders[name] = cls(cls.config_class(**model.parts[name]))
            # With other attention, masks are looked at, and meta tensors have no values.
            encoders[name].set_attn_implementation("eager")
    return encoders


def _store_half(parts: dict[str, Any], config: ModelSettings, family: Family, half: torch.dtype | None) -> None:
    """Stores whole parts in half precision, as they are read: text encoders that cannot be trained, and their network.

    A published network beside such encoders is itself stored in half precision, and read so if an adapter is trained.
    """
    names = [name for name in family.text_parts if name in parts and name not in family.text_layers]
    if half is None or not names:
        return
    for name in (*names, *((family.network,) if config.adapter == "lora" else ())):
        nn.Module.to(parts[name], half)


def _pipeline(model: ModelConfiguration, parts: dict[str, Any]) -> Any:
    """A pipeline of parts; those that are not given are absent."""
    expected = signature(model.family.pipeline).parameters
    absent = {name: None for name, value in expected.items() if value.default is value.empty}
    options = {name: value for name, value in model.options.items() if name in expected}
    unchecked = {"requires_safety_checker": False} if "requires_safety_checker" in expected else {}
    return model.family.pipeline(**{**absent, **options, **unchecked, **parts})


def _scheduler(configuration: Configuration) -> Any:
    """A scheduler of the class that the configuration names, whose noise levels may be of another family."""
    cls = getattr(diffusers, str(configuration.get("_class_name")), diffusers.DDIMScheduler)
    return cls.from_config(dict(configuration))


def build_autoencoder(configuration: Configuration, origin: str) -> Any:
    """An autoencoder on the meta device.

    Raises:
        DataError: if its class is not known here or cannot be built.
    """
    name = str(configuration.get("_class_name"))
    if not name.startswith("Autoencoder") or not hasattr(diffusers, name):
        raise DataError(f"{origin}: the autoencoder is a {name}, which diffusers {diffusers.__version__} does not have")
    with _explained(name, origin):
        autoencoder = getattr(diffusers, name).from_config(dict(configuration))
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
