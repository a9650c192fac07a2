"""Loaded weights lie in aligned memory, so that equal weights compute equal numbers on every processor.

Tensors of a safetensors file start wherever the file's header ends. Kernels for AVX-512 round differently at addresses
that are not multiples of 64 bytes. There a network and its saved copy would differ in the last bit. Everything that is
loaded passes here: tensors through :func:`read_tensors`, whole networks through :func:`align`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from safetensors.torch import load_file
from torch import Tensor, nn

ALIGNMENT = 64
"""Bytes; torch allocates its own tensors so."""

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
    return {name: aligned(value) for name, value in load_file(path).items()}
