"""A network's LoRA layers: where they are put, how large they are, and what a file has to say of them.

The file itself is :mod:`seedpo.models.lora_file`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from seedpo.errors import ConfigError, DataError
from seedpo.models.families import Family
from seedpo.models.settings import LoraForm

NAME = "default"
"""peft's name of the one adapter that a network carries here."""

EVERY_GROUP = "all"

_DESCRIPTION = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "target_modules", "use_dora", "lora_bias")
"""Keys of peft's configuration that a file needs, beside its tensors, to be read as it was trained."""


class GradientDropout(nn.Module):
    """Dropout in passes that have a gradient, so never in roll-outs, evaluations or the reference.

    Not the module's mode decides, as for :class:`torch.nn.Dropout`: the backward pass of gradient checkpointing
    computes the same pass again later on. Draws from the global generator of the device.

    Args:
        share: of the inputs that is set to 0, in [0, 1); the others are divided by ``1 - share``.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, inputs: Tensor) -> Tensor:
        """The inputs, some of them 0 if gradients are on."""
        return F.dropout(inputs, self.share, training=torch.is_grad_enabled())


def adapted_layers(network: nn.Module) -> Iterator[tuple[str, LoraLayer]]:
    """Names and layers of a network that carry an adapter."""
    for name, layer in network.named_modules():
        if isinstance(layer, LoraLayer):
            yield name, layer


def add_layers(networks: Mapping[str, Any], family: Family, form: LoraForm, *, seed: int = 0) -> None:
    """Adds an adapter to the denoising network of a pipeline, or to its text encoders as well, in place.

    They compute what they did before.

    Args:
        networks: by part of the pipeline.
        family: of the pipeline; it names the layers.
        form: of the adapter; its dropout is left to :func:`set_dropout`.
        seed: of the first factors; the second are 0. The global random state is left alone.

    Raises:
        ConfigError: if the network has no such group, or a layer is narrower than the rank.
        DataError: if a part has none of the layers.
    """
    on_meta = any(next(network.parameters()).is_meta for network in networks.values())
    with torch.random.fork_rng(devices=[]), torch.device("meta") if on_meta else nullcontext():
        torch.manual_seed(seed)
        for part, network in networks.items():
            endings = layer_endings(form.targets, family) if part == family.network else family.text_layers[part]
            _add_to(network, endings, form, unread=unread_layers(network, family, part))


def unread_layers(network: Any, family: Family, part: str) -> tuple[str, ...]:
    """Parts of the names of layers that no embedding or prediction comes from: they cannot be trained."""
    if part == family.network:
        return family.unread_layers(network)
    count, last = family.unread_text_layers.get(part, 0), getattr(network.config, "num_hidden_layers", 0)
    return tuple(f"layers.{number}." for number in range(last - count, last)) if count else ()


def _add_to(network: Any, endings: tuple[str, ...], form: LoraForm, *, unread: tuple[str, ...]) -> None:
    dotted = tuple(f".{ending}" for ending in endings)
    named = {name: layer for name, layer in network.named_modules() if f".{name}".endswith(dotted)}
    # Neither lists of layers nor, of transformers, the network's own first and last layer.
    layers = {
        name: layer
        for name, layer in named.items()
        if hasattr(layer, "weight") and "." in name and not any(part in name for part in unread)
    }
    if not layers:
        raise DataError(
            f"the {type(network).__name__} has none of the layers that carry an adapter ({', '.join(endings)}); "
            "set adapter to full, or use another model"
        )
    width, narrowest = min((_width(layer), name) for name, layer in layers.items())
    if form.rank > width:
        raise ConfigError(
            f"lora_rank = {form.rank} is above {width}, the width of the layer {narrowest}: "
            f"a product of larger rank than its layer is no adapter; set lora_rank to at most {width}"
        )
    network.add_adapter(
        LoraConfig(
            r=form.rank,
            lora_alpha=form.rank if form.alpha is None else form.alpha,
            init_lora_weights="gaussian",
            # Names without what precedes `layers.` in text encoders: versions of transformers disagree on it.
            target_modules=list(endings)
            if len(layers) == len(named)
            else [name[max(name.find("layers."), 0) :] for name in layers],
            use_dora=form.dora,
        ),
        NAME,
    )


def layer_endings(groups: tuple[str, ...], family: Family) -> tuple[str, ...]:
    """Endings of the names of the layers in some groups.

    Raises:
        ConfigError: if the family has no such group.
    """
    known = family.adapter_layers
    if unknown := [group for group in groups if group not in (*known, EVERY_GROUP)]:
        raise ConfigError(
            f"lora_targets: this model has no layers of the name {unknown[0]!r}; "
            f"there are: {', '.join((*known, EVERY_GROUP))}"
        )
    chosen = list(known) if EVERY_GROUP in groups else [group for group in known if group in groups]
    return tuple(ending for group in chosen for ending in known[group])


def carries_adapter(network: Any) -> bool:
    """Whether a network has LoRA layers already."""
    return next(adapted_layers(network), None) is not None


def carriers(pipeline: Any, family: Family) -> dict[str, Any]:
    """The denoising network and the text encoders of a pipeline, by name, as far as they carry LoRA layers."""
    parts = {name: getattr(pipeline, name) for name in (family.network, *family.text_parts)}
    return {name: part for name, part in parts.items() if part is not None and carries_adapter(part)}


def set_dropout(network: nn.Module, share: float) -> None:
    """Gives the adapter's layers a dropout of their inputs; 0 leaves them alone."""
    for _, layer in adapted_layers(network):
        if share:
            layer.lora_dropout[NAME] = GradientDropout(share)


@contextmanager
def scaled_adapters(networks: Iterable[nn.Module], strength: float) -> Iterator[None]:
    """Inside, the product of every LoRA layer is multiplied by ``strength``; afterwards all is as before, bit for bit.

    Args:
        networks: parts of a pipeline.
        strength: 0 is the model without the adapter, 1 that with it; values outside extrapolate.

    Raises:
        ConfigError: if a layer is one of DoRA, whose norm is not a multiple of its product.
    """
    layers = [layer for network in networks for _, layer in adapted_layers(network)]
    if strength != 1 and any(layer.use_dora.get(name) for layer in layers for name in layer.active_adapters):
        raise ConfigError(
            "strength scales a LoRA's product, but this adapter is a DoRA, whose norms it cannot scale; leave the "
            "strength at 1"
        )
    before = [dict(layer.scaling) for layer in layers]
    for layer, scaling in zip(layers, before, strict=True):
        layer.scaling.update({name: scale * strength for name, scale in scaling.items()})
    try:
        yield
    finally:
        for layer, scaling in zip(layers, before, strict=True):
            layer.scaling.update(scaling)


def description(network: Any) -> dict[str, Any]:
    """What a file says of a network's adapter beside its tensors: keys of peft's configuration, as JSON values."""
    config = network.peft_config[NAME].to_dict()
    chosen = {key: config[key] for key in _DESCRIPTION}
    return {**chosen, "target_modules": sorted(chosen["target_modules"])}


def _width(layer: nn.Module) -> int:
    """The largest rank that a layer's weights can have."""
    if isinstance(layer, nn.Linear):  # quantised weights have another shape
        return min(layer.in_features, layer.out_features)
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return min(weight.shape[0], weight[0].numel())
