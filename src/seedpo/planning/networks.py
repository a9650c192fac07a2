"""A run's model on the meta device: the same classes and the same adapter, without a single weight."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from types import SimpleNamespace
from typing import Any

import diffusers
import torch
import transformers
from torch import nn

from seedpo.errors import DataError
from seedpo.models.families import tokenizer_of
from seedpo.models.loading import add_initial
from seedpo.models.policy import PipelinePolicy
from seedpo.models.precision import autocast_dtype, store_rounded, vae_dtype
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


class _Tokenizer:
    """Token ids on the meta device, as many as a text encoder takes."""

    def __init__(self, length: int) -> None:
        self.model_max_length = length

    def __call__(self, prompts: Sequence[str], **options: object) -> SimpleNamespace:
        return SimpleNamespace(
            input_ids=torch.zeros(len(prompts), self.model_max_length, dtype=torch.int64, device="meta")
        )


def build_policy(config: RunConfig, model: ModelConfiguration) -> PipelinePolicy:
    """The run's policy on the meta device, with the precision of its parts as they would be on a GPU.

    Args:
        config: the run's settings.
        model: the model's configuration files.

    Raises:
        ConfigError: if the resolution does not fit the model.
        DataError: if a part cannot be built.
    """
    family, half = model.family, autocast_dtype(config.mixed_precision)
    parts: dict[str, Any] = {"vae": build_autoencoder(model.parts["vae"], model.origin)}
    with _explained(family.network, model.origin):
        network = model.parts[family.network]
        parts[family.network] = getattr(diffusers, network["_class_name"]).from_config(dict(network))
    for name in family.text_parts:
        with _explained(name, model.origin):
            cls = getattr(transformers, model.parts[name]["architectures"][0])
            parts[name] = cls(cls.config_class(**model.parts[name]))
    parts["scheduler"] = _scheduler(model.parts["scheduler"])
    expected = signature(family.pipeline).parameters
    absent = {name: None for name, value in expected.items() if value.default is value.empty and name not in parts}
    unchecked = {"requires_safety_checker": False} if "requires_safety_checker" in expected else {}
    pipeline = family.pipeline(**parts, **absent, **unchecked)
    for name in family.text_parts:
        tokenizer = _Tokenizer(parts[name].config.max_position_embeddings)
        object.__setattr__(pipeline, tokenizer_of(name), tokenizer)
    add_initial(pipeline, config)
    policy = PipelinePolicy(
        pipeline,
        adapter=config.adapter,
        lora=config.lora,
        resolution=config.resolution,
        gradient_checkpointing=config.gradient_checkpointing,
    )
    policy.to("meta")  # an adapter is made on the CPU
    # Autocast knows no meta device: what the policy would do for it is done here, and the meter imitates its casts.
    if half is not None:
        frozen = [] if policy.adapter.frozen is None else [policy.adapter.frozen]
        for part in (policy.network, *(parts[name] for name in family.text_parts), *frozen):
            store_rounded(part, half)
    nn.Module.to(parts["vae"], vae_dtype(parts["vae"], config.mixed_precision))
    return policy


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
