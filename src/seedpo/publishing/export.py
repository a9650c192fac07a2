"""Trained weights in the formats of other programs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from seedpo.errors import ConfigError
from seedpo.files import write_aside, write_folder_aside, writing
from seedpo.models.adapter import LORA_FILE, forget_origin, lora_layers
from seedpo.models.loading import add_trained, load_base
from seedpo.models.lora import PART, alphas, read_description, read_metadata
from seedpo.models.stable_diffusion import kohya_metadata, kohya_weights
from seedpo.run_folders import RunFolder
from seedpo.training.settings import RunConfig
from seedpo.weights import read_weights

_FIX = "choose an --out that can be written"


def trained_weights(run: Path, *, step: int | None = None) -> tuple[RunConfig, Path]:
    """Settings of a run and the folder of its trained weights.

    Args:
        run: the run folder.
        step: a checkpoint's step; ``None`` for the end of the run.

    Raises:
        RunFolderError: if there is no run, it did not finish, or the checkpoint is missing or damaged.
    """
    folder = RunFolder.open(run)
    config = folder.read_config(RunConfig)
    return config, folder.trained_weights(config.weights_folder, step=step)


def export_run(run: Path, out: Path, *, format: str, step: int | None = None, half: bool = False) -> Path:
    """Writes the trained weights of a run in another format.

    Args:
        run: the run folder.
        out: the file (``kohya``, ``diffusers-lora``) or folder (``pipeline``) to write; it must be new.
        format: one of :data:`FORMATS`.
        step: a checkpoint's step; ``None`` for the end of the run.
        half: whether tensors are stored in float16 instead of float32.

    Returns:
        What was written.

    Raises:
        ConfigError: if the format is unknown, does not fit the run, or ``out`` exists or has the wrong ending.
        RunFolderError: if the run has no such weights, or the disk is full.
        DataError: if the weights or the base model cannot be read.
    """
    if format not in FORMATS:
        raise ConfigError(f"unknown format {format!r}; there are: {', '.join(FORMATS)}")
    if out.exists():
        raise ConfigError(f"{out} exists already; choose another --out")
    config, weights = trained_weights(run, step=step)
    out.parent.mkdir(parents=True, exist_ok=True)
    with writing(f"the {format} export", out.parent, fix=_FIX):
        FORMATS[format](config, weights, out, torch.float16 if half else torch.float32)
    return out


def _adapter(config: RunConfig, weights: Path, out: Path, dtype: torch.dtype) -> dict[str, Tensor]:
    if config.adapter != "lora":
        raise ConfigError("this run trained the whole UNet and has no adapter; use --format pipeline")
    if out.suffix != ".safetensors":
        raise ConfigError(f"--out {out} must end in .safetensors")
    return {name: value.to(dtype) for name, value in read_weights(weights / LORA_FILE).items()}


def _save(tensors: dict[str, Tensor], out: Path, metadata: dict[str, str]) -> None:
    with write_aside(out) as aside:
        save_file(tensors, aside, metadata)


def export_lora(config: RunConfig, weights: Path, out: Path, dtype: torch.dtype) -> None:
    """The adapter under the names of diffusers: ``pipe.load_lora_weights(folder, weight_name=file)``."""
    _save(_adapter(config, weights, out, dtype), out, read_metadata(weights / LORA_FILE))


def export_kohya(config: RunConfig, weights: Path, out: Path, dtype: torch.dtype) -> None:
    """The adapter under the names of kohya's scripts, for web UIs; diffusers reads it as well."""
    layers = lora_layers(_adapter(config, weights, out, dtype))
    described = read_description(weights / LORA_FILE, "unet")
    tensors = kohya_weights(layers, alphas({name.partition(PART)[0] for name in layers}, described))
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


def export_pipeline(config: RunConfig, weights: Path, out: Path, dtype: torch.dtype) -> None:
    """A whole pipeline in diffusers' format: the adapter added to the base model's weights, or the trained UNet."""
    pipeline: Any = load_base(config.model_copy(update={"base_precision": "full"}))
    add_trained(pipeline, weights, adapter=config.adapter)
    if config.adapter == "lora":
        pipeline.fuse_lora()
        pipeline.unload_lora_weights()
    if dtype != torch.float32:
        pipeline.to(dtype=dtype)
    with write_folder_aside(out) as aside:
        pipeline.save_pretrained(aside, safe_serialization=True)
        forget_origin(aside)


FORMATS: dict[str, Callable[[RunConfig, Path, Path, torch.dtype], None]] = {
    "diffusers-lora": export_lora,
    "kohya": export_kohya,
    "pipeline": export_pipeline,
}
"""What ``seedpo export --format`` takes."""
