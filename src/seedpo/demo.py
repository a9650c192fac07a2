"""The demonstration: three methods on the embedded model, each with and without the entropy term, and one report.

Every run is a process of its own with one thread, so that its numbers depend neither on the number of cores nor on
what runs beside it. A finished run is kept, an interrupted one goes on from its last checkpoint.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from seedpo.config import merge
from seedpo.errors import SeedpoError
from seedpo.reports import write_report

SHARED: Mapping[str, Any] = {
    "lora_rank": 8,
    "clip_range": None,
    "sampling": {"num_inference_steps": 10, "guidance_scale": 3.0},
    "evaluation": {"num_inference_steps": 10, "guidance_scale": 3.0, "num_prompts": 16, "images_per_prompt": 4},
}
"""What all runs share; evaluations use held-out prompts and the same latents."""

METHODS: Mapping[str, Mapping[str, Any]] = {
    "diffusion-dpo": {
        "beta": 50.0,
        "gamma": 0.5,
        "learning_rate": 3e-3,
        "batch_size": 16,
        "max_steps": 64,
        "evaluate_every": 16,
    },
    "spo": {
        "beta": 10.0,
        "gamma": 3.0,
        "learning_rate": 1.5e-3,
        "batch_size": 32,
        "max_steps": 50,
        "evaluate_every": 10,
        "steps": {
            "candidates": 4,
            "plain_steps": 5,
            "min_gap": 0.1,
            "prompts_per_rollout": 16,
            "updates_per_rollout": 3,
        },
    },
    "d3po": {
        "beta": 10.0,
        "gamma": 3.0,
        "learning_rate": 3e-3,
        "batch_size": 16,
        "max_steps": 20,
        "evaluate_every": 10,
        "trajectories": {"images_per_prompt": 4, "prompts_per_rollout": 12, "min_gap": 0.1, "steps_per_pair": 1},
    },
}
"""Settings of each method in the embedded world, chosen so that over-training is seen.

``gamma`` is that of the SEE variant: 3 is the value at which the paper varies beta; on the fixed pairs of Diffusion-DPO
it would saturate every fourth pair, and a smaller one is used.
"""


@dataclass(frozen=True, kw_only=True)
class DemoRun:
    """One run of the demonstration.

    Attributes:
        name: its folder.
        config: what differs from the method's preset.
    """

    name: str
    config: Mapping[str, Any]


def demo_runs(seeds: int = 1) -> Iterator[DemoRun]:
    """Base method, SEE variant, and the base method at SEE's temperature (beta' = a), for every method and seed."""
    for seed in range(seeds):
        for method, settings in METHODS.items():
            beta, gamma = settings["beta"], settings["gamma"]
            common = merge(merge(SHARED, settings), {"method": method, "seed": seed})
            variants: Mapping[str, Mapping[str, Any]] = {
                "base": {"gamma": 0.0},
                "see": {},
                "control": {"gamma": 0.0, "beta": beta * (1.0 + gamma)},
            }
            for variant, changes in variants.items():
                yield DemoRun(name=f"{method}-{variant}-seed{seed}", config=merge(common, changes))


def run_demo(out: Path, *, seeds: int = 1, processes: int | None = None, fresh: bool = False) -> Path:
    """Trains what is not trained yet and writes the report.

    Args:
        out: folder for the runs and the report.
        seeds: seeds of each run.
        processes: runs trained at the same time; as many as there are cores if not given.
        fresh: train again what is finished; a run whose settings have changed is trained again in any case.

    Returns:
        Path of the report.

    Raises:
        SeedpoError: if a run fails; the message names its log.
    """
    runs = list(demo_runs(seeds))
    out.mkdir(parents=True, exist_ok=True)
    for run in runs:
        recipe, text = out / f"{run.name}.yaml", yaml.safe_dump(dict(run.config), sort_keys=False)
        if fresh or (recipe.is_file() and recipe.read_text(encoding="utf-8") != text):
            shutil.rmtree(out / run.name, ignore_errors=True)
        recipe.write_text(text, encoding="utf-8")
    _train_all(out, runs, processes=processes or os.cpu_count() or 1)
    return write_report([out / run.name for run in runs], out / "report.html")


def _train_all(out: Path, runs: Sequence[DemoRun], *, processes: int) -> None:
    waiting = [run for run in runs if not (out / run.name / "finished.json").is_file()]
    total = sum(int(run.config["max_steps"]) for run in runs)
    working: dict[str, subprocess.Popen[bytes]] = {}
    with tqdm(total=total, desc="demo", unit="step", dynamic_ncols=True) as bar:
        try:
            while waiting or working:
                while waiting and len(working) < processes:
                    run = waiting.pop(0)
                    working[run.name] = _start(out, run)
                time.sleep(0.5)
                for name in [name for name, process in working.items() if process.poll() is not None]:
                    if working.pop(name).returncode:
                        raise SeedpoError(f"the run {name} failed; its last words are in {out / (name + '.log')}")
                bar.set_postfix_str(", ".join(working))
                bar.update(sum(_steps_done(out, run) for run in runs) - bar.n)
        finally:
            for process in working.values():
                process.terminate()
            for process in working.values():
                process.wait()


def _start(out: Path, run: DemoRun) -> subprocess.Popen[bytes]:
    folder = out / run.name
    resumes = any((folder / "checkpoints").glob("checkpoint-*"))
    if not resumes:
        shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "seedpo", "train", str(out / f"{run.name}.yaml"), "--out", str(folder), "--quiet"]
    with (out / f"{run.name}.log").open("ab") as log:
        return subprocess.Popen(
            [*command, *(["--resume", "latest"] if resumes else [])],
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )


def _steps_done(out: Path, run: DemoRun) -> int:
    """Training steps on record."""
    path = out / run.name / "metrics.jsonl"
    return path.read_bytes().count(b'"kind": "train"') if path.is_file() else 0
