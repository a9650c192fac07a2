"""Loaded weights lie in aligned memory, so that equal weights compute equal numbers on every processor.

Tensors of a safetensors file start wherever the file's header ends. Kernels for AVX-512 round differently at addresses
that are not multiples of 64 bytes. There a network and its saved copy would differ in the last bit. Everything that is
loaded passes here: tensors through :func:`read_tensors`, whole networks through :func:`align`.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from seedpo.errors import DataError
from seedpo.files import read_head
from seedpo.settings import Precision

DTYPES: Mapping[Precision, torch.dtype] = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""Number formats by the names that users write."""

ALIGNMENT = 64
"""Bytes; torch allocates its own tensors so."""

_BROKEN = (
    *(OSError, ValueError, RuntimeError, EOFError, LookupError, AttributeError, TypeError),
    *(struct.error, SafetensorError, UnpicklingError),
)
"""What the readers raise on files that are cut short or altered."""

Network = TypeVar("Network", bound=nn.Module)


def aligned(tensor: Tensor) -> Tensor:
    """The tensor itself, or a copy of the same strides in aligned memory; tensors on other devices are left alone."""
    if tensor.device.type != "cpu" or tensor.data_ptr() % ALIGNMENT == 0:
        return tensor
    return tensor.clone()


def align(network: Network) -> Network:
    """Moves every parameter and buffer of a network into aligned memory, in place.

    Returns:
        The network.
    """
    for values in (network.parameters(), network.buffers()):
        for value in values:
            value.data = aligned(value.data)
    return network


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Reads a safetensors file into aligned memory, on the CPU.

    Raises:
        FileNotFoundError: if there is no such file.
        safetensors.SafetensorError: if it is cut short or altered.
    """
    read_head(path, 1)  # a pipe would be waited for
    return {name: aligned(value) for name, value in load_file(path).items()}


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file or of a pickled state dictionary, on the CPU.

    A pickle is read by ``torch.load(weights_only=True)``, which runs no code from it. A state dictionary that is kept
    under the key ``state_dict``, as open_clip keeps it, is taken out.

    Raises:
        DataError: if the file is missing or broken, or holds anything else.
    """
    content = _content(path)
    weights = content.get("state_dict", content) if isinstance(content, Mapping) else content
    if (
        not isinstance(weights, Mapping)
        or not weights
        or not all(isinstance(value, Tensor) for value in weights.values())
    ):
        raise DataError(f"{path} holds no weights by name; download it again from where it is published")
    return {name: aligned(value) for name, value in weights.items()}


def read_nested_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a file whose state dictionaries lie in a dictionary, by dotted names; a bare number is a scalar.

    Raises:
        DataError: as :func:`read_weights`.
    """
    weights = _flat(_content(path))
    if not weights:
        raise DataError(f"{path} holds no weights by name; download it again from where it is published")
    return weights


def _flat(content: object, name: str = "") -> dict[str, Tensor]:
    if isinstance(content, Mapping):
        parts = [_flat(value, f"{name}.{key}" if name else str(key)) for key, value in content.items()]
        return {key: value for part in parts for key, value in part.items()}
    if isinstance(content, int | float):
        content = torch.tensor(float(content))
    return {name: aligned(content)} if isinstance(content, Tensor) and name else {}


def _content(path: Path) -> object:
    if not path.is_file():
        raise DataError(f"there are no weights at {path}; copy the file there")
    try:
        return read_tensors(path) if path.suffix == ".safetensors" else _unpickled(path)
    except _BROKEN as error:
        raise DataError(
            f"{path} cannot be read as weights ({type(error).__name__}): it is broken, or holds more than tensors; "
            "download it again from where it is published"
        ) from error


def _unpickled(path: Path) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # on unusual protocols, which are then read, or refused
        return torch.load(path, map_location="cpu", weights_only=True)
