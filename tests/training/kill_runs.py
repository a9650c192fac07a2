"""Runs of the embedded model that are killed (SIGKILL) at random moments until they get through: ``make kill``.

Three kinds of run take turns: Diffusion-DPO, whose caches are built first and whose reference comes from one; SPO,
which samples its pairs, against an average of itself; and SPO in two processes. Each has a folder of its own. A child
process trains; at a random moment it is killed, and another one goes on, to be killed again. Of two processes one is
killed and then the other, as the launcher does when it has lost one. Once a run gets to the end, everything that it
wrote must be what a run wrote that was never killed. This repeats until enough kills have happened. What each of them
hit is written down.

A child is a fork of this process, which has imported everything and computed nothing.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch._dynamo  # noqa: F401  (accelerate imports it late: once here, instead of in every fork)

import seedpo.models.policy
import seedpo.scenes.metrics
import seedpo.training.trainer
from benchmarks.study_servers import free_port
from seedpo.cli.cache_builds import build_cache
from seedpo.data.cache import store
from seedpo.training.checkpoint import Checkpoints
from seedpo.training.configuration import resolve_config
from seedpo.training.run import train
from seedpo.training.trainer import Trainer
from seedpo.training.update import Updater
from tests.small_runs import small
from tests.training.toys import trace

COMMON = {"max_steps": 6, "checkpoint_every": 1, "checkpoints_limit": 2, "evaluate_every": 2}
CACHES = {"folder": "cache", "reference": True, "visits": 2}
MOST_KILLS = 3
"""Kills of one run."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of run: its method, settings of its own, and the number of its processes."""

    method: str
    changes: dict[str, Any] = field(default_factory=dict)
    processes: int = 1


KINDS = {
    "diffusion-dpo": Kind(method="diffusion-dpo", changes={"cache": CACHES}),
    "spo": Kind(method="spo", changes={"reference": {"kind": "ema", "decay": 0.9}}),
    "spo, 2 processes": Kind(method="spo", processes=2),
}
RUN = Path("run")


@dataclass(frozen=True, kw_only=True)
class Kill:
    """One kill.

    Attributes:
        run: number of the run, from 1.
        kind: of the run.
        resumed: whether the killed process was one that had resumed.
        seconds: from the start of the process to its end.
        during: what it was doing.
        half_written: files and folders that this one left incomplete.
        checkpoint: step of the newest checkpoint; none: there was nothing to resume, so that the run began anew.
    """

    run: int
    kind: str
    resumed: bool
    seconds: float
    during: str
    half_written: list[str]
    checkpoint: int | None


class Activity:
    """What a child does and since when, in memory that its parent sees too."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, 2**16)

    def forget(self) -> None:
        self.memory[:] = bytes(len(self.memory))
        self.memory.seek(0)

    def begin(self, name: str) -> None:
        self.memory.write(f"{time.monotonic():.4f} {name}\n".encode())

    def begun(self) -> list[tuple[float, str]]:
        """When each activity began, in this order; an activity goes on after one inside it has ended."""
        lines = self.memory[:].rstrip(b"\0").decode().splitlines(keepends=True)
        words = [line.rstrip().split(" ", 1) for line in lines if line.endswith("\n")]
        return [(float(when), name) for when, name in words]

    def now(self) -> str:
        begun = self.begun()
        return begun[-1][1] if begun else "nothing"

    @contextmanager
    def during(self, name: str) -> Iterator[None]:
        before = self.now()
        self.begin(name)
        yield
        self.begin(before)

    def tell(self, owner: Any, function: str, name: str) -> None:
        """From now on calls of ``owner.function`` are known by ``name``."""
        told = getattr(owner, function)

        def wrapped(*arguments: Any, **named: Any) -> Any:
            with self.during(name):
                return told(*arguments, **named)

        setattr(owner, function, wrapped)


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Some seconds after an activity began for the n-th time (n from 0)."""

    activity: str
    turn: int
    delay: float

    def is_reached(self, begun: list[tuple[float, str]]) -> bool:
        times = [when for when, name in begun if name == self.activity]
        return len(times) > self.turn and time.monotonic() >= times[self.turn] + self.delay


