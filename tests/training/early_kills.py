"""`seedpo train ... --resume latest`, killed (SIGKILL) before its first checkpoint and given again: ``test_kills.py``.

A *place* is a file or folder of the run that is about to be opened, made, renamed or removed. Run n is killed right
before its n-th place, up to the first checkpoint. The same command then begins anew, and must write what a run wrote
that was never killed. Each is a fork of this process, which has imported everything and computed nothing.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch._dynamo  # noqa: F401  (accelerate imports it late: once here, instead of in every fork)

import seedpo.models.policy
import seedpo.scenes.metrics
import seedpo.training.trainer
from seedpo.cli.main import main as seedpo
from tests.small_runs import as_options, small
from tests.training.toys import trace

EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir")
RUN = "run"


class Places:
    """Writes down the places that a run passes, and ends it right before one of them; 0: none."""

    def __init__(self, kill_before: int) -> None:
        self.kill_before = kill_before
        self.names: list[str] = []

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in EVENTS or not isinstance(arguments[0], str | os.PathLike):
            return
        place = Path(os.path.relpath(os.fspath(arguments[0])))
        if place.parts[:1] == (RUN,):
            self.names.append(f"{event} {place}")
            if len(self.names) == self.kill_before:
                os.kill(os.getpid(), signal.SIGKILL)


def train(folder: Path, *, kill_before: int = 0) -> int:
    """Gives the command in a child; its exit status, negative if a signal ended it."""
    folder.mkdir(exist_ok=True)
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.chdir(folder)
    places, status = Places(kill_before), 1
    try:
        keys = small(Path(), max_steps=2, checkpoint_every=1, evaluate_every=1)
        sys.addaudithook(places)
        seedpo(["train", "diffusion-dpo", *as_options(keys), "--out", RUN, "--resume", "latest"])
        status = 0
    except SystemExit as ended:
        status = int(ended.code or 0)
    finally:
        Path("places.json").write_text(json.dumps(places.names), encoding="utf-8")
        os._exit(status)


def main(root: Path, stride: int) -> None:
    """Kills and repeats; ``outcomes.json`` says what came of each."""
    assert train(root / "whole") == 0
    names = json.loads((root / "whole" / "places.json").read_text())
    early = next(number for number, name in enumerate(names) if "checkpoint-" in name)
    expected, outcomes = trace(root / "whole" / RUN), []
    for place in range(1, early + 1, stride):
        folder = root / str(place)
        killed = train(folder, kill_before=place)
        left = sorted(str(path.relative_to(folder)) for path in folder.glob(f"{RUN}/**/*"))
        again = train(folder)
        same = again == 0 and trace(folder / RUN) == expected
        outcomes.append({"before": names[place - 1], "killed": killed, "left": left, "again": again, "same": same})
    (root / "outcomes.json").write_text(json.dumps(outcomes, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), int(sys.argv[2]))
