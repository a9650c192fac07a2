"""One evaluation of a run, on the first process or on all of them together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from accelerate import Accelerator

from seedpo.files import ASIDE, remove_folder, until_full, writing
from seedpo.processes import on_every_process, on_main_process
from seedpo.protocols import Evaluator, SharedEvaluator, Trainable
from seedpo.run_folders import RunFolder
from seedpo.training.codec import load_tree, save_tree
from seedpo.training.random_state import preserved_random_state

_FIX = "continue with --resume latest"


def evaluate_together(
    evaluator: Evaluator, policy: Trainable, *, accelerator: Accelerator, folder: RunFolder, step: int
) -> Mapping[str, float]:
    """The figures of an evaluation, on every process; every process must call this, with whole weights.

    A :class:`SharedEvaluator` draws its images on all processes. The first process reads them from files, whatever
    their size, and measures them. Any other evaluator runs on the first process while the others wait.

    Args:
        evaluator: draws and measures.
        policy: with its bare network.
        accelerator: of this process.
        folder: of the run; images go into its ``samples``.
        step: optimiser steps taken.

    Raises:
        SeedpoError: as the evaluator raised it on any process, or because the disk is full; on every process.
    """
    with preserved_random_state(accelerator.device), torch.no_grad():
        if accelerator.num_processes == 1 or not isinstance(evaluator, SharedEvaluator):
            return on_main_process(accelerator, lambda: _alone(evaluator, policy, folder, step))
        return _shared(evaluator, policy, accelerator, folder, step)


def _alone(evaluator: Evaluator, policy: Trainable, folder: RunFolder, step: int) -> dict[str, float]:
    with until_full(f"the samples of step {step}", folder.samples, fix=_FIX):
        return dict(evaluator(policy, step=step, folder=folder.samples))


def _shared(
    evaluator: SharedEvaluator, policy: Trainable, accelerator: Accelerator, folder: RunFolder, step: int
) -> dict[str, float]:
    parts = folder.path / f"evaluation{ASIDE}"
    rank, world = accelerator.process_index, accelerator.num_processes

    def prepare() -> None:
        with writing(f"the samples of step {step}", folder.path, fix=_FIX):
            remove_folder(parts)
            parts.mkdir()

    def draw() -> None:
        part = evaluator.draw(policy, rank=rank, world=world)
        with writing(f"the samples of step {step}", folder.path, fix=_FIX):
            save_tree(part, _part(parts, rank))

    def measure() -> dict[str, float]:
        drawn = [load_tree(_part(parts, other)) for other in range(world)]
        with until_full(f"the samples of step {step}", folder.samples, fix=_FIX):
            return dict(evaluator.measure(drawn, step=step, folder=folder.samples))

    try:
        on_main_process(accelerator, prepare)
        on_every_process(accelerator, draw)
        return on_main_process(accelerator, measure)
    finally:
        if accelerator.is_main_process:
            remove_folder(parts)


def _part(folder: Path, rank: int) -> Path:
    return folder / f"rank-{rank}"
