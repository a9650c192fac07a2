"""Training: one loop for every method, with exact resume."""

from __future__ import annotations

from seedpo.training.interrupt import TrainingInterrupted
from seedpo.training.processes import build_accelerator
from seedpo.training.run_folder import RunFolder
from seedpo.training.trainer import Trainer

__all__ = ["RunFolder", "Trainer", "TrainingInterrupted", "build_accelerator"]
