"""A run in progress: weights, optimiser, random states, source and position; and how a checkpoint holds them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor, nn

from seedpo.documents import UNREADABLE
from seedpo.errors import SeedpoError
from seedpo.methods.beta_rule import BetaRule
from seedpo.protocols import Batch, Fingerprint, Source, State, TakesOver, Trainable
from seedpo.run_folders import AVERAGE, REFERENCE, WEIGHTS, DamagedCheckpoint, Manifest
from seedpo.training.checkpoint import Checkpoints, process_file
from seedpo.training.codec import load_tree, save_tree
from seedpo.training.layout import Layout, unwrapped
from seedpo.training.optimizers import optimizer_state, restore_optimizer
from seedpo.training.random_state import capture_random_state, process_seed, restore_random_state, seed_process
from seedpo.training.reference import ReferenceRule
from seedpo.training.settings import TrainingConfig
from seedpo.training.weight_average import WeightAverage, exchanged


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


@dataclass(kw_only=True)
class Run(Generic[Batch]):
    """A run in progress, as one process holds it; all that a checkpoint restores.

    Attributes:
        policy: the trained model.
        layout: how its weights lie over the processes.
        source: the pairs of this process.
        parameters: what is trained, by name.
        optimizer: over the parameters, in their order.
        generator: of this process, on the CPU.
        accelerator: of this process.
        config: settings of the run.
        checkpoints: of the run.
        reference: SHA-256 of the weights that the run started from.
        inputs: fingerprints of the data that the run reads, by the configuration key that names them.
        average: the moving average of the parameters; ``None`` without `ema_decay`.
        rule: moves the reference; ``None`` if it has no weights of its own.
        beta: changes the method's beta; ``None`` if it stays.
        position: how far the run is.
        clock: time spent.
        saved_step: the step of the last checkpoint; ``None`` if there is none.
    """

    policy: Trainable
    layout: Layout
    source: Source[Batch]
    parameters: dict[str, nn.Parameter]
    optimizer: AcceleratedOptimizer
    generator: torch.Generator
    accelerator: Accelerator
    config: TrainingConfig
    checkpoints: Checkpoints
    reference: str
    inputs: Mapping[str, Fingerprint]
    average: WeightAverage | None = None
    rule: ReferenceRule | None = None
    beta: BetaRule | None = None
    position: Position = field(default_factory=Position)
    clock: Clock = field(default_factory=Clock)
    saved_step: int | None = None

    def averaged(self) -> AbstractContextManager[None]:
        """Inside, the policy has the moving average of its weights, if the run keeps one; every process must enter."""
        return nullcontext() if self.average is None else self.average.in_place()

    def save(self) -> None:
        """Writes a checkpoint of this step, unless there is one; every process must call this together.

        Raises:
            RunFolderError: if the disk is full.
        """
        if self.saved_step == self.position.step:
            return
        manifest = Manifest(
            step=self.position.step,
            pairs_seen=self.position.pairs_seen,
            seconds=self.clock.total(),
            processes=self.accelerator.num_processes,
            config=self.config.model_dump(mode="json"),
            files={},
            reference=self.reference,
            inputs=dict(self.inputs),
        )
        shared = self._shared_state()
        average = None if self.average is None else self.average.whole_values()
        with self.layout.plain():
            self.checkpoints.write(
                manifest,
                accelerator=self.accelerator,
                write_shared=lambda folder: self._write_shared(folder, shared, average),
                write_own=lambda folder: save_tree(
                    self._own_state(), process_file(folder, self.accelerator.process_index)
                ),
            )
        self.saved_step = self.position.step

    def restore(self, manifest: Manifest) -> None:
        """Restores everything from a checkpoint but the weights; for those see :mod:`seedpo.training.resume`.

        Raises:
            RunFolderError: if the checkpoint belongs to other parameters.
        """
        folder = self.checkpoints.path(manifest.step)
        try:
            self._restore(folder, manifest)
        except (SeedpoError, torch.OutOfMemoryError, OSError):
            raise
        except (RuntimeError, *UNREADABLE) as error:
            raise DamagedCheckpoint(
                f"{folder} holds another state than this run writes ({error!r}); restore it, or choose another --out"
            ) from error
        self.position = Position(step=manifest.step, pairs_seen=manifest.pairs_seen)
        self.clock = Clock(before=manifest.seconds)
        self.saved_step = manifest.step

    def _restore(self, folder: Path, manifest: Manifest) -> None:
        shared = load_tree(folder / "optimizer")
        restore_optimizer(self.optimizer, self.parameters, shared)
        if self.accelerator.scaler is not None and "scaler" in shared:
            self.accelerator.scaler.load_state_dict(shared["scaler"])
        same = manifest.processes == self.accelerator.num_processes
        own = load_tree(process_file(folder, self.accelerator.process_index if same else 0))
        if self.rule is not None:
            self.rule.restore(own["reference"])
        if self.beta is not None:
            self.beta.restore(own["beta"])
        if same:
            self.source.restore(own["source"])
            self.generator.set_state(own["generator"])
            restore_random_state(own["random"], self.accelerator.device)
        else:
            self._take_over(manifest)

    def _take_over(self, manifest: Manifest) -> None:
        """Takes this process's share of what another number of processes left, and begins new streams of numbers."""
        seed, rank = self.config.seed, self.accelerator.process_index
        since = (manifest.step, self.accelerator.num_processes)
        assert isinstance(self.source, TakesOver)
        earlier = self.checkpoints.earlier_processes(manifest)
        self.source.take_over(earlier, seed=process_seed(seed, rank, *since, 1))
        self.generator = seed_process(seed, rank, *since)

    def _shared_state(self) -> State:
        """The whole state of the optimiser and of the gradient scaler; every process must ask together."""
        state = optimizer_state(self.optimizer, list(self.parameters))
        if self.accelerator.scaler is not None:
            state["scaler"] = self.accelerator.scaler.state_dict()
        return state

    def _write_shared(self, folder: Path, state: State, average: Mapping[str, Tensor] | None) -> None:
        """Writes what all processes have in common: plain weights, average and reference, and the optimiser's state."""
        with unwrapped(self.policy, self.accelerator):
            (folder / WEIGHTS).mkdir()
            self.policy.save(folder / WEIGHTS)
            if average is not None:
                (folder / AVERAGE).mkdir()
                with exchanged(self.policy.trainable_parameters(), average):
                    self.policy.save(folder / AVERAGE)
            if self.rule is not None:
                (folder / REFERENCE).mkdir()
                self.rule.save(folder / REFERENCE)
        save_tree(state, folder / "optimizer")

    def _own_state(self) -> State:
        """What only this process has: its random states and its source's state; and the rules', the same on all."""
        return {
            "random": capture_random_state(self.accelerator.device),
            "generator": self.generator.get_state(),
            "source": self.source.state(),
            **({} if self.rule is None else {"reference": self.rule.state()}),
            **({} if self.beta is None else {"beta": self.beta.state()}),
        }
