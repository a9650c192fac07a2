"""The trained weights of a run: those at its end, or those of one of its checkpoints."""

from __future__ import annotations

from pathlib import Path

from seedpo.errors import RunFolderError
from seedpo.training.checkpoint import Checkpoints, read_manifest
from seedpo.training.run_folder import RunFolder
from seedpo.training.settings import RunConfig


def trained_weights(run: Path, *, step: int | None = None) -> tuple[RunConfig, Path]:
    """Settings of a run and the folder of its weights, in diffusers' format.

    Args:
        run: the run folder.
        step: a checkpoint's step; none: the end of the run.

    Raises:
        RunFolderError: if there is no run, it did not finish, or the checkpoint is missing or damaged.
    """
    folder = RunFolder.open(run)
    config = folder.read_config()
    checkpoints = Checkpoints(folder.checkpoints, config.checkpoints_limit)
    if step is None:
        weights = folder.weights(config)
        if not weights.is_dir():
            raise RunFolderError(
                f"{run} holds no trained weights, since the run did not finish; continue with --resume latest, "
                f"or take a checkpoint with --step ({_steps(checkpoints)})"
            )
        return config, weights
    if step not in checkpoints.steps():
        raise RunFolderError(f"{run} has no checkpoint of step {step}; {_steps(checkpoints)}")
    read_manifest(checkpoints.path(step))
    return config, checkpoints.path(step) / "policy"


def _steps(checkpoints: Checkpoints) -> str:
    steps = checkpoints.steps()
    return f"there are: {', '.join(map(str, steps))}" if steps else "there is none"
