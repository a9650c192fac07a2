"""SHA-256 of tensors, networks and settings: what decides whether a stored result is the one that is wanted.

Every part is preceded by its length, so that no two lists of parts give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from seedpo.protocols import LabelledPair

ADAPTER = ".lora_"
"""Part of the names of an adapter's own tensors, which the reference does not have."""

WRAPPERS = (".base_layer", "_orig_mod.")
"""What an adapter or a compiler adds to the names of a network's tensors."""


def digest(*parts: bytes) -> bytes:
    """SHA-256 of a list of parts, 32 bytes."""
    hasher = hashlib.sha256()
    for part in parts:
        hasher.update(len(part).to_bytes(8, "big"))
        hasher.update(part)
    return hasher.digest()


def tensor_bytes(tensor: Tensor) -> bytes:
    """The numbers of a tensor in their own format, row by row."""
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def tensors_digest(tensors: Mapping[str, Tensor], *context: bytes) -> bytes:
    """SHA-256 of named tensors (names, formats, shapes, numbers), after ``context``."""
    parts = list(context)
    for name in sorted(tensors):
        tensor = tensors[name]
        parts += [name.encode(), f"{tensor.dtype} {tuple(tensor.shape)}".encode(), tensor_bytes(tensor)]
    return digest(*parts)


def network_digest(network: nn.Module) -> str:
    """SHA-256 of a network's weights, in hexadecimal digits; that of the reference where it carries an adapter."""
    weights = {_plain(name): value for name, value in network.state_dict().items() if ADAPTER not in name}
    # One tensor at a time: a copy of all of them at once may not fit into memory.
    parts = [name.encode() + tensors_digest({"": weights[name]}) for name in sorted(weights)]
    return digest(*parts).hex()


def _plain(name: str) -> str:
    for wrapper in WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def settings_digest(settings: Mapping[str, Any]) -> str:
    """SHA-256 of settings, in hexadecimal digits."""
    return digest(settings_text(settings).encode()).hex()


def settings_text(settings: Mapping[str, Any]) -> str:
    """Settings as JSON, the same text whatever their order."""
    return json.dumps(settings, sort_keys=True, indent=1) + "\n"


def pair_digest(pair: LabelledPair) -> str:
    """SHA-256 of a labelled pair as it was read, in hexadecimal digits."""
    context = f"{pair.chosen_probability!r} {tuple(pair.original_size)} {tuple(pair.crop)}"
    images = {"chosen": pair.chosen, "rejected": pair.rejected}
    return tensors_digest(images, pair.prompt.encode(), context.encode()).hex()
