"""SHA-256 of tensors, networks and labelled pairs; see :mod:`seedpo.data.cache.digests`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from seedpo.data.cache.digests import arrays_digest, digest
from seedpo.protocols import LabelledPair

ADAPTER = ".lora_"
"""Part of the names of an adapter's own tensors, which the reference does not have."""

WRAPPERS = (".base_layer", "_orig_mod.")
"""What an adapter or a compiler adds to the names of a network's tensors."""


def tensor_bytes(tensor: Tensor) -> bytes:
    """The numbers of a tensor in their own format, row by row."""
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def tensors_digest(tensors: Mapping[str, Tensor], *context: bytes) -> bytes:
    """SHA-256 of named tensors (names, formats, shapes, numbers), after ``context``."""
    arrays = {name: (str(value.dtype), tuple(value.shape), tensor_bytes(value)) for name, value in tensors.items()}
    return arrays_digest(arrays, *context)


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


def pair_digest(pair: LabelledPair) -> str:
    """SHA-256 of a labelled pair as it was read, in hexadecimal digits."""
    context = f"{pair.chosen_probability!r} {tuple(pair.original_size)} {tuple(pair.crop)}"
    images = dict(zip(("chosen", "rejected"), pair.images, strict=False))
    return tensors_digest(images, pair.prompt.encode(), context.encode()).hex()
