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

from seedpo.protocols import Source, State, Trainable
from seedpo.training.codec import load_tree, save_tree
from seedpo.training.optim import optimizer_state, restore_optimizer
from seedpo.training.processes import unwrapped
from seedpo.training.random_state import capture_random_state, restore_random_state
from seedpo.training.sharding import Layout

WEIGHTS = "policy"
"""Folder of a checkpoint that holds the policy's weights."""


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
    _pairs: int = field(default=0, init=False)

    def total(self) -> float:
        """Wall time of the whole run: steps, evaluations and saving."""
        return self.before + time.perf_counter() - self._started

    @contextmanager
    def step(self) -> Iterator[None]:
        """What is done inside is one step."""
        started = time.perf_counter()
        yield
        self._steps.append(time.perf_counter() - started)

    def count(self, pairs: int) -> None:
        """Notes how many pairs a step trained on, over all processes."""
        self._pairs += pairs

    def pace(self) -> dict[str, float]:
        """``seconds`` of a step (mean) and ``pairs_per_second`` (over all processes) since the last call.

        Evaluations and saving are left out; sampling the pairs is not.
        """
        spent = sum(self._steps)
        figures = {"seconds": spent / max(len(self._steps), 1), "pairs_per_second": self._pairs / max(spent, 1e-9)}
        self._steps.clear()
        self._pairs = 0
        return figures


def load_weights(policy: Trainable, folder: Path) -> None:
    """Reads the weights of a checkpoint into a policy that is not wrapped or sharded yet.

    Raises:
        RuntimeError: if the policy loaded them into other tensors than those it trains.
    """
    before = policy.trainable_parameters()
    policy.load(folder / WEIGHTS)
    after = policy.trainable_parameters()
    if any(after.get(name) is not parameter for name, parameter in before.items()):
        raise RuntimeError("the policy's load replaced the tensors that are trained; it must fill them in place")


@dataclass(frozen=True, kw_only=True)
class RunState:
    """The objects of one process whose state a checkpoint holds."""

    policy: Trainable
    layout: Layout
    source: Source[Any]
    parameters: dict[str, nn.Parameter]
    optimizer: AcceleratedOptimizer
    generator: torch.Generator
    accelerator: Accelerator

    def shared(self) -> State:
        """The optimiser's state (and the gradient scaler's), whole; every process must ask together."""
        state = optimizer_state(self.optimizer, list(self.parameters))
        if self.accelerator.scaler is not None:
            state["scaler"] = self.accelerator.scaler.state_dict()
        return state

    def write_shared(self, folder: Path, state: State) -> None:
        """Writes what all processes have in common: weights, which must be plain, and what :meth:`shared` gave."""
        weights = folder / WEIGHTS
        weights.mkdir()
        with unwrapped(self.policy, self.accelerator):
            self.policy.save(weights)
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
        """Takes everything back from a checkpoint but the weights, which :func:`load_weights` reads.

        Raises:
            RunFolderError: if the checkpoint belongs to other parameters.
        """
        shared = load_tree(folder / "optimizer")
        restore_optimizer(self.optimizer, self.parameters, shared)
        if self.accelerator.scaler is not None and "scaler" in shared:
            self.accelerator.scaler.load_state_dict(shared["scaler"])
        own = load_tree(self._own(folder))
        self.source.restore(own["source"])
        self.generator.set_state(own["generator"])
        restore_random_state(own["random"], self.accelerator.device)

    def _own(self, folder: Path) -> Path:
        return folder / f"rank-{self.accelerator.process_index}"
