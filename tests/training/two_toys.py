"""What two processes do together with the toy policy; ``real_processes.py`` calls it in both."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from seedpo import processes
from seedpo.core.types import LossOutput
from seedpo.errors import SeedpoError
from seedpo.methods.sources.stream import IndexStream
from seedpo.processes import on_every_process, on_main_process, require_shared
from seedpo.protocols import EarlierProcesses
from seedpo.run_folders import RunFolder
from seedpo.training.run_folder import create_run_folder
from seedpo.training.trainer import Trainer
from seedpo.training.watching import Watch
from tests.training.toys import ToyEvaluator, ToyMethod, ToyPolicy, ToySource, message_of, toy_config


class PoisonedMethod(ToyMethod):
    """In the second process the third loss is not finite."""

    def loss(self, policy: ToyPolicy, batch: Tensor, *, generator: torch.Generator) -> LossOutput:
        output = super().loss(policy, batch, generator=generator)
        poisoned = int(os.environ["RANK"]) == 1
        factor = torch.tensor([1.0, 1.0, float("inf") if poisoned else 1.0, 1.0])
        return LossOutput(losses=output.losses * factor, metrics={})


class BrokenEvaluator(ToyEvaluator):
    def __call__(self, policy: ToyPolicy, *, step: int, folder: Path) -> dict[str, float]:
        raise SeedpoError("the evaluator has no prompts")


class PeakedEvaluator(ToyEvaluator):
    """The truth is highest at step 1."""

    def __call__(self, policy: ToyPolicy, *, step: int, folder: Path) -> dict[str, float]:
        return {"truth": float(-abs(step - 1))}


class NumberedRows:
    """Rows of 4 numbers that follow from the number of a row, shuffled and dealt out as pairs are."""

    def __init__(self, batch_size: int, accelerator: Accelerator) -> None:
        self.batch_size = batch_size
        self.stream = IndexStream(50, seed=4, rank=accelerator.process_index, world=accelerator.num_processes)

    def next_batch(self) -> Tensor:
        rows = [
            torch.rand(4, generator=torch.Generator().manual_seed(row)) for row in self.stream.take(self.batch_size)
        ]
        return 3 * torch.stack(rows) - 1.5

    def metrics(self) -> Mapping[str, float]:
        return {"visits": self.stream.visits}

    def state(self) -> dict[str, Any]:
        return self.stream.state()

    def restore(self, state: dict[str, Any]) -> None:
        self.stream.restore(state)

    def take_over(self, earlier: EarlierProcesses, *, seed: int) -> None:
        self.stream.take_over(earlier.states)


def numbered(accelerator: Accelerator, path: Path, *, steps: int, resume: bool = False, dropout: float = 0.0) -> Tensor:
    """The weights after some steps on 8 numbered rows each, in batches of 2, which noise from nowhere disturbs."""
    settings = {
        "batch_size": 2,
        "gradient_accumulation_steps": 4 // accelerator.num_processes,
        "max_steps": steps,
        "checkpoint_every": 0,
        "ema_decay": 0.9,
    }
    method, source = ToyMethod(noise=dropout), NumberedRows(2, accelerator)
    _, policy = run(accelerator, path, resume=resume, settings=settings, method=method, source=source, dropout=dropout)
    return policy.weights()


EARLY = {
    "evaluate_every": 1,
    "evaluation": {"rewards": [], "metrics": ["truth"]},
    "keep_best": "truth",
    "early_stopping": {"metric": "truth", "patience": 2},
}


def run(
    accelerator: Accelerator,
    path: Path,
    *,
    resume: bool = False,
    settings: Mapping[str, Any] = MappingProxyType({}),
    **parts: Any,
) -> tuple[dict[str, Any], ToyPolicy]:
    config = toy_config(**({"max_steps": 5, "gradient_accumulation_steps": 2} | settings))
    if not resume:
        on_main_process(accelerator, lambda: create_run_folder(path, config))
    policy = ToyPolicy(dropout=parts.pop("dropout", 0.25))
    rank, processes = accelerator.process_index, accelerator.num_processes
    given = {"method": ToyMethod(), "source": ToySource(4, rank, processes), "evaluator": ToyEvaluator()} | parts
    folder = RunFolder.open(path)
    trainer = Trainer(
        policy=policy,
        config=config,
        folder=folder,
        watch=Watch(folder, config),
        accelerator=accelerator,
        progress=False,
        **given,
    )
    return trainer.train(resume="latest" if resume else None), policy


def divide() -> float:
    return 1 / 0


def stop_in_step_3(rank: int) -> ToySource:
    def before_batch(drawn: int) -> None:
        if rank == 1 and drawn == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    return ToySource(4, rank, 2, before_batch=before_batch)


def toy_runs(accelerator: Accelerator, root: Path) -> dict[str, Any]:
    """Runs that agree, stop, resume and fail together; what each of them gave on this process."""
    rank = accelerator.process_index
    results: dict[str, Any] = {}

    last, policy = run(accelerator, root / "plain", method=ToyMethod(noise=0.0), dropout=0.0)
    results["plain"] = {"last": last, "weights": policy.weights().tolist()}

    last, policy = run(accelerator, root / "whole")
    results["whole"] = {"last": last, "weights": policy.weights().tolist()}
    results["stop"] = message_of(lambda: run(accelerator, root / "stopped", source=stop_in_step_3(rank)))
    last, policy = run(accelerator, root / "stopped", resume=True)
    results["stopped"] = {"last": last, "weights": policy.weights().tolist()}

    last, policy = run(accelerator, root / "early", settings=EARLY, evaluator=PeakedEvaluator())
    results["early"] = {"last": last["step"], "weights": policy.weights().tolist()}

    for name, dropout in (("quiet", 0.0), ("noisy", 0.25)):
        numbered(accelerator, root / f"{name}-down", steps=2, dropout=dropout)
        policy_weights = numbered(accelerator, root / f"{name}-up", steps=4, resume=True, dropout=dropout)
        results[f"{name}-up"] = policy_weights.tolist()

    results["diverged"] = message_of(lambda: run(accelerator, root / "diverged", method=PoisonedMethod()))
    results["evaluator"] = message_of(lambda: run(accelerator, root / "broken", evaluator=BrokenEvaluator()))

    def fail_on_second() -> None:
        if rank == 1:
            raise SeedpoError("the second process has no disk")

    processes.PATIENCE = 0.5
    results["shared"] = message_of(lambda: require_shared(accelerator, root / "new" / "shared"))
    results["unshared"] = message_of(lambda: require_shared(accelerator, root / f"disk-{rank}" / "run"))

    results["second"] = message_of(lambda: on_every_process(accelerator, fail_on_second))
    results["fault"] = message_of(lambda: on_main_process(accelerator, divide))
    return results
