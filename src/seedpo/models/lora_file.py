"""A LoRA as a file: its name, the names of its tensors, and what its header says. Needs neither torch nor diffusers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file

from seedpo.documents import UNREADABLE, parse_json
from seedpo.errors import DataError
from seedpo.files import read_head

LORA_FILE = "pytorch_lora_weights.safetensors"

PEFT_WEIGHTS, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"
"""The files of a folder that peft's ``save_pretrained`` wrote."""

PART = ".lora_"
"""Part of the names of an adapter's own weights, and of no others."""

METADATA_KEY = "lora_adapter_metadata"
"""Where diffusers keeps peft's configuration in a file's header."""

Value = TypeVar("Value")


def lora_in(folder: Path) -> Path | None:
    """The LoRA of a folder that diffusers or peft wrote; ``None`` if there is none.

    Raises:
        DataError: if there is none, but adapters lie in several folders below: peft gives each a folder of its own.
    """
    for name in (LORA_FILE, PEFT_WEIGHTS):
        if (folder / name).is_file():
            return folder / name
    below = sorted(path.parent for path in folder.glob(f"*/{PEFT_WEIGHTS}"))
    if len(below) > 1:
        raise DataError(
            f"{folder} holds the adapters {', '.join(path.name for path in below)}; name {below[0]} or another"
        )
    return below[0] / PEFT_WEIGHTS if below else None


def read_lora(file: Path) -> dict[str, NDArray[np.floating[Any]]]:
    """Tensors of an adapter's file.

    Raises:
        DataError: if it is missing or broken, or its numbers are of a kind that numpy does not have.
    """
    try:
        read_head(file, 1)
        return dict(load_file(file))
    except (OSError, SafetensorError, TypeError, KeyError) as error:
        raise _unreadable(file, error) from error


def read_metadata(file: Path) -> dict[str, str]:
    """What the header of a safetensors file says beside its tensors.

    Raises:
        DataError: if it cannot be read.
    """
    try:
        read_head(file, 1)
        with safe_open(file, framework="numpy") as opened:
            return dict(opened.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> DataError:
    return DataError(f"{file} cannot be read as safetensors ({error}); copy it again")


def described(parts: Mapping[str, Mapping[str, Any]]) -> str:
    """The descriptions of a pipeline's adapters, by part, as diffusers keeps them in a file's header."""
    return json.dumps(
        {f"{part}.{key}": value for part, content in parts.items() for key, value in content.items()}, sort_keys=True
    )


def read_description(file: Path, part: str) -> dict[str, Any]:
    """What a file says of an adapter beside its tensors; see :func:`seedpo.models.lora.description`.

    Args:
        file: as an adapter's ``save`` wrote it.
        part: of the pipeline, for example ``unet``.

    Raises:
        DataError: if it cannot be read, or says nothing.
    """
    try:
        content = dict(parse_json(read_metadata(file).get(METADATA_KEY, "{}")))
    except UNREADABLE as error:
        raise DataError(f"{file}: what its header says of its LoRA cannot be read ({error}); copy it again") from error
    of_part = {key.removeprefix(f"{part}."): value for key, value in content.items() if key.startswith(f"{part}.")}
    if not of_part:
        raise DataError(f"{file} does not say how its LoRA of the {part} is built; was it written by seedpo?")
    return of_part


def alphas(layers: Iterable[str], content: Mapping[str, Any]) -> dict[str, float]:
    """The alpha of each layer.

    Args:
        layers: names of layers.
        content: of :func:`read_description`; a key of its pattern matches whole parts at the end of a name, as in peft.

    Raises:
        DataError: if it holds other patterns than names with few stars, which somebody could make endless, or no alpha.
    """
    own = content["alpha_pattern"]
    if unusual := next((key for key in own if not _PLAIN_PATTERN.fullmatch(key)), None):
        raise DataError(f"alpha_pattern holds {unusual[:80]!r}; write names of layers or their ends into it")
    try:
        pattern = {re.compile(rf"(.*\.)?({key})"): float(value) for key, value in own.items()}
        usual = float(content["lora_alpha"])
    except (re.error, *UNREADABLE) as error:
        raise DataError(f"the LoRA's lora_alpha and alpha_pattern cannot be read ({error!r}); copy it again") from error
    return {name: next((value for key, value in pattern.items() if key.fullmatch(name)), usual) for name in layers}


_PLAIN_PATTERN = re.compile(r"[\w.\\^$-]*(?:\*[\w.\\^$-]*){0,3}")
"""A pattern that takes no time to match: without groups, and with few stars."""


_FACTORS = {
    ".lora.down.": ".lora_A.",
    ".lora.up.": ".lora_B.",
    ".lora_linear_layer.down.": ".lora_A.",
    ".lora_linear_layer.up.": ".lora_B.",
    ".lora_magnitude_vector.weight": ".lora_magnitude_vector",
}
"""Names of factors in files of diffusers, for the denoising network and for text encoders, and those of peft."""


def read_layers(weights: Mapping[str, Value]) -> dict[str, Value]:
    """The tensors of :data:`LORA_FILE` with peft's names of factors: ``unet.mid_block.[...].to_q.lora_A.weight``."""
    renamed = {}
    for name, value in weights.items():
        for theirs, own in _FACTORS.items():
            name = name.replace(theirs, own)
        renamed[name] = value
    return renamed


def by_part(layers: Mapping[str, Value]) -> dict[str, dict[str, Value]]:
    """The tensors of each part of a pipeline, by names without the part."""
    parts: dict[str, dict[str, Value]] = {}
    for name, value in layers.items():
        part, _, own = name.partition(".")
        parts.setdefault(part, {})[own] = value
    return parts
