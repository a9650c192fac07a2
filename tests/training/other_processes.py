"""Runs that go on on another number of processes: ``test_other_processes.py`` starts this on several.

Its functions are used on one process too, for the parts of the runs that one process takes.
"""

from __future__ import annotations

import faulthandler
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from seedpo.methods.sources.offline import OfflinePairs
from seedpo.methods.sources.rollouts import UnitBuffer
from seedpo.training.codec import save_tree
from seedpo.training.configuration import resolve_config, resolve_reward_config
from seedpo.training.optimizers import optimizer_state
from seedpo.training.reward_run import train_reward
from seedpo.training.run import train
from seedpo.training.state import Run
from tests.small_runs import SMALL
from tests.training.real_processes import sharded
from tests.training.toys import cpu_accelerator, toy_config

GLOBAL_BATCH = 12
HALF, WHOLE = 2, 4
"""Steps before the number of processes changes, and all of them."""

QUIET = {"evaluate_every": 0, "checkpoint_every": 0, "batch_size": 2}
KINDS: dict[str, dict[str, Any]] = {
    # Noise that follows from pair and visit, so that another number of processes changes none of it.
    "diffusion-dpo": {"cache": {"reference": True, "visits": 50}, "ema_decay": 0.9, "pairs": {"flip": True}},
    "full": {"method": "diffusion-dpo", "adapter": "full", "cache": {"reference": True, "visits": 50}},
    "d3po": {"trajectories": {**SMALL["trajectories"], "prompts_per_rollout": 3, "updates_per_rollout": 3}},
    "reward": {"start": "scenes-clip", "model": "scenes", "timesteps": (0, 501), "guidance_scale": 3.0},
}
"""Keys of each run besides the usual ones of small runs."""


def config_of(kind: str, root: Path, *, steps: int, world: int) -> Any:
    """The configuration of a run whose global batch is the same on any number of processes."""
    keys = QUIET | {"max_steps": steps, "gradient_accumulation_steps": GLOBAL_BATCH // (2 * world)}
    data = str(root / "pairs.parquet")
    if kind == "reward":
        return resolve_reward_config(changes=KINDS[kind] | keys | {"data": data, "held_out": data, "held_out_limit": 2})
    own = dict(KINDS[kind])
    method = own.pop("method", kind)
    if "cache" in own:
        own["cache"] = {**own["cache"], "folder": str(root / "cache")}
    return resolve_config(method, SMALL | {"data": data, "prompts": str(root / "prompts.txt")} | own | keys)


def measure_nothing(policy: Any, *, step: int, folder: Path) -> dict[str, float]:
    """An evaluation that takes no time."""
    return {}


def go_on(root: Path, kind: str, path: Path, *, steps: int, resume: bool = False, note: str = "") -> dict[str, Any]:
    """Trains up to a step; ``note`` names files for what is taken and for the optimiser as it was restored."""
    accelerator = cpu_accelerator(toy_config())
    config = config_of(kind, root, steps=steps, world=accelerator.num_processes)
    run: Callable[..., dict[str, Any]] = train_reward if kind == "reward" else partial(train, evaluator=measure_nothing)
    with noted(path.with_name(f"{path.name}-{note}-{accelerator.process_index}")):
        return run(config, path, resume="latest" if resume else None, accelerator=accelerator, progress=False)


@contextmanager
def noted(file: Path) -> Iterator[None]:
    """Notes which pairs are taken at which of their visits, and the optimiser's state right after it was restored.

    Of units that wait for training it notes how many this process took over.
    """
    taken: list[Any] = []
    next_batch, restore, take_over = OfflinePairs.next_batch, Run.restore, UnitBuffer.take_over

    def taking(self: Any) -> Any:
        batch = next_batch(self)
        taken.append([batch.pair.tolist(), batch.visit.tolist()])
        return batch

    def restoring(self: Any, manifest: Any) -> None:
        restore(self, manifest)
        save_tree(optimizer_state(self.optimizer, list(self.parameters)), file.with_name(f"{file.name}-optimizer"))

    def taking_over(self: Any, states: Any, **place: int) -> None:
        take_over(self, states, **place)
        taken.append(len(self))

    with ExitStack() as stack:
        stack.enter_context(patch.object(OfflinePairs, "next_batch", taking))
        stack.enter_context(patch.object(Run, "restore", restoring))
        stack.enter_context(patch.object(UnitBuffer, "take_over", taking_over))
        yield
    file.with_suffix(".json").write_text(json.dumps(taken))


def two(root: Path, kinds: list[str]) -> None:
    """What two processes do together: the beginning of some runs, and the rest of others."""
    for kind in kinds:
        go_on(root, kind, root / f"{kind}-down", steps=HALF, note="first")
        go_on(root, kind, root / f"{kind}-up", steps=WHOLE, resume=True, note="second")


def shards(root: Path, kinds: list[str]) -> None:
    """The same, each with a part of the weights."""
    with sharded():
        two(root, kinds)


def three(root: Path, kinds: list[str]) -> None:
    """The rest of runs that two processes began."""
    for kind in kinds:
        go_on(root, kind, root / f"{kind}-wide", steps=WHOLE, resume=True, note="second")


def main(part: str, root: Path, kinds: list[str]) -> None:
    torch.use_deterministic_algorithms(True)
    {"two": two, "shards": shards, "three": three}[part](root, kinds)


if __name__ == "__main__":
    faulthandler.dump_traceback_later(890, exit=True)  # Nobody waits for a run that hangs.
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
