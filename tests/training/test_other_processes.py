"""A run goes on on another number of processes: nothing is lost or seen twice; see ``other_processes.py``."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from seedpo.training.codec import load_tree
from tests.small_runs import few_pairs, few_prompts, metrics
from tests.training.other_processes import GLOBAL_BATCH, HALF, WHOLE, go_on
from tests.training.test_crashes import launched

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def launch(processes: int, part: str, root: Path, kinds: list[str]) -> None:
    """Some processes do their part."""
    launched("tests.training.other_processes", part, str(root), *kinds, processes=processes, timeout=900)


def change(root: Path, kinds: list[str], *, part: str) -> Path:
    """The folder of runs that changed from one process to two, ``up``, and the other way round, ``down``."""
    few_pairs(root)
    few_prompts(root)
    for kind in kinds:
        go_on(root, kind, root / f"{kind}-up", steps=HALF, note="first")
    launch(2, part, root, kinds)
    for kind in kinds:
        shutil.copytree(root / f"{kind}-down", root / f"{kind}-wide")
        go_on(root, kind, root / f"{kind}-down", steps=WHOLE, resume=True, note="second")
        if kind != "d3po":
            go_on(root, kind, root / f"{kind}-one", steps=WHOLE, note="whole")
    return root


def noted_files(root: Path, name: str, note: str) -> list[Path]:
    """What each process noted."""
    return [file for file in root.glob(f"{name}-{note}-*.json") if "optimizer" not in file.name]


def taken(root: Path, name: str, note: str) -> list[tuple[int, int]]:
    """All pairs that were taken, each with the number of its visit."""
    batches = [batch for file in noted_files(root, name, note) for batch in json.loads(file.read_text())]
    return [visit for rows, visits in batches for visit in zip(rows, visits, strict=True)]


def lines(path: Path) -> list[dict[str, Any]]:
    return [line for line in metrics(path) if line.pop("kind") == "train"]


def checkpoint(path: Path, step: int) -> Path:
    return path / "checkpoints" / f"checkpoint-{step:06d}"


def check_offline(root: Path, kind: str, *, names: Sequence[str] = ("up", "down")) -> None:
    """The runs took the pairs of one that never stopped, each of them at the same side of the change."""
    whole = taken(root, f"{kind}-one", "whole")
    assert len(whole) == WHOLE * GLOBAL_BATCH
    for name in names:
        first, second = (
            taken(root, f"{kind}-{begun}", note) for begun, note in ((BEGUN[name], "first"), (name, "second"))
        )
        assert Counter(first) == Counter(whole[: HALF * GLOBAL_BATCH])
        assert Counter(second) == Counter(whole[HALF * GLOBAL_BATCH :])
        assert lines(root / f"{kind}-{name}")[-1]["source/visits"] == lines(root / f"{kind}-one")[-1]["source/visits"]


BEGUN = {"up": "up", "down": "down", "wide": "down"}
"""Which run has the beginning of each."""


def check_optimizer(root: Path, kind: str, *, names: Sequence[str] = ("up", "down")) -> None:
    """The optimiser is restored bit for bit."""
    for name in names:
        files = list(root.glob(f"{kind}-{name}-second-*-optimizer.safetensors"))
        assert files
        saved = load_file(checkpoint(root / f"{kind}-{name}", HALF) / "optimizer.safetensors")
        for file in files:
            restored = load_file(file)
            assert restored.keys() == saved.keys()
            assert all(torch.equal(value, saved[key]) for key, value in restored.items())


def check_same_numbers(root: Path, kind: str, *, names: Sequence[str] = ("up", "down")) -> None:
    """Where no noise depends on the process, the change is rounding."""
    expected = lines(root / f"{kind}-one")
    assert expected[-1]["loss"] != pytest.approx(expected[0]["loss"], rel=1e-3), "something is learned"
    last = load_tree(checkpoint(root / f"{kind}-one", WHOLE) / "optimizer")["parameters"]
    for name in names:
        found = lines(root / f"{kind}-{name}")
        assert len(found) == WHOLE
        # In the first step all margins are 0, of which rounding says the sign.
        for left, right in zip(found[1:], expected[1:], strict=True):
            assert left == pytest.approx(right, rel=1e-3, abs=1e-5)
        moments = load_tree(checkpoint(root / f"{kind}-{name}", WHOLE) / "optimizer")["parameters"]
        for key, state in last.items():
            error = float((moments[key]["exp_avg"] - state["exp_avg"]).norm())
            assert error <= 1e-2 * float(state["exp_avg"].norm()) + 1e-12, key


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return change(tmp_path_factory.mktemp("two"), ["diffusion-dpo", "d3po", "reward"], part="two")


@pytest.fixture(scope="module")
def sharded_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return change(tmp_path_factory.mktemp("shards"), ["diffusion-dpo", "full"], part="shards")


@pytest.mark.parametrize("kind", ["diffusion-dpo", "reward"])
def test_each_pair_is_taken_once(root: Path, kind: str) -> None:
    check_offline(root, kind)
    check_optimizer(root, kind)


def test_the_numbers_are_those_of_a_run_that_never_stopped(root: Path) -> None:
    check_same_numbers(root, "diffusion-dpo")


def test_from_two_to_three(root: Path) -> None:
    launch(3, "three", root, ["diffusion-dpo", "d3po"])
    check_offline(root, "diffusion-dpo", names=["wide"])
    check_same_numbers(root, "diffusion-dpo", names=["wide"])
    check_optimizer(root, "diffusion-dpo", names=["wide"])
    check_waiting(root, names=["wide"])


def test_what_a_roll_out_made_is_dealt_out(root: Path) -> None:
    check_waiting(root, names=["up", "down"])
    check_optimizer(root, "d3po")
    assert len(lines(root / "d3po-down")) == len(lines(root / "d3po-up")) == WHOLE


def check_waiting(root: Path, *, names: Sequence[str]) -> None:
    """As many units wait after a change as did before."""
    for name in names:
        files = checkpoint(root / f"d3po-{name}", HALF).glob("rank-*.json")
        states = [load_tree(file.with_suffix(""))["source"]["buffer"] for file in files]
        now = [json.loads(file.read_text()) for file in noted_files(root, f"d3po-{name}", "second")]
        before, after = (
            sum(counts) for counts in ([len(state["queue"]) for state in states], [some for (some,) in now])
        )
        assert before == after > 0


@pytest.mark.parametrize("kind", ["diffusion-dpo", "full"])
def test_shards_of_one_process_and_of_two(sharded_root: Path, kind: str) -> None:
    check_offline(sharded_root, kind)
    check_optimizer(sharded_root, kind)
    check_same_numbers(sharded_root, kind)
