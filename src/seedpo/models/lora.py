"""The LoRA adapter of a UNet: adding it, switching formats, filling in saved weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from seedpo.errors import DataError

LORA_TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
"""Attention projections that carry the adapter."""

LORA_FILE = "pytorch_lora_weights.safetensors"

_SIDES = {"lora_A": "lora_down", "lora_B": "lora_up"}
"""Names of the two factors in peft and in kohya's scripts."""


def add_adapter(unet: Any, *, rank: int, seed: int) -> None:
    """Adds an adapter that changes nothing yet, in float32; the global random state is left alone.

    Args:
        unet: changed in place.
        rank: rank of each factor pair, and its alpha: the adapter's product is not scaled.
        seed: seed of the first factors; the second are 0.

    Raises:
        DataError: if the UNet has none of :data:`LORA_TARGETS`.
    """
    if not any(name.endswith(tuple(f".{target}" for target in LORA_TARGETS)) for name, _ in unet.named_modules()):
        raise DataError(
            f"the UNet has none of the attention layers that carry an adapter ({', '.join(LORA_TARGETS)}); "
            "set adapter to full, or take another model"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet.add_adapter(
            LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=list(LORA_TARGETS))
        )
    for parameter in unet.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def leave_casts_to_autocast(unet: nn.Module) -> None:
    """Under autocast the adapter's layers need not widen their inputs to float32, to have them rounded at once."""
    for layer in unet.modules():
        if isinstance(layer, BaseTunerLayer):
            layer.cast_input_dtype_enabled = False


def save_adapter(unet: Any, folder: Path) -> None:
    """Writes :data:`LORA_FILE`, which ``pipe.load_lora_weights`` of either pipeline class reads."""
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet))
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=layers)


def peft_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of :data:`LORA_FILE` under the names of peft."""
    return {
        name.removeprefix("unet.").replace(".lora.down.", ".lora_A.").replace(".lora.up.", ".lora_B."): value
        for name, value in weights.items()
    }


def kohya_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of :data:`LORA_FILE` under the names of kohya's scripts, which web UIs read.

    ``unet.mid_block.attentions.0.[...].to_q.lora_A.weight`` becomes
    ``lora_unet_mid_block_attentions_0_[...]_to_q.lora_down.weight``, and each layer gets its ``alpha``, equal to its
    rank, so that the product is not scaled.
    """
    converted: dict[str, Tensor] = {}
    for name, value in peft_weights(weights).items():
        layer, factor, _ = name.rsplit(".", 2)
        key = "lora_unet_" + layer.replace(".", "_")
        converted[f"{key}.{_SIDES[factor]}.weight"] = value.contiguous()
        if factor == "lora_A":
            converted[f"{key}.alpha"] = torch.tensor(float(len(value)))
    return converted
