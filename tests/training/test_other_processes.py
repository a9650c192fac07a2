"""A run goes on on another number of processes: nothing is lost or seen twice; see ``other_processes.py``."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from seedpo.training.codec import load_tree
from tests.small_runs import few_pairs, few_prompts, metrics
from tests.training.other_processes import GLOBAL_BATCH, HALF, WHOLE, go_on
from tests.training.test_crashes import ROOT, child_environment

LAUNCH = (
    "import sys; from seedpo.cli.launch import launch; "
    "command = [sys.executable, '-m', 'tests.training.other_processes']; "
    "raise SystemExit(launch(sys.argv[2:], processes=int(sys.argv[1]), command=command))"
)


def change(root: Path, kinds: list[str], *, processes: int, layout: str = "whole") -> Path:
    """The folder of runs that changed from one process to several, ``up``, and the other way round, ``down``."""
    few_pairs(root)
    few_prompts(root)
    for kind in kinds:
        go_on(root, kind, root / f"{kind}-up", steps=HALF, note="first")
    command = [sys.executable, "-c", LAUNCH, str(processes), layout, str(root), *kinds]
    done = subprocess.run(
        command, cwd=ROOT, env=child_environment(), capture_output=True, text=True, timeout=290, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    for kind in kinds:
        shutil.copytree(root / f"{kind}-down", root / f"{kind}-again")
        go_on(root, kind, root / f"{kind}-down", steps=WHOLE, resume=True, note="second")
        go_on(root, kind, root / f"{kind}-again", steps=WHOLE, resume=True, note="second")
    return root


def taken(root: Path, name: str, note: str) -> list[tuple[int, int]]:
    """All pairs that were taken, each with the number of its visit."""
    batches = [
        batch
        for file in root.glob(f"{name}-{note}-*.json")
        for batch in json.loads(file.read_text())
        if "optimizer" not in file.name
    ]
    return [visit for rows, visits in batches for visit in zip(rows, visits, strict=True)]


def lines(path: Path) -> list[dict[str, Any]]:
    return [line for line in metrics(path) if line.pop("kind") == "train"]


def checkpoint(path: Path, step: int) -> Path:
    return path / "checkpoints" / f"checkpoint-{step:06d}"


def check_offline(root: Path, kind: str) -> None:
    """Both runs took the pairs of one that never stopped, each of them at the same side of the change."""
    go_on(root, kind, root / f"{kind}-one", steps=WHOLE, note="whole")
    whole = taken(root, f"{kind}-one", "whole")
    assert len(whole) == WHOLE * GLOBAL_BATCH
    for name in ("up", "down"):
        first, second = (taken(root, f"{kind}-{name}", note) for note in ("first", "second"))
        assert Counter(first) == Counter(whole[: HALF * GLOBAL_BATCH])
        assert Counter(second) == Counter(whole[HALF * GLOBAL_BATCH :])
        assert lines(root / f"{kind}-{name}")[-1]["source/visits"] == lines(root / f"{kind}-one")[-1]["source/visits"]


def check_optimizer(root: Path, kind: str) -> None:
    """The optimiser is restored bit for bit."""
    for name in ("up", "down"):
        files = list(root.glob(f"{kind}-{name}-second-*-optimizer.safetensors"))
        assert files
        saved = load_file(checkpoint(root / f"{kind}-{name}", HALF) / "optimizer.safetensors")
        for file in files:
            restored = load_file(file)
            assert restored.keys() == saved.keys()
            assert all(torch.equal(value, saved[key]) for key, value in restored.items())


def check_same_numbers(root: Path, kind: str) -> None:
    """Where no noise depends on the process, the change is rounding."""
    expected = lines(root / f"{kind}-one")
    assert expected[-1]["loss"] != pytest.approx(expected[0]["loss"], rel=1e-3), "something is learned"
    last = load_tree(checkpoint(root / f"{kind}-one", WHOLE) / "optimizer")["parameters"]
    for name in ("up", "down"):
        found = lines(root / f"{kind}-{name}")
        assert len(found) == WHOLE
        for left, right in zip(found, expected, strict=True):
            assert left == pytest.approx(right, rel=1e-3, abs=1e-5)
        moments = load_tree(checkpoint(root / f"{kind}-{name}", WHOLE) / "optimizer")["parameters"]
        for key, state in last.items():
            error = float((moments[key]["exp_avg"] - state["exp_avg"]).norm())
            assert error <= 1e-2 * float(state["exp_avg"].norm()) + 1e-12, key


def check_again(root: Path, kind: str) -> None:
    """The same change twice gives the same numbers."""
    assert lines(root / f"{kind}-again") == lines(root / f"{kind}-down")
    files = [checkpoint(root / f"{kind}-{name}", WHOLE) / "rank-0.json" for name in ("again", "down")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert not (files[0].parent / "rank-1.json").exists()


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return change(tmp_path_factory.mktemp("two"), ["diffusion-dpo", "d3po", "reward"], processes=2)


@pytest.mark.parametrize("kind", ["diffusion-dpo", "reward"])
def test_each_pair_is_taken_once(root: Path, kind: str) -> None:
    check_offline(root, kind)
    check_optimizer(root, kind)
    check_again(root, kind)


def test_the_numbers_are_those_of_a_run_that_never_stopped(root: Path) -> None:
    check_same_numbers(root, "diffusion-dpo")
