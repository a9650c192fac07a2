"""One optimiser step: micro-batches, loss, gradients over all processes, clipping, update."""

from __future__ import annotations

import logging
import math
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic

import torch
from torch import Tensor

from seedpo.core.types import LossOutput
from seedpo.core.weighting import weighed
from seedpo.errors import ConfigError, TrainingDiverged
from seedpo.processes import gather_all, on_every_process, shared
from seedpo.protocols import Batch, JointMethod, Method, Source
from seedpo.training.interrupt import StopRequest
from seedpo.training.optimizers import clip_gradients, learning_rate_at, scale_gradients, set_learning_rate
from seedpo.training.state import Run
from seedpo.training.step_metrics import (
    ProcessRows,
    check_output,
    count_pairs,
    detached,
    process_rows,
    rows_not_finite,
    step_figures,
    total_weight,
)

logger = logging.getLogger(__name__)


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


def try_first_batch(method: Method[Batch], policy: Any, source: Source[Batch], *, seed: int, advice: str) -> None:
    """Takes the first batch of a run, forward and backward, and logs its loss; nothing is updated.

    Args:
        method: the loss.
        policy: what would be trained.
        source: of the batch.
        seed: of what is drawn.
        advice: what may help if the loss is not finite.

    Raises:
        ConfigError: if it is not.
    """
    generator = torch.Generator().manual_seed(seed)
    loss = method.loss(policy, source.next_batch(), generator=generator).losses.mean()
    torch.autograd.backward(loss)
    if not bool(loss.isfinite()):
        raise ConfigError(f"the loss of the first batch is not finite; {advice}")
    logger.info("first batch: loss %.4f, forward and backward", float(loss.detach()))


@dataclass(frozen=True, kw_only=True)
class Updater(Generic[Batch]):
    """Takes the optimiser steps of a run.

    Attributes:
        run: what is trained, and on which pairs.
        method: the loss.
    """

    run: Run[Batch]
    method: Method[Batch]

    def take_step(self, *, stop: StopRequest) -> StepResult:
        """Trains on ``gradient_accumulation_steps`` micro-batches per process.

        The loss of a step is the mean over all its pairs, in every process and micro-batch.

        Args:
            stop: whether this process was asked to stop; the result tells all of them.

        Raises:
            TrainingDiverged: if a loss or the gradient is not finite; nothing was updated. With fp16 an overflowing
                gradient skips the update, as usual, until the loss scale cannot fall further.
            SeedpoError: as the source or the method of one process raised it, on every process.
        """
        run = self.run
        run.optimizer.zero_grad()
        with run.layout.whole():
            outputs = self._accumulate()
        processes = gather_all(process_rows(outputs, stop=stop.requested))
        pairs = count_pairs(processes)
        if run.accelerator.scaler is not None:
            run.accelerator.scaler.unscale_(run.optimizer.optimizer)
        parameters = list(run.parameters.values())
        scale_gradients(parameters, self._expected_pairs() * run.accelerator.num_processes / total_weight(processes))
        grad_norm = clip_gradients(parameters, max_grad_norm=run.config.largest_gradient_norm)
        self._require_finite(processes, grad_norm)

        learning_rate = learning_rate_at(run.position.step + 1, config=run.config)
        set_learning_rate(run.optimizer, learning_rate)
        run.optimizer.step()
        run.optimizer.zero_grad()
        figures = step_figures(processes) | {"grad_norm": grad_norm, "learning_rate": learning_rate}
        return StepResult(pairs=pairs, figures=figures, stop=any(rows.stop for rows in processes))

    def _expected_pairs(self) -> int:
        """Pairs that one process is meant to train on in a step."""
        return self.run.config.batch_size * self.run.config.gradient_accumulation_steps

    def _accumulate(self) -> list[LossOutput]:
        """Adds up the gradient of all micro-batches; only the last backward pass exchanges it between processes.

        Whatever can fail on one process alone (roll-outs, rewards, losses) comes before the exchange, so that the
        other processes learn of it instead of waiting.
        """
        run = self.run
        if run.accelerator.num_processes > 1 and isinstance(self.method, JointMethod) and self.method.exchanges:
            return self._accumulate_together(self.method)
        outputs: list[LossOutput] = []
        # The first batch comes by itself: under DDP the second step's first forward pass exchanges something.
        first = on_every_process(run.accelerator, run.source.next_batch)

        def up_to_the_exchange() -> Tensor:
            batch = first
            for _ in range(run.config.gradient_accumulation_steps - 1):
                with run.layout.accumulating():
                    run.accelerator.backward(self._loss(self._output(batch), outputs))
                batch = run.source.next_batch()
            return self._loss(self._output(batch), outputs)

        loss = on_every_process(run.accelerator, up_to_the_exchange)
        run.layout.before_exchange()
        run.accelerator.backward(loss)
        return outputs

    def _accumulate_together(self, method: JointMethod[Batch]) -> list[LossOutput]:
        """The same for losses of a method that exchanges something in every micro-batch.

        All that can fail on one process alone comes before each exchange.
        """
        run = self.run
        outputs: list[LossOutput] = []
        for left in reversed(range(run.config.gradient_accumulation_steps)):
            batch = on_every_process(run.accelerator, run.source.next_batch)
            judge = partial(method.judged, run.policy, batch, generator=run.generator)
            with run.layout.accumulating() if left else nullcontext():
                loss = self._loss(method.joint_loss(on_every_process(run.accelerator, judge)), outputs)
                if not left:
                    run.layout.before_exchange()
                run.accelerator.backward(loss)
        return outputs

    def _output(self, batch: Batch) -> LossOutput:
        return self.method.loss(self.run.policy, batch, generator=self.run.generator)

    def _loss(self, output: LossOutput, outputs: list[LossOutput]) -> Tensor:
        """A micro-batch's part of the step's loss; its figures are added to ``outputs``."""
        check_output(output)
        outputs.append(detached(output))
        # accelerate would divide by its own count of micro-batches; ours is the number of pairs.
        factor = self.run.accelerator.gradient_accumulation_steps
        loss: Tensor = weighed(output.losses, output.weights).sum() / self._expected_pairs() * factor
        return loss

    def _require_finite(self, processes: list[ProcessRows], grad_norm: float) -> None:
        places = rows_not_finite(processes)
        scaler = self.run.accelerator.scaler
        overflow_is_handled = scaler is not None and scaler.get_scale() > 1.0
        if not places and (math.isfinite(grad_norm) or overflow_is_handled):
            return
        self.run.optimizer.zero_grad()
        what = f"the loss is not finite for {'; '.join(places)}" if places else "the gradient is not finite"
        raise shared(
            TrainingDiverged(
                f"step {self.run.position.step + 1}: {what} (gradient norm {grad_norm:.4g}); the update was not made; "
                f"lower learning_rate, beta or gamma; {self.run.checkpoints.describe_latest()}"
            )
        )
