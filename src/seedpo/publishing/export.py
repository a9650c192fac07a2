"""Trained weights in the formats of other programs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from seedpo.errors import ConfigError
from seedpo.files import writing
from seedpo.publishing.weights import trained_weights
from seedpo.registry import load_target

FORMATS: Mapping[str, str] = {
    "diffusers-lora": "seedpo.publishing.lora:export_lora",
    "kohya": "seedpo.publishing.lora:export_kohya",
    "pipeline": "seedpo.publishing.pipeline:export_pipeline",
}
"""What ``seedpo export --format`` takes, and what writes it; a LoRA needs neither torch nor diffusers."""


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
    with writing(f"the {format} export", out.parent, fix="choose an --out that can be written"):
        load_target(FORMATS[format])(config, weights, out, half=half)
    return out
