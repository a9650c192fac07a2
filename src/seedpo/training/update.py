"""One optimiser step: micro-batches, loss, gradients over all processes, clipping, update."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor, nn

from seedpo.core.types import LossOutput
from seedpo.errors import TrainingDiverged
from seedpo.processes import gather_all, on_every_process, shared
from seedpo.protocols import Batch, Method, Source, Trainable
from seedpo.training.interrupt import StopRequest
from seedpo.training.optim import clip_gradients, learning_rate_at, scale_gradients, set_learning_rate
from seedpo.training.settings import TrainingConfig
from seedpo.training.sharding import Layout
from seedpo.training.step_metrics import (
    ProcessRows,
    check_output,
    count_pairs,
    detached,
    process_rows,
    rows_not_finite,
    summarise,
)


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What one step gave, the same on every process.

    Attributes:
        pairs: pairs trained on.
        figures: loss, metrics, ``grad_norm`` before clipping and ``learning_rate``.
        stop: whether some process was asked to stop.
    """

    pairs: int
    figures: dict[str, float]
    stop: bool


@dataclass(frozen=True, kw_only=True)
class Updater(Generic[Batch]):
    """Everything that takes part in a step."""

    policy: Trainable
    layout: Layout
    method: Method[Batch]
    source: Source[Batch]
    parameters: dict[str, nn.Parameter]
    optimizer: AcceleratedOptimizer
    accelerator: Accelerator
    generator: torch.Generator
    config: TrainingConfig

    def take_step(self, step: int, *, stop: StopRequest, describe_checkpoint: Callable[[], str]) -> StepResult:
        """Trains on ``gradient_accumulation_steps`` micro-batches per process.

        The loss of a step is the mean over all its pairs, whatever process and micro-batch they are in.

        Args:
            step: number of this step, from 1.
            stop: whether this process was asked to stop; the result tells all of them.
            describe_checkpoint: names the last checkpoint in the error message.

        Raises:
            TrainingDiverged: if a loss or the gradient is not finite; nothing was updated. With fp16 an overflowing
                gradient is no such case until the loss scale cannot fall further: the update is skipped, as usual.
            SeedpoError: as the source or the method of one process raised it, on every process.
        """
        self.optimizer.zero_grad()
        with self.layout.whole():
            outputs = self._accumulate()
        processes = gather_all(process_rows(outputs, stop=stop.requested))
        pairs = count_pairs(processes)
        self._unscale()
        parameters = list(self.parameters.values())
        scale_gradients(parameters, self._expected_pairs() * self.accelerator.num_processes / pairs)
        grad_norm = clip_gradients(parameters, max_grad_norm=self.config.largest_gradient_norm)
        self._require_finite(step, processes, grad_norm, describe_checkpoint)

        learning_rate = learning_rate_at(step, config=self.config)
        set_learning_rate(self.optimizer, learning_rate)
        self.optimizer.step()
        self.optimizer.zero_grad()
        figures = summarise(processes) | {"grad_norm": grad_norm, "learning_rate": learning_rate}
        return StepResult(pairs=pairs, figures=figures, stop=any(rows.stop for rows in processes))

    def _expected_pairs(self) -> int:
        """Pairs that one process is meant to train on in a step."""
        return self.config.batch_size * self.config.gradient_accumulation_steps

    def _accumulate(self) -> list[LossOutput]:
        """Adds up the gradient of all micro-batches; only the last backward pass exchanges it between processes.

        What can fail on one process alone (roll-outs, rewards, losses) is done before anything is exchanged, so that
        the others learn of it instead of waiting.
        """
        outputs: list[LossOutput] = []
        # By itself, since the second step's first forward pass exchanges something under DDP.
        first = on_every_process(self.accelerator, self.source.next_batch)

        def up_to_the_exchange() -> Tensor:
            batch = first
            for _ in range(self.config.gradient_accumulation_steps - 1):
                with self.layout.accumulating():
                    self.accelerator.backward(self._loss(batch, outputs))
                batch = self.source.next_batch()
            return self._loss(batch, outputs)

        loss = on_every_process(self.accelerator, up_to_the_exchange)
        self.layout.before_exchange()
        self.accelerator.backward(loss)
        return outputs

    def _loss(self, batch: Batch, outputs: list[LossOutput]) -> Tensor:
        """A micro-batch's part of the step's loss; its figures are added to ``outputs``."""
        output = self.method.loss(self.policy, batch, generator=self.generator)
        check_output(output)
        outputs.append(detached(output))
        # accelerate would divide by its own count of micro-batches; ours is the number of pairs.
        loss: Tensor = output.losses.sum() / self._expected_pairs() * self.accelerator.gradient_accumulation_steps
        return loss

    def _unscale(self) -> None:
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.unscale_(self.optimizer.optimizer)

    def _require_finite(
        self, step: int, processes: list[ProcessRows], grad_norm: float, describe_checkpoint: Callable[[], str]
    ) -> None:
        places = rows_not_finite(processes)
        scaler = self.accelerator.scaler
        overflow_is_handled = scaler is not None and scaler.get_scale() > 1.0
        if not places and (math.isfinite(grad_norm) or overflow_is_handled):
            return
        self.optimizer.zero_grad()
        what = f"the loss is not finite for {'; '.join(places)}" if places else "the gradient is not finite"
        raise shared(
            TrainingDiverged(
                f"step {step}: {what} (gradient norm {grad_norm:.4g}); the update was not made; "
                f"lower learning_rate, beta or gamma; {describe_checkpoint()}"
            )
        )
