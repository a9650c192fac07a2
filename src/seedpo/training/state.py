"""What a run must remember to go on exactly: weights, optimiser, random states, source, position."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import nn

from seedpo.protocols import Policy, Source
from seedpo.training.codec import load_tree, save_tree
from seedpo.training.optim import optimizer_state, restore_optimizer
from seedpo.training.processes import unwrapped
from seedpo.training.random_state import capture_random_state, restore_random_state


@dataclass(frozen=True, kw_only=True)
class Position:
    """How far a run is.

    Attributes:
        step: optimiser steps taken.
        pairs_seen: pairs trained on, over all processes.
    """

    step: int = 0
    pairs_seen: int = 0

    def after_step(self, *, pairs: int) -> Position:
        """The position one step further."""
        return Position(step=self.step + 1, pairs_seen=self.pairs_seen + pairs)


@dataclass(kw_only=True)
class Clock:
    """Time spent on a run, in seconds.

    Attributes:
        before: spent before this process was started, as the checkpoint says.
    """

    before: float = 0.0
    _started: float = field(default_factory=time.perf_counter, init=False)
    _steps: list[float] = field(default_factory=list, init=False)

    def total(self) -> float:
        """Wall time of the whole run: steps, evaluations and saving."""
        return self.before + time.perf_counter() - self._started

    @contextmanager
    def step(self) -> Iterator[None]:
        """What is done inside is one step."""
        started = time.perf_counter()
        yield
        self._steps.append(time.perf_counter() - started)

    def seconds_per_step(self) -> float:
        """Mean time of the steps since the last call."""
        mean = sum(self._steps) / max(len(self._steps), 1)
        self._steps.clear()
        return mean


@dataclass(frozen=True, kw_only=True)
class RunState:
    """The objects of one process whose state a checkpoint holds."""

    policy: Policy
    source: Source[Any]
    parameters: dict[str, nn.Parameter]
    optimizer: AcceleratedOptimizer
    generator: torch.Generator
    accelerator: Accelerator

    def write_shared(self, folder: Path) -> None:
        """Writes what all processes have in common: weights and optimiser."""
        weights = folder / "policy"
        weights.mkdir()
        with unwrapped(self.policy, self.accelerator):
            self.policy.save(weights)
        state = optimizer_state(self.optimizer, list(self.parameters))
        if self.accelerator.scaler is not None:
            state["scaler"] = self.accelerator.scaler.state_dict()
        save_tree(state, folder / "optimizer")

    def write_own(self, folder: Path) -> None:
        """Writes what only this process has: its random states and its source's state."""
        state = {
            "random": capture_random_state(self.accelerator.device),
            "generator": self.generator.get_state(),
            "source": self.source.state(),
        }
        save_tree(state, self._own(folder))

    def restore(self, folder: Path) -> None:
        """Takes everything back from a checkpoint.

        Raises:
            RunFolderError: if the checkpoint belongs to other parameters.
            RuntimeError: if the policy loaded its weights into tensors that the optimiser does not see.
        """
        with unwrapped(self.policy, self.accelerator):
            self.policy.load(folder / "policy")
            trained = self.policy.trainable_parameters()
        if any(trained.get(name) is not parameter for name, parameter in self.parameters.items()):
            raise RuntimeError("the policy's load replaced the tensors that are trained; it must fill them in place")
        shared = load_tree(folder / "optimizer")
        restore_optimizer(self.optimizer, list(self.parameters), shared)
        if self.accelerator.scaler is not None and "scaler" in shared:
            self.accelerator.scaler.load_state_dict(shared["scaler"])
        own = load_tree(self._own(folder))
        self.source.restore(own["source"])
        self.generator.set_state(own["generator"])
        restore_random_state(own["random"], self.accelerator.device)

    def _own(self, folder: Path) -> Path:
        return folder / f"rank-{self.accelerator.process_index}"
