"""Runs in this process: each trains, counts the rows through its network, and keeps the figures of its evaluations."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from tqdm import tqdm

from benchmarks.phases import Phase
from seedpo.errors import TrainingDiverged
from seedpo.evaluation.image_evaluation import ImageEvaluation
from seedpo.evaluation.settings import EvaluationConfig
from seedpo.evaluation.sheets import sheet_file
from seedpo.metrics.named import build_prompt_metric
from seedpo.protocols import Reward
from seedpo.training.accelerator import build_accelerator
from seedpo.training.configuration import resolve_config
from seedpo.training.run import train

ROWS_AT_ONCE = 96
"""Images that are drawn together."""


def image_evaluation(
    phase: Phase, *, steps: int, guidance_scale: float, rewards: Mapping[str, Reward], metrics: Sequence[str]
) -> ImageEvaluation:
    """What a phase measures.

    Args:
        phase: prompts and latents.
        steps: denoising steps.
        guidance_scale: classifier-free guidance.
        rewards: by name.
        metrics: names.
    """
    config = EvaluationConfig(
        num_prompts=len(phase.prompts),
        images_per_prompt=phase.images,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        seed=phase.seed,
        batch_size=ROWS_AT_ONCE,
    )
    return ImageEvaluation(
        phase.prompts, config=config, rewards=rewards, metrics={name: build_prompt_metric(name) for name in metrics}
    )


class Counter:
    """Counts rows through a network while it is open."""

    def __init__(self) -> None:
        self.open = True
        self.units = 0

    def hook(self, module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        """Called after each forward pass."""
        if self.open:
            first = next(value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor))
            self.units += len(first) * (2 if torch.is_grad_enabled() else 1)


Line = dict[str, Any]
"""Figures of an evaluation; ``by_prompt``, where it is there, has the values of every prompt by figure."""

_BEFORE: dict[ImageEvaluation, Line] = {}
"""Figures before training: no run has changed the model yet."""


class Measurement:
    """The evaluator of a run: figures by step, with the units and the processor time of training until then.

    Args:
        evaluation: draws and measures.
        names: the figures that are kept, each under the name that a line has for it.
        prompted: names of those whose values of every prompt are kept as well.
        after: called with the policy, the step and the folder after every evaluation but that before training; its
            lines follow that of the evaluation.

    Attributes:
        lines: of the evaluations until now.
    """

    def __init__(
        self,
        evaluation: ImageEvaluation,
        *,
        names: Mapping[str, str],
        prompted: Sequence[str] = (),
        after: Callable[[Any, int, Path], Sequence[Line]] | None = None,
    ) -> None:
        self.evaluation = evaluation
        self.names = names
        self.prompted = prompted
        self.counter = Counter()
        self.lines: list[Line] = []
        self._after = after
        self._seconds = 0.0
        self._since = time.process_time()

    def __call__(self, policy: Any, *, step: int, folder: Path) -> Mapping[str, float]:
        """Draws and measures, outside the count."""
        if step == 0:
            policy.module.register_forward_hook(self.counter.hook, with_kwargs=True)
        self._seconds += time.process_time() - self._since
        self.counter.open = False
        line = _BEFORE.get(self.evaluation) if step == 0 else None
        if line is None:
            line = self.figures(policy, step, folder)
        if step == 0:
            _BEFORE[self.evaluation] = line
        cost = {"step": step, "units": self.counter.units, "seconds": round(self._seconds, 2)}
        self.lines.append({**cost, **line})
        if step > 0 and self._after is not None:
            self.lines += [{**cost, **extra} for extra in self._after(policy, step, folder)]
        self.counter.open = True
        self._since = time.process_time()
        return {name: value for name, value in line.items() if name != "by_prompt"}

    def figures(self, policy: Any, step: int, folder: Path) -> Line:
        """What is measured now."""
        measured = self.evaluation(policy, step=step, folder=folder)
        line: Line = {kept: measured[name] for name, kept in self.names.items() if name in measured}
        if self.prompted:
            values = json.loads(sheet_file(folder, step).with_suffix(".json").read_text("utf-8"))
            line["by_prompt"] = {kept: values[name] for name, kept in self.names.items() if kept in self.prompted}
        return line


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a run ended.

    Attributes:
        last: its last line of training figures; empty if it diverged.
        failure: why it diverged; empty if it did not.
        clock: seconds, evaluations included.
    """

    last: Mapping[str, Any]
    failure: str
    clock: float


def train_here(method: str, keys: Mapping[str, Any], measurement: Measurement) -> Training:
    """Trains in a folder that is removed afterwards; a run that diverges is a result too."""
    torch.set_num_threads(1)
    started, last, failure = time.time(), {}, ""
    folder = Path(tempfile.mkdtemp(prefix="seedpo-benchmark-"))
    try:
        config = resolve_config(method, keys)
        last = train(config, folder / "run", accelerator=build_accelerator("no"), evaluator=measurement, progress=False)
    except TrainingDiverged as error:
        failure = str(error).replace(str(folder), "")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Training(last=last, failure=failure, clock=round(time.time() - started, 1))


class Named(Protocol):
    """A run that has a file of its own."""

    @property
    def name(self) -> str:
        """Of its file, from the folder of all files on."""


SomeTask = TypeVar("SomeTask", bound=Named)


def run_unfinished(
    tasks: Sequence[SomeTask], run: Callable[[SomeTask, Path], Any], out: Path, *, processes: int, label: str
) -> None:
    """Runs the tasks whose files are not there yet, some at the same time.

    Args:
        tasks: in the order in which they begin.
        run: a function of a module that trains one and writes its file.
        out: folder of all files.
        processes: tasks at the same time.
        label: of the progress bar.
    """
    waiting = [task for task in tasks if not (out / task.name).is_file()]
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"))
    try:
        with tqdm(total=len(waiting), desc=label, unit="run") as bar:
            for future in as_completed([pool.submit(run, task, out) for task in waiting]):
                future.result()
                bar.update()
    finally:
        pool.shutdown(cancel_futures=True)
