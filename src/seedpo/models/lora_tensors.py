"""The tensors of the adapters that networks carry, named as in :func:`seedpo.models.lora_file.read_layers`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peft import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor

from seedpo.models.families import Family
from seedpo.models.lora_file import by_part

_TEXT_MODEL = "text_model."
"""What precedes the layers of a CLIP text encoder in files, but in transformers not in every class and version."""

_TEXT_FACTORS = {
    ".lora_A.": ".lora_linear_layer.down.",
    ".lora_B.": ".lora_linear_layer.up.",
    ".lora_magnitude_vector": ".lora_magnitude_vector.weight",
}
"""Names of factors in peft and, for text encoders, in files of diffusers."""


def layers_of(networks: Mapping[str, Any], family: Family) -> dict[str, Tensor]:
    """The tensors of the adapters that parts of a pipeline carry."""
    layers: dict[str, Tensor] = {}
    for part, network in networks.items():
        lead = _lead(network, family, part)
        # Not "auto": peft would ask the hub whether the vocabulary has grown.
        own = get_peft_model_state_dict(network, save_embedding_layers=False)
        layers |= {f"{part}.{lead}{name}": value for name, value in own.items()}
    return layers


def fill_layers(networks: Mapping[str, Any], family: Family, layers: Mapping[str, Tensor]) -> None:
    """Copies the tensors of :func:`layers_of` into the adapters of networks."""
    parts = by_part(layers)
    for part, network in networks.items():
        lead = _lead(network, family, part)
        set_peft_model_state_dict(network, {name.removeprefix(lead): value for name, value in parts[part].items()})


def written_layers(layers: Mapping[str, Tensor], family: Family) -> dict[str, Tensor]:
    """The tensors under the names that ``pipe.load_lora_weights`` reads."""
    written: dict[str, Tensor] = {}
    for part, own in by_part(layers).items():
        named = family.adapter_names(own) if part == family.network else _text_names(own)
        written |= {f"{part}.{name}": value.contiguous() for name, value in named.items()}
    return written


def _text_names(layers: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    for name, value in layers.items():
        for own, theirs in _TEXT_FACTORS.items():
            name = name.replace(own, theirs)
        renamed[name] = value
    return renamed


def _lead(network: Any, family: Family, part: str) -> str:
    """What a file says before the names of a network's layers, and the network does not."""
    is_whole = part == family.network or hasattr(network, _TEXT_MODEL.removesuffix("."))
    return "" if is_whole else _TEXT_MODEL
