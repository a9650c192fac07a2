"""A policy of a few weights, a source and a method that draw from every generator there is, and an evaluator."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from seedpo.core.types import LossOutput
from seedpo.errors import SeedpoError
from seedpo.models.weight_copy import WeightCopy, copied
from seedpo.run_folders import RunFolder
from seedpo.settings import build_config
from seedpo.training.accelerator import build_accelerator
from seedpo.training.run_folder import create_run_folder
from seedpo.training.settings import RunConfig
from seedpo.training.trainer import Trainer
from seedpo.training.watching import Watch

WEIGHTS = "pytorch_lora_weights.safetensors"


class ToyPolicy:
    """A network from 4 numbers to 1; only its weights are trained, one bias is frozen."""

    def __init__(self, dropout: float = 0.25) -> None:
        network = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 1))
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)
        network[3].bias.requires_grad_(False)
        self.module: nn.Module = network
        self._trained = {name: value for name, value in network.named_parameters() if value.requires_grad}
        self.copy: WeightCopy | None = None

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        return dict(self._trained)

    def save(self, folder: Path) -> None:
        save_file({name: value.detach().clone() for name, value in self._trained.items()}, folder / WEIGHTS)

    def load(self, folder: Path) -> None:
        with torch.no_grad():
            for name, value in load_file(folder / WEIGHTS).items():
                self._trained[name].copy_(value)

    @contextmanager
    def reference(self) -> Iterator[None]:
        assert self.copy is not None
        with self.copy.in_place(), torch.no_grad():
            yield

    def move_reference(self) -> None:
        self.copy = copied(self.trainable_parameters, into=self.copy)

    def average_reference(self, decay: float) -> None:
        assert self.copy is not None
        self.copy.average(decay)

    def weights(self) -> Tensor:
        return torch.cat([value.detach().flatten() for value in self._trained.values()])


@dataclass
class ToySource:
    """Rows of 4 random numbers; of each global batch, process ``rank`` of ``processes`` gets its part."""

    batch_size: int
    rank: int = 0
    processes: int = 1
    seed: int = 5
    drawn: int = 0
    since: list[float] = field(default_factory=list)
    before_batch: Callable[[int], None] = field(default=lambda number: None)

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.seed)

    def next_batch(self) -> Tensor:
        self.before_batch(self.drawn)
        self.drawn += 1
        # Uniform numbers come in one stream however it is cut into batches; normal ones do not.
        rows = 3 * torch.rand(self.batch_size * self.processes, 4, generator=self.generator) - 1.5
        self.since.append(float(rows.mean()))
        return rows[self.rank * self.batch_size :][: self.batch_size]

    def rolls_out_within(self, batches: int) -> bool:
        """Whether one of the next batches is the first of three."""
        return any((self.drawn + number) % 3 == 0 for number in range(batches))

    def metrics(self) -> Mapping[str, float]:
        mean = sum(self.since) / len(self.since)
        self.since.clear()
        return {"rows_mean": mean}

    def state(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state(), "drawn": self.drawn, "since": list(self.since)}

    def restore(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"])
        self.drawn = state["drawn"]
        self.since = list(state["since"])


@dataclass(frozen=True)
class ToyMethod:
    """Softplus of the negative score; with noise it draws from the given and from all global generators."""

    noise: float = 0.3
    scale: float = 1.0

    def loss(self, policy: ToyPolicy, batch: Tensor, *, generator: torch.Generator) -> LossOutput:
        rows = batch
        if self.noise:
            rows = rows + self.noise * torch.randn(rows.shape, generator=generator)
            rows = rows + self.noise * (random.random() + float(np.random.random()))  # noqa: NPY002
        score = policy.module(rows)[:, 0]
        losses = self.scale * functional.softplus(-score)
        metrics = {"margin": score.detach(), "offset": batch[:, 0]}
        return LossOutput(losses=losses, metrics=metrics, spreads=("offset",))


@dataclass(frozen=True)
class ComparingMethod:
    """Another method, and how far the scores are from those of the reference."""

    method: ToyMethod = ToyMethod()

    def loss(self, policy: ToyPolicy, batch: Tensor, *, generator: torch.Generator) -> LossOutput:
        output = self.method.loss(policy, batch, generator=generator)
        with policy.reference():
            theirs = policy.module(batch)[:, 0]
        apart = (policy.module(batch)[:, 0] - theirs).square()
        metrics = {**output.metrics, "distance": apart.detach()}
        return LossOutput(losses=output.losses + apart, metrics=metrics, spreads=output.spreads)


@dataclass
class ToyEvaluator:
    """Writes a file, disturbs every global generator, and counts its calls."""

    calls: list[int] = field(default_factory=list)

    def __call__(self, policy: ToyPolicy, *, step: int, folder: Path) -> Mapping[str, float]:
        self.calls.append(step)
        torch.rand(7), random.random(), np.random.random()  # noqa: NPY002
        with torch.no_grad():
            score = float(policy.module.eval()(torch.ones(1, 4)))
        policy.module.train()
        (folder / f"step-{step:06d}.txt").write_text(f"{score!r}\n")
        return {"score": score}


def toy_config(**changes: Any) -> RunConfig:
    defaults = {"max_steps": 6, "batch_size": 4, "learning_rate": 0.05, "checkpoint_every": 2, "evaluate_every": 3}
    return build_config(RunConfig, {"gradient_accumulation_steps": 1}, defaults, changes)


def cpu_accelerator(config: RunConfig) -> Accelerator:
    """Accelerate keeps the first precision of a process; every test starts afresh."""
    AcceleratorState._reset_state(reset_partial_state=False)
    return build_accelerator(config.mixed_precision, cpu=True)


def toy_trainer(path: Path, config: RunConfig, **parts: Any) -> Trainer[Tensor]:
    """A trainer on the toy parts; the folder is made if it is not there."""
    folder = RunFolder.open(path) if (path / "config.yaml").exists() else create_run_folder(path, config)
    given = {"policy": ToyPolicy(), "method": ToyMethod(), "source": ToySource(config.batch_size)} | parts
    if "accelerator" not in given:
        given["accelerator"] = cpu_accelerator(config)
    return Trainer(config=config, folder=folder, watch=Watch(folder, config), progress=False, **given)


def message_of(action: Callable[[], Any]) -> str:
    """The error that ``action`` raises, with its type; "no error" if there is none."""
    try:
        action()
    except (SeedpoError, RuntimeError, ArithmeticError) as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def metrics_lines(path: Path, *without: str) -> list[dict[str, Any]]:
    """All metrics lines, less what depends on the clock."""
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    timed = ("seconds", "pairs_per_second", *without)
    return [{key: value for key, value in line.items() if key not in timed} for line in lines]


def trace(path: Path) -> dict[str, Any]:
    """All that two runs must have in common to be called the same, file by file."""
    files = sorted(file for file in path.rglob("*") if file.is_file())
    # The environment names the commit of the checkout, which may change while the tests run.
    apart = ("metrics.jsonl", "finished.json", "checkpoint.json", "environment.json", ".lock")
    content: dict[str, Any] = {
        str(file.relative_to(path)): file.read_bytes() for file in files if file.name not in apart
    }
    for file in files:
        if file.name == "checkpoint.json":
            manifest = json.loads(file.read_text())["manifest"]
            content[str(file.relative_to(path))] = manifest | {"seconds": 0.0}
        if file.name == "finished.json":
            content["finished.json"] = json.loads(file.read_text())["step"]
    return content | {"metrics": metrics_lines(path)}
