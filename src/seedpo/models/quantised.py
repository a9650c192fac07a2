"""A frozen base in 8 or 4 bits: the linear layers of the denoising network, by bitsandbytes; an adapter lies on top.

Convolutions, norms, the autoencoder and the text encoders stay as they are. Of a layer, each row (8 bits) or each 64
weights (4 bits, the normal floats of arXiv 2305.14314 with scales that are quantised as well) have a scale of their
own. bitsandbytes widens a layer's weights when it computes with them.
"""

from __future__ import annotations

import logging
import math
from typing import Any, Literal

import torch
from torch import nn

from seedpo.errors import ConfigError

BasePrecision = Literal["full", "int8", "nf4"]
"""Number format of the frozen linear layers; ``full``: as ``mixed_precision`` says."""

_LAYERS = {"int8": "is_loaded_in_8bit", "nf4": "is_loaded_in_4bit"}
"""The attribute of a network by which peft looks for layers of bitsandbytes."""

_BLOCK = 64
"""Weights that share a scale in 4 bits."""

_NESTED_BLOCK = 256
"""Scales that share one of their own."""


def quantise(network: nn.Module, precision: BasePrecision, compute: torch.dtype) -> None:
    """Replaces the linear layers of a network by quantised ones, in place; they can no longer be trained.

    Args:
        network: on the CPU, without an adapter.
        precision: number format; ``full`` changes nothing.
        compute: in which 4-bit layers compute; 8-bit ones follow their inputs.

    Raises:
        ConfigError: if bitsandbytes is not installed.
    """
    if precision == "full":
        return
    library = _bitsandbytes(precision)
    layers = [name for name, layer in network.named_modules() if type(layer) is nn.Linear]
    for name in layers:
        parent, _, own = name.rpartition(".")
        quantised = _quantised(library, network.get_submodule(name), precision, compute)
        setattr(network.get_submodule(parent), own, quantised)
    setattr(network, _LAYERS[precision], True)


def saved_bytes(network: nn.Module, precision: BasePrecision) -> int:
    """Bytes that :func:`quantise` takes off a network that is not quantised, with an adapter or without.

    Args:
        network: may lie on the meta device.
        precision: as for :func:`quantise`.
    """
    if precision == "full":
        return 0
    layers = (layer for name, layer in network.named_modules() if isinstance(layer, nn.Linear) and ".lora_" not in name)
    return sum(layer.weight.nbytes - _stored_bytes(layer.weight.shape, precision) for layer in layers)


def _stored_bytes(shape: torch.Size, precision: BasePrecision) -> int:
    weights = math.prod(shape)
    if precision == "int8":
        return weights + 4 * shape[0]
    scales = math.ceil(weights / _BLOCK)
    return math.ceil(weights / 2) + scales + 4 * math.ceil(scales / _NESTED_BLOCK)


def _bitsandbytes(precision: BasePrecision) -> Any:
    try:
        import bitsandbytes
    except ImportError as error:
        raise ConfigError(
            f"base_precision = {precision} needs bitsandbytes; pip install 'seedpo[quantised]', or set it to full"
        ) from error
    # At every call it says that it computes in float16, as it is meant to.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    return bitsandbytes


def _quantised(library: Any, layer: nn.Module, precision: BasePrecision, compute: torch.dtype) -> nn.Module:
    assert isinstance(layer, nn.Linear)
    sizes: dict[str, Any] = {
        "input_features": layer.in_features,
        "output_features": layer.out_features,
        "bias": layer.bias is not None,
        "device": "meta",
    }
    weight = layer.weight.detach().contiguous()
    if precision == "int8":
        quantised = library.nn.Linear8bitLt(**sizes, has_fp16_weights=False)
        stored = library.nn.Int8Params(weight, has_fp16_weights=False, requires_grad=False)
    else:
        quantised = library.nn.Linear4bit(**sizes, quant_type="nf4", compute_dtype=compute)
        # Its kernels for some processors would pack the weights anew, and round otherwise than the rest.
        quantised.support_avx512bf16_for_cpu = False
        stored = library.nn.Params4bit(
            weight, requires_grad=False, quant_type="nf4", blocksize=_BLOCK, module=quantised
        )
    quantised.weight = stored.to("cpu")  # which quantises
    quantised.bias = layer.bias
    result: nn.Module = quantised.eval()
    return result
