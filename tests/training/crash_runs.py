"""Runs that are killed at every place where it could matter, then resumed; started by ``test_crashes.py``.

Each run is a fork of this process, which has imported everything and computed nothing. A *place* is a call that
touches the disk (flush, rename, delete), draws a batch, evaluates, or writes a metrics line. Run n kills itself
(SIGKILL) right before its n-th place; another one resumes it; the outcome must be the run that was never killed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch._dynamo  # noqa: F401  (accelerate imports it late: once here, instead of in every fork)

from seedpo.errors import RunFolderError
from seedpo.training.metrics_log import MetricsLog
from tests.training.toys import ToyEvaluator, toy_config, toy_trainer, trace

CONFIG = {"max_steps": 4, "checkpoint_every": 1, "checkpoints_limit": 2, "evaluate_every": 2}
NOTHING_TO_RESUME = 3


class Places:
    """Counts the places that a run passes, and ends it at one of them."""

    def __init__(self, path: Path, kill_before: int) -> None:
        self.path = path
        self.kill_before = kill_before
        self.names: list[str] = []

    def watch(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **named: Any) -> Any:
            self.names.append(name)
            if len(self.names) == self.kill_before:
                if name == "metrics":
                    with (self.path / "metrics.jsonl").open("a") as file:
                        file.write('{"step": 1, "ki')
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **named)

        return watched


def train(path: Path, *, resume: bool, kill_before: int = 0) -> list[str]:
    evaluator = ToyEvaluator()
    trainer = toy_trainer(path, toy_config(**CONFIG), evaluator=evaluator)
    places = Places(path, kill_before)
    for name in ("replace", "fsync", "unlink", "rmdir"):
        setattr(os, name, places.watch(name, getattr(os, name)))
    trainer.source.next_batch = places.watch("batch", trainer.source.next_batch)
    trainer.evaluator = places.watch("evaluation", evaluator)
    MetricsLog.write = places.watch("metrics", MetricsLog.write)
    trainer.train(resume="latest" if resume else None)
    return places.names


def in_child(action: Callable[[], int]) -> int:
    """Exit status of a forked process that does ``action``, negative if a signal ended it."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = action()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def uninterrupted(path: Path) -> int:
    (path.parent / "places.json").write_text(json.dumps(train(path, resume=False)))
    return 0


def killed(path: Path, kill_before: int) -> int:
    train(path, resume=False, kill_before=kill_before)
    return 0


def resumed(path: Path) -> int:
    try:
        train(path, resume=True)
    except RunFolderError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return NOTHING_TO_RESUME
    return 0


def main(root: Path, first: int, stride: int) -> None:
    if in_child(lambda: uninterrupted(root / "whole")) != 0:
        raise SystemExit("the uninterrupted run failed")
    names = json.loads((root / "places.json").read_text())
    expected = trace(root / "whole")
    outcomes: list[dict[str, Any]] = []
    for number in range(first, len(names) + 1, stride):
        path = root / f"killed-{number}"
        status = in_child(lambda path=path, number=number: killed(path, number))
        after = in_child(lambda path=path: resumed(path))
        same = after == 0 and trace(path) == expected
        outcomes.append({"place": number, "name": names[number - 1], "killed": status, "resumed": after, "same": same})
        shutil.rmtree(path)
    (root / "outcomes.json").write_text(json.dumps(outcomes))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
