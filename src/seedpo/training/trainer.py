"""The training loop: pairs, loss, update, log, evaluate, save.

Every method, source and model is trained by this one loop, on one process or several (data parallel, through
accelerate). A run that was killed and resumed gives the weights and metrics of one that never stopped, bit for bit.

    folder = RunFolder.create("runs/first", config)
    trainer = Trainer(policy=policy, method=method, source=source, config=config, folder=folder)
    last = trainer.train()

    folder = RunFolder.open("runs/first")                      # after it was stopped
    last = Trainer(..., folder=folder).train(resume="latest")
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal

from accelerate import Accelerator

from seedpo.errors import ConfigError, RunFolderError
from seedpo.files import remove_leftovers, write_folder_aside, write_text, writing
from seedpo.processes import gather_all, on_every_process, on_main_process, shared
from seedpo.protocols import Batch, Evaluator, Method, Source, Trainable
from seedpo.settings import build_config
from seedpo.training.checkpoint import Checkpoints, Manifest
from seedpo.training.evaluating import evaluate_together
from seedpo.training.interrupt import StopRequest, TrainingInterrupted, stop_on_signal
from seedpo.training.launching import sharding_is_asked_for
from seedpo.training.optimizers import build_optimizer
from seedpo.training.processes import build_accelerator, distributed, require_plain, unwrapped
from seedpo.training.random_state import seed_process
from seedpo.training.reference import reference_hash, require_same_reference
from seedpo.training.run_folder import RunFolder, require_same_settings
from seedpo.training.settings import RunConfig, TrainingConfig
from seedpo.training.sharding import Layout
from seedpo.training.state import Clock, Position, RunState, load_weights
from seedpo.training.step_metrics import mean_by_name, most_by_name, peak_memory
from seedpo.training.trackers import Trackers
from seedpo.training.tracking import Kind, MetricsLog, ProgressBar, read_metrics, truncate_metrics
from seedpo.training.update import StepResult, Updater
from seedpo.training.watching import Verdict, Watch, stopped

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class _Run(Generic[Batch]):
    """A run in progress."""

    state: RunState
    updater: Updater[Batch]
    position: Position
    log: MetricsLog
    trackers: Trackers
    bar: ProgressBar
    stop: StopRequest
    clock: Clock
    reference: str
    saved: int | None = None
    alarm: str | None = None


class Trainer(Generic[Batch]):
    """Trains a policy on the pairs of a source with the loss of a method."""

    def __init__(
        self,
        *,
        policy: Trainable,
        method: Method[Batch],
        source: Source[Batch],
        config: TrainingConfig,
        folder: RunFolder,
        evaluator: Evaluator | None = None,
        accelerator: Accelerator | None = None,
        progress: bool = True,
        after_restoring: Callable[[], None] | None = None,
        save_before_step: Callable[[], bool] | None = None,
    ) -> None:
        """Joins the parts of a run; nothing is trained or written yet.

        Args:
            policy: the model; its module is wrapped while it is trained and is itself again afterwards.
            method: the loss; it draws from a generator on the CPU that is seeded with the run's seed and the process's
                rank (see :mod:`seedpo.training.random_state`).
            source: the pairs of this process, ``config.batch_size`` at a time.
            config: the run's settings.
            folder: where everything is written.
            evaluator: called before the first step, every ``evaluate_every`` steps and after the last step; by the
                first process alone, unless it is a :class:`seedpo.protocols.SharedEvaluator`. Whatever it draws from
                global generators does not change the training.
            accelerator: of this process; built from the configuration if it is not given.
            progress: whether to show a progress bar.
            after_restoring: called on every process when a resumed run has taken its state back.
            save_before_step: asked on every process before each step; where one says yes, a checkpoint is written
                first, so that a run that is killed within the step can begin it again.

        Raises:
            ConfigError: if the accelerator does not fit the configuration, or shards the model, or an alarm reads what
                is not measured.
        """
        self.policy = policy
        self.method = method
        self.source = source
        self.config = config
        self.folder = folder
        self.evaluator = evaluator
        self.accelerator = accelerator or build_accelerator(config.mixed_precision)
        self.progress = progress
        self.after_restoring = after_restoring
        self.save_before_step = save_before_step
        self._checkpoints = Checkpoints(folder.checkpoints, config.checkpoints_limit)
        self._watch = Watch(folder, config) if isinstance(config, RunConfig) else None
        require_plain(self.accelerator, config.mixed_precision)

    def train(self, resume: Literal["latest"] | None = None) -> dict[str, Any]:
        """Trains until ``config.max_steps`` and writes the trained weights.

        A first SIGINT or SIGTERM ends the run after the step in progress, with a checkpoint.

        Args:
            resume: ``"latest"`` goes on from the newest checkpoint that is intact; ``None`` starts anew.

        Returns:
            The last line of training metrics. A run that is finished already returns it at once.

        Raises:
            RunFolderError: if the folder does not fit (other settings, already started, nothing to resume, in use by
                another process), or cannot be written.
            TrainingDiverged: if a loss or the gradient is not finite; checkpoints stay as they are.
            TrainingInterrupted: after a signal, once the checkpoint is written.
            StoppedByAlarm: after an alarm whose action is ``stop``, once the checkpoint is written.
        """
        if resume not in (None, "latest"):
            raise ConfigError(f"resume = {resume!r} is unknown; write 'latest'")
        with self._locked(), stop_on_signal() as stop:
            finished = on_main_process(self.accelerator, lambda: self._admit(resume))
            if finished is not None:
                return finished
            reference = on_main_process(self.accelerator, lambda: reference_hash(self.policy.module))
            manifest = None if resume is None else self._weights_restored(reference)
            sharded = sharding_is_asked_for()
            with distributed(self.policy, self.accelerator, sharded=sharded) as layout:
                with self._started(manifest, stop, layout, reference) as run:
                    self._loop(run)
                    return self._finish(run)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with ExitStack() as stack:
            on_main_process(self.accelerator, lambda: stack.enter_context(self.folder.locked()))
            yield

    def _admit(self, resume: str | None) -> dict[str, Any] | None:
        """Checks and tidies the folder; a run that is finished already gives its last line of metrics."""
        require_same_settings(self.folder.read_config(type(self.config)), self.config, self.folder.path)
        remove_leftovers(self.folder.path)
        remove_leftovers(self.folder.checkpoints)
        remove_leftovers(self.folder.samples)
        if resume is None:
            self.folder.require_fresh()
            self.folder.write_config(self.config)
            return None
        self.folder.warn_of_new_versions()
        if self.folder.finished_step() != self.config.max_steps:
            return None
        logger.warning("%s is finished at step %d; set max_steps to go on", self.folder.path, self.config.max_steps)
        lines = [line for line in read_metrics(self.folder.metrics) if line["kind"] == "train"]
        return lines[-1] if lines else {}

    @contextmanager
    def _started(
        self, manifest: Manifest | None, stop: StopRequest, layout: Layout, reference: str
    ) -> Iterator[_Run[Batch]]:
        """Builds what is needed to train, and takes back the checkpoint's state if there is one to resume."""
        with unwrapped(self.policy, self.accelerator):
            parameters = self.policy.trainable_parameters()
        optimizer = build_optimizer(parameters, learning_rate=self.config.learning_rate, config=self.config.optimizer)
        state = RunState(
            policy=self.policy,
            layout=layout,
            source=self.source,
            parameters=parameters,
            optimizer=self.accelerator.prepare(optimizer),
            generator=seed_process(self.config.seed, self.accelerator.process_index),
            accelerator=self.accelerator,
        )
        position, clock = Position(), Clock()
        if manifest is not None:
            state.restore(self._checkpoints.path(manifest.step))
            if self.after_restoring is not None:
                self.after_restoring()
            position = Position(step=manifest.step, pairs_seen=manifest.pairs_seen)
            clock = Clock(before=manifest.seconds)
        updater = Updater(
            policy=self.policy,
            layout=layout,
            method=self.method,
            source=self.source,
            parameters=parameters,
            optimizer=state.optimizer,
            accelerator=self.accelerator,
            generator=state.generator,
            config=self.config,
        )
        is_main = self.accelerator.is_main_process
        bar = ProgressBar(done=position.step, total=self.config.max_steps, shown=self.progress and is_main)
        # Only the first process writes metrics; the others have a log that leads nowhere.
        with ExitStack() as stack:
            log = stack.enter_context(closing(MetricsLog(self.folder.metrics if is_main else Path(os.devnull))))
            if (watch := self._watch) is not None:
                on_main_process(self.accelerator, lambda: watch.start(log.records))
            trackers = on_every_process(self.accelerator, lambda: self._open_trackers(is_main))
            stack.enter_context(closing(trackers))
            stack.enter_context(closing(bar))
            yield _Run(
                state=state,
                updater=updater,
                position=position,
                log=log,
                trackers=trackers,
                bar=bar,
                stop=stop,
                clock=clock,
                reference=reference,
                saved=None if manifest is None else manifest.step,
            )

    def _open_trackers(self, is_main: bool) -> Trackers:
        """Only the first process shows the run."""
        names = self.config.trackers if is_main else ()
        return Trackers.open(names, project=self.config.tracker_project, folder=self.folder.path, config=self.config)

    def _weights_restored(self, reference: str) -> Manifest:
        """The checkpoint to go on from, whose weights the policy now has."""
        manifest = on_main_process(self.accelerator, lambda: self._choose_checkpoint(reference))
        folder = self._checkpoints.path(manifest.step)
        on_every_process(self.accelerator, lambda: load_weights(self.policy, folder))
        return manifest

    def _choose_checkpoint(self, reference: str) -> Manifest:
        """The checkpoint to go on from; the folder is set back to its step."""
        manifest = self._checkpoints.newest_intact()
        where = self._checkpoints.path(manifest.step)
        require_same_settings(build_config(type(self.config), manifest.config), self.config, where)
        require_same_reference(manifest.reference, reference, where)
        if manifest.processes != self.accelerator.num_processes:
            raise RunFolderError(
                f"{where} was written by {manifest.processes} processes, not {self.accelerator.num_processes}; "
                f"resume with --processes {manifest.processes}"
            )
        if manifest.step > self.config.max_steps:
            raise RunFolderError(
                f"{where} is beyond max_steps = {self.config.max_steps}; set max_steps to {manifest.step} or more"
            )
        self._checkpoints.prune()
        self.folder.finished.unlink(missing_ok=True)
        self.folder.write_config(self.config)
        truncate_metrics(self.folder.metrics, step=manifest.step)
        return manifest

    def _loop(self, run: _Run[Batch]) -> None:
        self._evaluate_if_due(run)
        while run.position.step < self.config.max_steps:
            if self.save_before_step is not None:
                self._save_if_due(run, now=any(gather_all(self.save_before_step())))
            with run.clock.step():
                result = run.updater.take_step(
                    run.position.step + 1, stop=run.stop, describe_checkpoint=self._checkpoints.describe_latest
                )
            run.position = run.position.after_step(pairs=result.pairs)
            run.clock.count(result.pairs)
            run.bar.advance(result.figures)
            self._log_if_due(run, result)
            self._evaluate_if_due(run)
            self._save_if_due(run, now=result.stop or run.alarm is not None)
            if run.position.step < self.config.max_steps:
                self._leave_if_asked(run, result)

    def _leave_if_asked(self, run: _Run[Batch], result: StepResult) -> None:
        step, most = run.position.step, self.config.max_steps
        if result.stop:
            latest = self._checkpoints.describe_latest()
            raise shared(
                TrainingInterrupted(f"stopped after step {step} of {most}; {latest}; go on with --resume latest")
            )
        if run.alarm is not None:
            raise shared(stopped(run.alarm, step=step, max_steps=most, checkpoint=self._checkpoints.describe_latest()))

    def _is_due(self, step: int, every: int) -> bool:
        return step == self.config.max_steps or (every > 0 and step % every == 0)

    def _log_if_due(self, run: _Run[Batch], result: StepResult) -> None:
        position = run.position
        if not self._is_due(position.step, self.config.log_every):
            return
        seen = mean_by_name(gather_all(dict(self.source.metrics())))
        figures = result.figures | {"pairs_seen": position.pairs_seen}
        figures |= {f"source/{name}": value for name, value in seen.items()}
        figures |= run.clock.pace()
        figures |= most_by_name(gather_all(peak_memory(self.accelerator.device)))
        self._tell(run, "train", figures)

    def _tell(self, run: _Run[Batch], kind: Kind, figures: Mapping[str, float]) -> None:
        """Writes a line of metrics, and does what the alarms that it raises ask for."""
        watch = self._watch

        def write() -> Verdict:
            run.log.write(run.position.step, kind, figures)
            run.trackers.log(run.log.records[-1])
            return Verdict() if watch is None else watch.see(run.log.records)

        def keep_best(watch: Watch) -> None:
            with unwrapped(self.policy, self.accelerator):
                watch.keep_best(run.log.records[-1], self.policy.save)

        verdict = on_main_process(self.accelerator, write)
        run.alarm = run.alarm or verdict.stop
        if watch is not None and verdict.best:
            with run.state.layout.plain():
                on_main_process(self.accelerator, lambda: keep_best(watch))

    def _evaluate_if_due(self, run: _Run[Batch]) -> None:
        step, evaluator = run.position.step, self.evaluator
        if evaluator is None or not (step == 0 or self._is_due(step, self.config.evaluate_every)):
            return

        if on_main_process(self.accelerator, lambda: run.log.has(step, "evaluation")):
            return
        with run.state.layout.whole(), unwrapped(self.policy, self.accelerator):
            figures = evaluate_together(
                evaluator, self.policy, accelerator=self.accelerator, folder=self.folder, step=step
            )
        self._tell(run, "evaluation", figures)

    def _save_if_due(self, run: _Run[Batch], *, now: bool) -> None:
        position = run.position
        due = now or self._is_due(position.step, self.config.checkpoint_every)
        if run.saved == position.step or not due:
            return
        # The metrics of a step must be on the disk before its checkpoint is: they cannot be made again.
        on_main_process(self.accelerator, run.log.flush)
        manifest = Manifest(
            step=position.step,
            pairs_seen=position.pairs_seen,
            seconds=run.clock.total(),
            processes=self.accelerator.num_processes,
            config=self.config.model_dump(mode="json"),
            files={},
            reference=run.reference,
        )
        common = run.state.shared()
        with run.state.layout.plain():
            self._checkpoints.write(
                manifest,
                accelerator=self.accelerator,
                write_shared=lambda folder: run.state.write_shared(folder, common),
                write_own=run.state.write_own,
            )
        run.saved = position.step

    def _finish(self, run: _Run[Batch]) -> dict[str, Any]:
        """Writes the trained weights, and last of all the mark that the run is complete."""

        def finish() -> dict[str, Any]:
            with writing("the trained weights", self.folder.path, mend="go on with --resume latest"):
                with write_folder_aside(self.folder.weights(self.config)) as aside:
                    with unwrapped(self.policy, self.accelerator):
                        self.policy.save(aside)
                content = {"step": run.position.step, "seconds": run.clock.total()}
                write_text(self.folder.finished, json.dumps(content) + "\n")
            return run.log.last("train") or {}

        with run.state.layout.plain():
            return on_main_process(self.accelerator, finish)
