"""Where the trained weights of a run lie, and which part of a pipeline they are."""

from __future__ import annotations

from pathlib import Path

from seedpo.documents import UNREADABLE, read_json
from seedpo.run_folders import RunFolder
from seedpo.training.settings import RunConfig


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


def network_part(weights: Path) -> str:
    """What diffusers calls the denoising network in a pipeline: ``unet`` or ``transformer``.

    Args:
        weights: folder of a whole network; where it is not written yet, a UNet is taken for granted.
    """
    try:
        name = str(read_json(weights / "config.json")["_class_name"])
    except UNREADABLE:
        return "unet"
    return "transformer" if "Transformer" in name else "unet"
