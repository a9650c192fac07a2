"""Names of a LoRA's tensors in kohya's scripts, which web UIs read. Needs neither torch nor diffusers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seedpo.models.lora_file import PART

Values = NDArray[np.floating[Any]]

UNET = "unet"
"""The one denoising network whose layers have the same names in kohya's scripts."""

_KOHYA_FACTORS = {
    "lora_A.weight": "lora_down.weight",
    "lora_B.weight": "lora_up.weight",
    "lora_magnitude_vector": "dora_scale",
}
"""Names of an adapter's factors, and of DoRA's norms, in peft and in kohya's scripts."""

_KOHYA_VERSIONS = {
    768: {"ss_base_model_version": "sd_v1", "ss_v2": "False"},
    1024: {"ss_base_model_version": "sd_v2", "ss_v2": "True"},
    2048: {"ss_base_model_version": "sdxl_base_v1-0", "ss_v2": "False"},
}
"""Metadata by which web UIs sort adapters, by the width of the text that attention reads."""


def kohya_prefixes(parts: Collection[str]) -> dict[str, str]:
    """What kohya's scripts begin the names of each part's layers with.

    Args:
        parts: of a pipeline that carry an adapter; the first of two text encoders has a number.
    """
    first = "lora_te1" if "text_encoder_2" in parts else "lora_te"
    known = {UNET: "lora_unet", "text_encoder": first, "text_encoder_2": "lora_te2"}
    return {part: known[part] for part in parts}


def kohya_weights(
    layers: Mapping[str, Values], alphas: Mapping[str, float] | None = None, *, prefix: str = "lora_unet"
) -> dict[str, Values]:
    """An adapter's tensors under the names of kohya's scripts, which web UIs read.

    ``mid_block.attentions.0.[...].to_q.lora_A.weight`` becomes
    ``lora_unet_mid_block_attentions_0_[...]_to_q.lora_down.weight``. Each layer gets its ``alpha``; the product is
    multiplied by alpha over the rank.

    Args:
        layers: tensors by peft's names.
        alphas: by layer; a layer that is absent has its rank, so that its product is not scaled.
        prefix: of the part that carries it; see :func:`kohya_prefixes`.
    """
    converted: dict[str, Values] = {}
    for name, value in layers.items():
        layer, _, factor = name.partition(PART)
        key = f"{prefix}_{layer.replace('.', '_')}"
        converted[f"{key}.{_KOHYA_FACTORS['lora_' + factor]}"] = np.ascontiguousarray(value)
        if factor == "A.weight":
            converted[f"{key}.alpha"] = np.array((alphas or {}).get(layer, len(value)), dtype=np.float32)
    return converted


def kohya_metadata(tensors: Mapping[str, Values]) -> dict[str, str]:
    """What web UIs read of the base model of :func:`kohya_weights`; empty if its text has an unknown width."""
    widths = (value.shape[1] for name, value in tensors.items() if name.endswith("attn2_to_k.lora_down.weight"))
    return _KOHYA_VERSIONS.get(next(widths, 0), {})
