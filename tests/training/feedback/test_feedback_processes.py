"""Two processes that ask the same people: each about its own images, nobody twice, stopped together and resumed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from seedpo.study.folder import open_study
from seedpo.study.votes.store import Store
from seedpo.training.configuration import resolve_config
from seedpo.training.feedback.wiring import ensure_study
from tests.small_runs import as_options, metrics, small
from tests.study.closed_loop import people
from tests.training.test_crashes import ROOT, child_environment

SEEDPO = (sys.executable, "-m", "seedpo")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "seedpo")
LIMIT = 900.0
"""Seconds after which something hangs."""

ROUND = 2 * 3
"""Votes of the first round: on every pair of three images of one prompt for each process."""


def settings(folder: Path) -> dict[str, Any]:
    """Every batch takes all nine steps of a prompt whose three pairs are clear, so that rounds are short."""
    return small(
        folder,
        feedback={"study": str(folder / "study"), "poll_seconds": 0.05, "timeout_hours": LIMIT / 3600},
        trajectories={"images_per_prompt": 3, "prompts_per_rollout": 1, "steps_per_pair": 1},
        batch_size=2,
        max_steps=4,
        log_every=1,
    )


@contextmanager
def started(launcher: Sequence[str], folder: Path, run: str, *more: str) -> Iterator[subprocess.Popen[str]]:
    """``seedpo train`` in two processes."""
    command = [*launcher, "train", "d3po", "--quiet", "--out", str(folder / run), *as_options(settings(folder)), *more]
    process = subprocess.Popen(command, cwd=ROOT, env=child_environment(), stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()  # a launcher that is killed at once would leave its processes behind
            process.communicate(timeout=60)


def ended(process: subprocess.Popen[str]) -> str:
    """What it wrote as an error, once it has ended."""
    return process.communicate(timeout=LIMIT)[1]


def wait_until(true: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + LIMIT
    while not true():
        assert process.poll() is None, ended(process)
        assert time.monotonic() < end, "this never came true"
        time.sleep(0.2)


def votes(study: Path) -> Sequence[tuple[str, int, int]]:
    store = Store.open(open_study(study))
    try:
        return [(vote.show.group, vote.show.first, vote.show.second) for vote in store.judgements()]
    finally:
        store.close()


@pytest.mark.slow
def test_two_processes_ask_everything_once_stop_together_and_give_the_same_when_resumed(tmp_path: Path) -> None:
    study, process = tmp_path / "study", ("--processes", "2")
    ensure_study(resolve_config("d3po", settings(tmp_path)))
    text = (study / "study.yaml").read_text()
    (study / "study.yaml").write_text(text.replace("tasks_per_rater: null", f"tasks_per_rater: {ROUND}"))

    with people(study, raters=1), started(TORCHRUN, tmp_path, "stopped") as run:
        # The only rater is through after the first round: from then on some process waits.
        wait_until(lambda: len(open_study(study, verify=False).groups) > 2 and len(votes(study)) == ROUND, run)
        run.send_signal(signal.SIGINT)
        words = ended(run)
    assert run.returncode != 0
    assert "stopped while people vote" in words
    assert "--resume latest" in words
    groups = open_study(study).groups
    assert len(groups) in (3, 4)
    assert len({group.id for group in groups}) == len(groups)

    with people(study, raters=8), started(SEEDPO, tmp_path, "stopped", *process, "--resume", "latest") as run:
        words = ended(run)
        assert run.returncode == 0, words
    asked = open_study(study).groups
    assert asked[: len(groups)] == groups, "the same images, bit for bit"
    assert len({group.id for group in asked}) == len(asked)
    voted = votes(study)
    assert len(set(voted)) == len(voted) == 3 * len(asked), "every pair is voted on once"

    with started(SEEDPO, tmp_path, "whole", *process) as run:
        words = ended(run)
        assert run.returncode == 0, words
    assert open_study(study).groups == asked, "a run that is never stopped asks the same, so that nobody is asked"
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "stopped")
    weights = [tmp_path / run / "adapter" / "pytorch_lora_weights.safetensors" for run in ("whole", "stopped")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
