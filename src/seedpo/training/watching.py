"""Alarms at work: logged, written to ``alarms.jsonl``, and followed by what their action asks for."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from seedpo.documents import UNREADABLE, read_json
from seedpo.errors import StoppedByAlarm
from seedpo.files import write_folder_aside, write_text, writing
from seedpo.run_folders import BestStep, RunFolder
from seedpo.training.alarms import (
    Alarm,
    Record,
    best_evaluation,
    best_figure,
    held_out_figures,
    keeps_best,
    raised_by_all,
    raised_by_last,
    reach,
)
from seedpo.training.best_steps import check_best_steps, has_stopped_improving
from seedpo.training.settings import RunConfig
from seedpo.training.signs import BY_PROMPT, values_by_prompt

logger = logging.getLogger(__name__)

BEST_FILE = "best.json"
"""Says in ``best/`` of which evaluation its weights are."""

_FIX = "continue with --resume latest"


@dataclass(frozen=True, kw_only=True)
class Reaction:
    """What follows from one line of metrics; small enough to be sent to all processes.

    Attributes:
        stop: message of the first alarm that ends the run.
        best: whether the weights of this step are the best so far and must be kept.
        enough: whether the run has stopped improving and ends here, finished.
    """

    stop: str | None = None
    best: bool = False
    enough: bool = False


class Watch:
    """Watches the lines of metrics of one run; only the process that writes them has one."""

    def __init__(self, folder: RunFolder, config: RunConfig) -> None:
        """Checks the settings; nothing is read or written yet.

        Raises:
            ConfigError: if a held-out figure is not measured, or ``keep_best`` has none.
        """
        held_out_figures(config)
        check_best_steps(config)
        self._folder = folder
        self._config = config
        self._by_prompt: dict[int, dict[str, tuple[float, ...]]] = {}

    def start(self, lines: Sequence[Record]) -> None:
        """Writes the alarms of the lines before this start: none in a new run, those up to the checkpoint if resumed.

        Raises:
            RunFolderError: if the disk is full.
        """
        with writing("alarms", self._folder.path, fix=_FIX):
            if alarms := raised_by_all(list(map(self._with_prompts, lines)), self._config):
                write_text(self._folder.alarms, "".join(map(_line, alarms)))
            else:
                self._folder.alarms.unlink(missing_ok=True)

    def see(self, lines: Sequence[Record]) -> Reaction:
        """Looks at the newest of all lines; logs and writes the alarms that it raises.

        Raises:
            RunFolderError: if the disk is full.
        """
        kind = lines[-1]["kind"]
        most = reach(self._config) if kind == "train" else len(lines)
        alarms = raised_by_last(list(map(self._with_prompts, _last_of_kind(lines, kind, most))), self._config)
        for alarm in alarms:
            logger.warning("alarm %s at step %d: %s", alarm.name, alarm.step, alarm.message)
        if alarms:
            with writing("alarms", self._folder.path, fix=_FIX), self._folder.alarms.open("a") as file:
                file.writelines(map(_line, alarms))
        stopping = [alarm for alarm in alarms if alarm.action == "stop"]
        best = kind == "evaluation" and keeps_best(self._config) and best_evaluation(lines, self._config) is lines[-1]
        return Reaction(
            stop=f"alarm {stopping[0].name}: {stopping[0].message}" if stopping else None,
            best=best,
            enough=kind == "evaluation" and self.has_enough(lines),
        )

    def has_enough(self, lines: Sequence[Record]) -> bool:
        """Whether the run has stopped improving, as `early_stopping` says; it is logged."""
        settings = self._config.early_stopping
        if not has_stopped_improving(lines, self._config):
            return False
        logger.info(
            "early_stopping: %s did not improve for %d evaluations; the run ends here",
            settings.metric,
            settings.patience,
        )
        return True

    def best_step(self, lines: Sequence[Record]) -> dict[str, float]:
        """``best_step``, the step of the best evaluation so far, for the last of the lines if `keep_best` is set."""
        if self._config.keep_best is None or lines[-1]["kind"] != "evaluation":
            return {}
        best = best_evaluation(lines, self._config)
        return {} if best is None else {"best_step": int(best["step"])}

    def result(self, lines: Sequence[Record]) -> BestStep | None:
        """The evaluation whose weights are the run's result; ``None``: the last step's are."""
        best = None if self._config.keep_best is None else best_evaluation(lines, self._config)
        if best is None:
            return None
        try:
            kept = BestStep(**read_json(self._folder.best / BEST_FILE))
        except UNREADABLE:
            kept = None
        if kept is None or kept.step != best["step"]:
            logger.warning(
                "keep_best: %s does not hold the weights of step %d; the last ones are taken",
                self._folder.best,
                best["step"],
            )
            return None
        logger.info("keep_best: the result is step %d, where %s is %.4g", kept.step, kept.figure, kept.value)
        if kept.step == 0:
            logger.warning(
                "keep_best: no evaluation is better than step 0, so the result is the model as it was before training"
            )
        return kept

    def _with_prompts(self, line: Record) -> Record:
        """A line of an evaluation with the values of every prompt, where its images are stored."""
        if line["kind"] != "evaluation":
            return line
        step = int(line["step"])
        if step not in self._by_prompt:
            self._by_prompt[step] = values_by_prompt(self._folder.samples / f"step-{step:06d}.json")
        return {**line, BY_PROMPT: self._by_prompt[step]}

    def keep_best(self, line: Record, save: Callable[[Path], None]) -> None:
        """Writes weights as ``best/``; after a crash the folder holds the old weights or the new ones.

        Args:
            line: the evaluation.
            save: writes the weights into a folder.

        Raises:
            RunFolderError: if the disk is full.
        """
        figure = str(best_figure(self._config))
        with writing("the best weights", self._folder.path, fix=_FIX), write_folder_aside(self._folder.best) as aside:
            save(aside)
            content = {"step": line["step"], "figure": figure, "value": line[figure]}
            (aside / BEST_FILE).write_text(json.dumps(content) + "\n", encoding="utf-8")


def stopped(reason: str, *, step: int, max_steps: int, checkpoint: str) -> StoppedByAlarm:
    """The error that ends a run whose alarm says so, once its checkpoint is written."""
    return StoppedByAlarm(
        f"stopped after step {step} of {max_steps} by {reason}; {checkpoint}; --resume latest goes on all the same"
    )


def _last_of_kind(lines: Sequence[Record], kind: str, most: int) -> list[Record]:
    """At most the last ``most`` lines of a kind, in their order."""
    newest_first = islice((line for line in reversed(lines) if line["kind"] == kind), most)
    return list(newest_first)[::-1]


def _line(alarm: Alarm) -> str:
    content: dict[str, Any] = asdict(alarm)
    # json has no infinity, and a fall after no change at all is infinitely large.
    content["value"] = alarm.value if abs(alarm.value) < float("inf") else None
    return json.dumps(content, allow_nan=False) + "\n"