def draw_moment(whole: list[tuple[float, str]], draw: random.Random) -> Moment:
    """A random moment of a random activity of a run: none is passed over for being short."""
    activity = draw.choice(sorted({name for _, name in whole[:-1]}))
    ends = [when for when, _ in whole[1:]]
    lengths = [end - when for (when, name), end in zip(whole[:-1], ends, strict=True) if name == activity]
    turn = draw.randrange(len(lengths))
    return Moment(activity=activity, turn=turn, delay=draw.uniform(0.0, lengths[turn]))


def work(folder: Path, kind: Kind, activity: Activity) -> None:
    """One process: builds the caches if there are any, then starts the run or goes on with it."""
    os.chdir(folder)  # the same relative paths in all runs, so that their configurations are the same
    store.SHARD_ENTRIES = 1  # every entry is written at once, so that a cache is built during much of the run
    activity.begin("loading the model")
    activity.tell(store.Store, "flush", "writing a cache")
    activity.tell(Checkpoints, "write", "writing a checkpoint")
    activity.tell(Updater, "take_step", "taking a step")
    activity.tell(seedpo.training.trainer, "evaluate_together", "evaluating")
    activity.tell(Trainer, "_load_checkpoint", "resuming")
    activity.tell(Trainer, "_finish", "writing the trained weights")
    config = resolve_config(kind.method, small(Path(), **COMMON, **kind.changes))
    if config.cache.folder is not None:
        with activity.during("building a cache"):
            build_cache(config, progress=False)
    train(config, RUN, resume="latest", progress=False)


def start(folder: Path, kind: Kind, activity: Activity) -> list[int]:
    """The ids of the processes that work in a folder; what they print is in ``output.txt`` there."""
    activity.forget()
    port = free_port()
    return [fork(folder, kind, activity if rank == 0 else Activity(), rank, port) for rank in range(kind.processes)]


def fork(folder: Path, kind: Kind, activity: Activity, rank: int, port: int) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        output = os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        if kind.processes > 1:
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": kind.processes, "MASTER_PORT": port}
            os.environ.update({name: str(value) for name, value in place.items()} | {"MASTER_ADDR": "127.0.0.1"})
        work(folder, kind, activity)
        status = 0
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)  # noqa: T201
    finally:
        os._exit(status)


def wait(children: list[int], *, stop: Callable[[], bool] = lambda: False) -> list[int] | None:
    """The exit statuses of processes, negative if a signal ended them; none if it was time to stop before."""
    statuses: dict[int, int] = {}
    while not stop():
        for child in children:
            done, status = os.waitpid(child, os.WNOHANG) if child not in statuses else (0, 0)
            if done:
                statuses[child] = os.waitstatus_to_exitcode(status)
        if len(statuses) == len(children):
            return [statuses[child] for child in children]
        time.sleep(0.002)
    return None


def kill(children: list[int]) -> list[int] | None:
    """Kills one process after another, and gives their exit statuses."""
    for child in children:
        os.kill(child, signal.SIGKILL)
        time.sleep(0.1 if len(children) > 1 else 0.0)
    return wait(children)


def newest_checkpoint(run: Path) -> int | None:
    return max(
        (int(path.name[11:]) for path in run.glob("checkpoints/checkpoint-*") if path.name[11:].isdigit()), default=None
    )


