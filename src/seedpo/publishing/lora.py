"""The adapter of a run as a file for other programs. Only names change, so neither torch nor diffusers is needed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from seedpo.errors import ConfigError
from seedpo.files import write_aside
from seedpo.models.kohya import UNET, Values, kohya_metadata, kohya_prefixes, kohya_weights
from seedpo.models.lora_file import (
    LORA_FILE,
    PART,
    alphas,
    by_part,
    read_description,
    read_layers,
    read_lora,
    read_metadata,
)
from seedpo.training.settings import RunConfig


def export_lora(config: RunConfig, weights: Path, out: Path, *, half: bool) -> None:
    """The adapter under the names of diffusers: ``pipe.load_lora_weights(folder, weight_name=file)``."""
    _save(_adapter(config, weights, out, half=half), out, read_metadata(weights / LORA_FILE))


def export_kohya(config: RunConfig, weights: Path, out: Path, *, half: bool) -> None:
    """The adapter under the names of kohya's scripts, for web UIs; diffusers reads it as well."""
    parts, tensors = by_part(read_layers(_adapter(config, weights, out, half=half))), dict[str, Values]()
    if UNET not in parts:
        raise ConfigError(
            "kohya's names are known for UNets only, and this adapter is that of a transformer; use --format "
            "diffusers-lora, which ComfyUI reads as well, or pipeline"
        )
    described = read_description(weights / LORA_FILE, UNET)
    for part, prefix in kohya_prefixes(parts).items():
        own = alphas({name.partition(PART)[0] for name in parts[part]}, read_description(weights / LORA_FILE, part))
        tensors |= kohya_weights(parts[part], own, prefix=prefix)
    _save(
        tensors,
        out,
        {
            "format": "pt",
            "ss_network_module": "networks.lora",
            "ss_network_dim": str(described["r"]),
            "ss_network_alpha": f"{described['lora_alpha']:g}",
            **kohya_metadata(tensors),
        },
    )


def _adapter(config: RunConfig, weights: Path, out: Path, *, half: bool) -> dict[str, Values]:
    if config.adapter != "lora":
        raise ConfigError("this run trained the whole network and has no adapter; use --format pipeline")
    if out.suffix != ".safetensors":
        raise ConfigError(f"--out {out} must end in .safetensors")
    dtype = np.float16 if half else np.float32
    return {name: value.astype(dtype) for name, value in read_lora(weights / LORA_FILE).items()}


def _save(tensors: Mapping[str, Values], out: Path, metadata: dict[str, str]) -> None:
    with write_aside(out) as aside:
        save_file(dict(tensors), aside, metadata)
