"""Which number format each part of a pipeline computes in and is stored in.

Forward passes of the network and of the text encoders that can be trained run under autocast. Weights that are not
trained and that autocast would round at every call (those of linear layers and convolutions) are stored rounded: the
results are the same bit for bit, at half the memory. RMS norms of torch are rounded with them, since their one-pass
form needs weights of the inputs' format. Other norms and trained weights stay in float32. The remaining text encoders
(T5, language models) compute in the format in which they were read.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from seedpo.settings import Precision
from seedpo.weights import DTYPES

_ROUNDED = (nn.Linear, nn.Conv2d, nn.RMSNorm)
"""Layers whose weights autocast rounds, and RMS norms."""

_HALVES = (torch.float16, torch.bfloat16)


def autocast_dtype(mixed_precision: Precision) -> torch.dtype | None:
    """The number format of the forward passes; ``None`` for that of the weights."""
    return None if mixed_precision == "no" else DTYPES[mixed_precision]


def store_rounded(network: nn.Module, dtype: torch.dtype) -> None:
    """Stores in ``dtype`` the frozen weights that autocast would round to it at every call; in place.

    All others are kept in float32: a network that was read in half precision is widened there, which loses nothing.
    An adapter's layers then leave casts to autocast: they would widen their inputs to float32, which autocast rounds
    at once. A DoRA also reads the weights, for the norms of their rows: its layers stay as they are.
    """
    whole: set[nn.Module] = set()
    for layer in network.modules():
        if isinstance(layer, BaseTunerLayer):
            if any(getattr(layer, "use_dora", {}).values()):
                whole.add(layer.get_base_layer())
            else:
                layer.cast_input_dtype_enabled = False
        if isinstance(layer, _ROUNDED) and layer not in whole:
            for parameter in layer.parameters(recurse=False):
                if not parameter.requires_grad and parameter.is_floating_point():  # else it is quantised
                    parameter.data = parameter.data.to(dtype)
        else:
            for tensor in (*layer.parameters(recurse=False), *layer.buffers(recurse=False)):
                if tensor.dtype in _HALVES:
                    tensor.data = tensor.data.float()


def vae_dtype(vae: Any, mixed_precision: Precision) -> torch.dtype:
    """float16 for an autoencoder that declares it safe, float32 otherwise.

    ``force_upcast`` in its configuration (true unless it says otherwise) means that activations overflow float16, as
    those of SDXL's first autoencoder do. bfloat16 would not overflow, but has too few digits for pixels.
    """
    if mixed_precision == "no":
        dtype: torch.dtype = vae.dtype
        return dtype
    return torch.float32 if vae.config.get("force_upcast", True) else torch.float16