def half_written(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*.tmp")}


def fail(folder: Path, what: str) -> None:
    raise SystemExit(f"{what}\n{(folder / 'output.txt').read_text()[-4000:]}")


def uninterrupted(folder: Path, kind: Kind, activity: Activity) -> tuple[dict[str, Any], list[tuple[float, str]]]:
    """What a run writes that is never killed, and when it did what."""
    folder.mkdir(parents=True)
    if any(wait(start(folder, kind, activity)) or [1]):
        fail(folder, f"the uninterrupted run in {folder} failed")
    return trace(folder / RUN), [*activity.begun(), (time.monotonic(), "nothing")]


def kill_until_finished(
    folder: Path, name: str, *, run: int, moment: Callable[[], Moment], most: int, draw: random.Random
) -> list[Kill]:
    """Kills a run up to ``most`` times, whenever the next moment is reached, until it is finished."""
    folder.mkdir(parents=True)
    activity, kills = Activity(), list[Kill]()
    while True:
        resumed, before = (folder / RUN).exists(), half_written(folder)
        began = time.monotonic()
        children = start(folder, KINDS[name], activity)
        drawn = moment() if len(kills) < most else None
        statuses = wait(children, stop=lambda drawn=drawn: drawn is not None and drawn.is_reached(activity.begun()))
        if statuses is None:
            during = activity.now()
            draw.shuffle(children)
            statuses = kill(children)
        if statuses is None or not any(statuses):
            return kills
        if -signal.SIGKILL not in statuses:
            fail(folder, f"run {run} ({name}) ended with status {statuses} after {len(kills)} kills")
        kills.append(
            Kill(
                run=run,
                kind=name,
                resumed=resumed,
                seconds=round(time.monotonic() - began, 2),
                during=during,
                half_written=sorted(half_written(folder) - before),
                checkpoint=newest_checkpoint(folder / RUN),
            )
        )


def differing(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    return sorted(name for name in found | expected if found.get(name) != expected.get(name))


def report(kills: list[Kill], *, seed: int, runs: int) -> str:
    """The record as a Markdown table."""
    lines = [
        f"{len(kills)} kills (seed {seed}) of {runs} runs; each of these ended with the files of one never killed.",
        "",
        "| # | run | killed while | left half-written | went on from |",
        "|---|---|---|---|---|",
    ]
    for number, kill in enumerate(kills, start=1):
        left = ", ".join(f"`{shortened(name)}`" for name in kill.half_written) or "–"
        step = "the start" if kill.checkpoint is None else f"step {kill.checkpoint}"
        during = f"{kill.during}{' (resumed)' if kill.resumed else ''}"
        lines.append(f"| {number} | {kill.run}: {kill.kind} | {during} | {left} | {step} |")
    return "\n".join(lines) + "\n"


def shortened(path: str) -> str:
    """A path without the digests in it."""
    return re.sub(r"(?<=/)[0-9a-f]{16,}", "…", path)


def main(out: Path, *, moments: int, seed: int, tell: Callable[[str], object] = print) -> list[Kill]:
    """Does it all; ends with status 1 where a run is not what it has to be."""
    shutil.rmtree(out, ignore_errors=True)
    draw, kinds, kills, runs = random.Random(seed), list(KINDS), list[Kill](), 0
    whole = {name: uninterrupted(out / f"whole-{kinds.index(name)}", KINDS[name], Activity()) for name in kinds}
    while len(kills) < moments:
        name = kinds[runs % len(kinds)]
        runs += 1
        folder, (expected, timeline) = out / f"run-{runs}", whole[name]

        def moment(timeline: list[tuple[float, str]] = timeline) -> Moment:
            return draw_moment(timeline, draw)

        most = min(MOST_KILLS, moments - len(kills))
        kills += kill_until_finished(folder, name, run=runs, moment=moment, most=most, draw=draw)
        wrong = differing(trace(folder / RUN), expected)
        if wrong:
            raise SystemExit(f"run {runs} ({name}) is not what it has to be; there differ {', '.join(wrong)}")
        tell(f"run {runs} ({name}): as if never killed; {len(kills)} of {moments} kills done")
        shutil.rmtree(folder)
    record = report(kills, seed=seed, runs=runs)
    (out / "kills.json").write_text(json.dumps([asdict(kill) for kill in kills], indent=1) + "\n", encoding="utf-8")
    (out / "kills.md").write_text(record, encoding="utf-8")
    tell(record)
    return kills


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs and the record; emptied first")
    parser.add_argument("--moments", type=int, default=20, help="number of kills")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    main(options.out.resolve(), moments=options.moments, seed=options.seed)
