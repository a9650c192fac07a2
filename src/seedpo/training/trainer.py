"""The training loop: pairs, loss, update, log, evaluate, save.

Every method, source and model is trained by this one loop, on one process or several (data parallel, through
accelerate). A run that was killed and resumed gives the weights and metrics of one that never stopped, bit for bit.

    folder = create_run_folder("runs/first", config)
    trainer = Trainer(policy=policy, method=method, source=source, config=config, folder=folder)
    last = trainer.train()

    folder = RunFolder.open("runs/first")                      # after it was stopped
    last = Trainer(..., folder=folder).train(resume="latest")
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, replace
from shutil import copytree
from typing import Any, Generic, Literal

from accelerate import Accelerator
from torch import Tensor

from seedpo.errors import ConfigError
from seedpo.files import write_folder_aside, write_text, writing
from seedpo.methods.beta_rule import BetaRule
from seedpo.processes import Result, gather_all, on_every_process, on_main_process, shared
from seedpo.protocols import Batch, EarlierProcesses, Evaluator, Fingerprint, Method, Source, TakesOver, Trainable
from seedpo.run_folders import REFERENCE, Manifest, RunFolder
from seedpo.training.accelerator import build_accelerator, require_plain, sharding_is_asked_for
from seedpo.training.checkpoint import Checkpoints
from seedpo.training.evaluating import evaluate_together
from seedpo.training.interrupt import StopRequest, TrainingInterrupted, stop_on_signal
from seedpo.training.layout import Layout, distributed, unwrapped
from seedpo.training.metrics_log import Kind, MetricsLog, ProgressBar
from seedpo.training.optimizers import build_optimizer
from seedpo.training.random_state import seed_process
from seedpo.training.reference import ReferenceRule
from seedpo.training.resume import (
    choose_checkpoint,
    input_fingerprints,
    load_average,
    load_weights,
    prepare_folder,
    reference_hash,
)
from seedpo.training.run_folder import locked
from seedpo.training.settings import TrainingConfig
from seedpo.training.state import Run
from seedpo.training.step_metrics import mean_by_name, most_by_name, peak_memory
from seedpo.training.trackers import Trackers
from seedpo.training.update import StepResult, Updater
from seedpo.training.watching import Reaction, Watch, stopped
from seedpo.training.weight_average import WeightAverage


@dataclass(kw_only=True)
class _Outputs:
    """Where the figures of a run go; only the first process writes them.

    Attributes:
        log: ``metrics.jsonl``.
        trackers: those that the settings name.
        bar: on standard error.
        alarm: the first alarm that ends the run; ``None`` so far.
        enough: whether the run has stopped improving, and ends before its last step.
    """

    log: MetricsLog
    trackers: Trackers
    bar: ProgressBar
    alarm: str | None = None
    enough: bool = False


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
        watch: Watch | None = None,
        accelerator: Accelerator | None = None,
        progress: bool = True,
        after_restoring: Callable[[], None] | None = None,
        save_before_step: Callable[[], bool] | None = None,
        round_open: Callable[[EarlierProcesses], bool] | None = None,
        rule: ReferenceRule | None = None,
        beta: BetaRule | None = None,
        readers: Sequence[object] = (),
    ) -> None:
        """Joins the parts of a run; nothing is trained or written yet.

        Args:
            policy: the model; its module is wrapped while it is trained and unwrapped afterwards.
            method: the loss; it draws from a generator on the CPU that is seeded with the run's seed and the process's
                rank (see :mod:`seedpo.training.random_state`).
            source: the pairs of this process, ``config.batch_size`` at a time.
            config: the run's settings.
            folder: where everything is written.
            evaluator: called before the first step, every ``evaluate_every`` steps and after the last step; by the
                first process alone, unless it is a :class:`seedpo.protocols.SharedEvaluator`. Whatever it draws from
                global generators does not change the training.
            watch: the alarms; ``None`` watches nothing.
            accelerator: of this process; built from the configuration if it is not given.
            progress: whether to show a progress bar.
            after_restoring: called on every process when a resumed run has restored its state.
            save_before_step: called on every process before each step; if one returns true, a checkpoint is written
                first, so that a run that is killed within the step can begin it again.
            round_open: says whether people may be judging images of the processes that wrote a checkpoint; another
                number of processes cannot go on from it then. ``None``: nobody is asked.
            rule: moves the reference of the policy; ``None`` if it has no weights of its own.
            beta: changes the beta of the method, which reads it; ``None`` if it stays.
            readers: what else tells what a run depends on, besides source and evaluator.

        Raises:
            ConfigError: if the accelerator does not fit the configuration, or shards the model.
        """
        self.policy = policy
        self.method = method
        self.source = source
        self.config = config
        self.folder = folder
        self.evaluator = evaluator
        self.watch = watch
        self.accelerator = accelerator or build_accelerator(config.mixed_precision)
        self.progress = progress
        self.after_restoring = after_restoring
        self.save_before_step = save_before_step
        self.round_open = round_open
        self.rule = rule
        self.beta = beta
        self.readers = readers
        self._checkpoints = Checkpoints(folder, config.checkpoints_limit)
        require_plain(self.accelerator, config.mixed_precision)

    def train(self, resume: Literal["latest"] | None = None) -> dict[str, Any]:
        """Trains until ``config.max_steps`` and writes the trained weights.

        A first SIGINT or SIGTERM ends the run after the step in progress, with a checkpoint.

        Args:
            resume: ``"latest"`` continues from the newest checkpoint that is intact; ``None`` starts anew.

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
        resumed = resume is not None
        with self._locked(), stop_on_signal() as stop:
            finished = self._on_main(lambda: prepare_folder(self.folder, self.config, resumed=resumed))
            if finished is not None:
                return finished
            reference = self._on_main(lambda: reference_hash(self.policy.module))
            inputs = self._on_main(lambda: input_fingerprints(self.source, self.evaluator, *self.readers))
            manifest, average = self._load_checkpoint(reference, inputs) if resumed else (None, None)
            with distributed(self.policy, self.accelerator, sharded=sharding_is_asked_for()) as layout:
                run = self._start(layout, reference, inputs, manifest, average)
                with self._outputs(run) as outputs:
                    self._loop(run, outputs, stop)
                    return self._finish(run, outputs)

    def _on_main(self, action: Callable[[], Result]) -> Result:
        return on_main_process(self.accelerator, action)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with ExitStack() as stack:
            self._on_main(lambda: stack.enter_context(locked(self.folder)))
            yield

    def _load_checkpoint(
        self, reference: str, inputs: Mapping[str, Fingerprint]
    ) -> tuple[Manifest, Mapping[str, Tensor] | None]:
        """Loads the weights of the newest checkpoint into the policy, its reference, and the average that it keeps."""
        processes = self.accelerator.num_processes
        manifest = self._on_main(
            lambda: choose_checkpoint(
                self._checkpoints,
                self.folder,
                self.config,
                processes=processes,
                misfit=self._misfit,
                reference=reference,
                inputs=inputs,
            )
        )
        checkpoint = self._checkpoints.path(manifest.step)
        average = None
        if self.config.ema_decay is not None:
            average = on_every_process(self.accelerator, lambda: load_average(self.policy, checkpoint))
        if (rule := self.rule) is not None:
            on_every_process(self.accelerator, lambda: rule.load(checkpoint / REFERENCE))
        on_every_process(self.accelerator, lambda: load_weights(self.policy, checkpoint))
        return manifest, average

    def _misfit(self, manifest: Manifest) -> str | None:
        """Why another number of processes cannot go on from a checkpoint; ``None`` if it can."""
        if not isinstance(self.source, TakesOver):
            return "its source of pairs cannot be dealt out anew"
        if self.round_open is not None and self.round_open(self._checkpoints.earlier_processes(manifest)):
            return "the next step asks people about images, which others would draw anew: votes on them would be lost"
        return None

    def _start(
        self,
        layout: Layout,
        reference: str,
        inputs: Mapping[str, Fingerprint],
        manifest: Manifest | None,
        average: Mapping[str, Tensor] | None,
    ) -> Run[Batch]:
        """Builds the optimiser, seeds the process and restores the state of a checkpoint."""
        with unwrapped(self.policy, self.accelerator):
            parameters = self.policy.trainable_parameters()
        decay = self.config.ema_decay
        optimizer = build_optimizer(parameters, learning_rate=self.config.learning_rate, config=self.config.optimizer)
        run = Run(
            policy=self.policy,
            layout=layout,
            source=self.source,
            parameters=parameters,
            optimizer=self.accelerator.prepare(optimizer),
            generator=seed_process(self.config.seed, self.accelerator.process_index),
            accelerator=self.accelerator,
            config=self.config,
            checkpoints=self._checkpoints,
            reference=reference,
            inputs=inputs,
            average=None if decay is None else WeightAverage(parameters, decay=decay, start=average),
            rule=self.rule,
            beta=self.beta,
        )
        if self.rule is not None and manifest is None:
            self.rule.start()
        if manifest is not None:
            run.restore(manifest)
            if self.after_restoring is not None:
                self.after_restoring()
        return run

    @contextmanager
    def _outputs(self, run: Run[Batch]) -> Iterator[_Outputs]:
        """Opens metrics, trackers and progress bar; those of the other processes lead nowhere."""
        is_main, config = self.accelerator.is_main_process, self.config
        names = config.trackers if is_main else ()
        with ExitStack() as stack:
            log = stack.enter_context(closing(MetricsLog(self.folder.metrics if is_main else None)))
            if (watch := self.watch) is not None:
                self._on_main(lambda: watch.start(log.records))
            trackers = on_every_process(
                self.accelerator,
                lambda: Trackers.open(names, project=config.tracker_project, folder=self.folder.path, config=config),
            )
            stack.enter_context(closing(trackers))
            bar = ProgressBar(done=run.position.step, total=config.max_steps, shown=self.progress and is_main)
            stack.enter_context(closing(bar))
            enough = watch is not None and self._on_main(lambda: watch.has_enough(log.records))
            yield _Outputs(log=log, trackers=trackers, bar=bar, enough=enough)

    def _loop(self, run: Run[Batch], outputs: _Outputs, stop: StopRequest) -> None:
        updater = Updater(run=run, method=self.method)
        self._evaluate_if_due(run, outputs)
        while run.position.step < self.config.max_steps and not outputs.enough:
            if self.save_before_step is not None and any(gather_all(self.save_before_step())):
                self._save(run, outputs)
            with run.clock.step():
                if run.rule is not None:
                    run.rule.before_update()
                result = updater.take_step(stop=stop)
            run.position = run.position.after_step(pairs=result.pairs)
            run.clock.count(result.pairs)
            if run.average is not None:
                run.average.update(run.position.step)
            if run.beta is not None:
                run.beta.after_update(result.figures)
            if run.rule is not None:
                more = run.rule.after_update(run.position.step, result.figures)
                result = replace(result, figures=result.figures | more)
            outputs.bar.advance(result.figures)
            self._log_if_due(run, outputs, result)
            self._evaluate_if_due(run, outputs)
            ends = result.stop or outputs.alarm is not None
            if ends or outputs.enough or self._is_due(run.position.step, self.config.checkpoint_every):
                self._save(run, outputs)
            if ends and run.position.step < self.config.max_steps:
                self._leave(run, outputs, interrupted=result.stop)

    def _leave(self, run: Run[Batch], outputs: _Outputs, *, interrupted: bool) -> None:
        step, max_steps, latest = run.position.step, self.config.max_steps, self._checkpoints.describe_latest()
        if interrupted or outputs.alarm is None:
            message = f"stopped after step {step} of {max_steps}; {latest}; continue with --resume latest"
            raise shared(TrainingInterrupted(message))
        raise shared(stopped(outputs.alarm, step=step, max_steps=max_steps, checkpoint=latest))

    def _is_due(self, step: int, every: int) -> bool:
        return step == self.config.max_steps or (every > 0 and step % every == 0)

    def _log_if_due(self, run: Run[Batch], outputs: _Outputs, result: StepResult) -> None:
        if not self._is_due(run.position.step, self.config.log_every):
            return
        source_metrics = mean_by_name(gather_all(dict(self.source.metrics())))
        figures = result.figures | {"pairs_seen": run.position.pairs_seen}
        figures |= {f"source/{name}": value for name, value in source_metrics.items()}
        figures |= run.clock.pace()
        figures |= most_by_name(gather_all(peak_memory(self.accelerator.device)))
        self._write(run, outputs, "train", figures)

    def _write(self, run: Run[Batch], outputs: _Outputs, kind: Kind, figures: Mapping[str, float]) -> None:
        """Writes a line of metrics, and does what the alarms that it raises ask for."""
        watch = self.watch

        def write() -> Reaction:
            line = {"step": run.position.step, "kind": kind, **figures}
            best = {} if watch is None else watch.best_step([*outputs.log.records, line])
            outputs.log.write(run.position.step, kind, {**figures, **best})
            outputs.trackers.log(outputs.log.records[-1])
            return Reaction() if watch is None else watch.see(outputs.log.records)

        def keep_best(watch: Watch) -> None:
            with unwrapped(self.policy, self.accelerator):
                watch.keep_best(outputs.log.records[-1], self.policy.save)

        reaction = self._on_main(write)
        outputs.alarm = outputs.alarm or reaction.stop
        outputs.enough = outputs.enough or reaction.enough
        if watch is not None and reaction.best:
            with run.averaged(), run.layout.plain():
                self._on_main(lambda: keep_best(watch))

    def _evaluate_if_due(self, run: Run[Batch], outputs: _Outputs) -> None:
        step, evaluator = run.position.step, self.evaluator
        if evaluator is None or not (step == 0 or self._is_due(step, self.config.evaluate_every)):
            return
        if self._on_main(lambda: outputs.log.has(step, "evaluation")):
            return
        with run.averaged(), run.layout.whole(), unwrapped(self.policy, self.accelerator):
            figures = evaluate_together(
                evaluator, self.policy, accelerator=self.accelerator, folder=self.folder, step=step
            )
        self._write(run, outputs, "evaluation", figures)

    def _save(self, run: Run[Batch], outputs: _Outputs) -> None:
        # The metrics of a step must be on the disk before its checkpoint is: they cannot be made again.
        self._on_main(outputs.log.flush)
        run.save()

    def _finish(self, run: Run[Batch], outputs: _Outputs) -> dict[str, Any]:
        """Writes the trained weights, and last of all the mark that the run is complete."""

        def finish() -> dict[str, Any]:
            best = None if self.watch is None else self.watch.result(outputs.log.records)
            with writing("the trained weights", self.folder.path, fix="continue with --resume latest"):
                with write_folder_aside(self.folder.path / self.config.weights_folder) as aside:
                    if best is not None:
                        copytree(self.folder.best, aside, dirs_exist_ok=True)
                    else:
                        with unwrapped(self.policy, self.accelerator):
                            self.policy.save(aside)
                weights = "last" if run.average is None else "average"
                content: dict[str, Any] = {
                    "step": run.position.step,
                    "seconds": run.clock.total(),
                    "weights": weights,
                }
                if best is not None:
                    content |= {"weights": "best", "best": asdict(best)}
                if outputs.enough:
                    content["stopped_early"] = True
                write_text(self.folder.finished, json.dumps(content) + "\n")
            return outputs.log.last("train") or {}

        with run.averaged(), run.layout.plain():
            return self._on_main(finish)
