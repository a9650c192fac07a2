"""Run folders of the benchmark whose frontiers are known, without any training."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from seedpo.training.sweeps.hacking_grid import Grid, Setting, settings_of

PROXIES = (0.0, 1.0, 2.0, 3.0)
"""Proxy reward at the four evaluations of each run."""

HALF = 0.1
"""Half of the interval of every quantity."""

GRID = Grid(betas=(10.0, 20.0), relative=(1.0, 3.0), absolute=(20.0,))

Value = Callable[[Setting, int, float], float]
"""A quantity of a setting and seed at a proxy."""


def hill(setting: Setting, seed: int, proxy: float) -> float:
    """Truth rises to 2 at a proxy of 1, and falls: the same whatever is trained, but for the seed."""
    return {0.0: 1.0, 1.0: 2.0, 2.0: 1.0, 3.0: 0.0}[proxy] + 0.1 * seed


def see_gains(gain: float, noise: float = 0.0) -> Value:
    """The hill, higher by ``gain`` with the entropy term, and by ``noise`` with alternating sign from seed to seed.

    Seeds 0 to 2 differ by 0.01 in any case, since equal seeds give no interval.
    """

    def value(setting: Setting, seed: int, proxy: float) -> float:
        more = gain + noise * (-1) ** seed + 0.01 * (seed - 1) if setting.role == "see" else 0.0
        return hill(setting, seed, proxy) + more

    return value


def write_runs(
    folder: Path,
    quantities: Mapping[str, Value],
    *,
    grid: Grid = GRID,
    seeds: int = 3,
    start: Callable[[Setting], float] | None = None,
    prompts: Callable[[Setting], Sequence[float]] | None = None,
) -> Path:
    """Finished runs of the grid.

    Args:
        folder: of the method.
        quantities: what the evaluations measure, as functions of the proxy.
        grid: what is said to have been trained.
        seeds: of each setting.
        start: added to all proxies of a setting.
        prompts: by how much the quantities of each prompt differ from their mean; none: no figures of prompts are
            kept.
    """
    for setting in settings_of(grid):
        for seed in range(seeds):
            run = folder / f"{setting.label}_seed={seed}"
            run.mkdir(parents=True)
            config = {"method": "spo", "gamma": 0.0, **setting.changes, "seed": seed}
            config |= {"max_steps": 3, "evaluation": {"rewards": ["scenes-scorer"], "metrics": ["truth"]}}
            (run / "config.yaml").write_text(yaml.safe_dump(config))
            shift = start(setting) if start else 0.0
            lines = [
                {"kind": "evaluation", "step": step, "reward/scenes-scorer": shift + proxy}
                | {
                    f"{key}{end}": value(setting, seed, proxy) + half
                    for key, value in quantities.items()
                    for end, half in (("", 0.0), ("/low", -HALF), ("/high", HALF))
                }
                for step, proxy in enumerate(PROXIES)
            ]
            (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
            if prompts is not None:
                write_prompts(run / "samples", lines, prompts(setting))
            (run / "finished.json").write_text('{"step": 3, "seconds": 1}')
    return folder


def write_prompts(samples: Path, lines: Sequence[Mapping[str, Any]], shifts: Sequence[float]) -> None:
    """The figures of every prompt beside sheets of one pixel each; the proxy is the same for all prompts."""
    samples.mkdir()
    texts = [f"prompt {row}" for row in range(len(shifts))]
    (samples / "index.json").write_text(json.dumps({"tile": 1, "columns": 1, "prompts": texts}))
    for line in lines:
        keys = [key for key in line if key not in ("kind", "step")]
        rows = {key: [line[key] + (0.0 if key.startswith("reward/") else shift) for shift in shifts] for key in keys}
        (samples / f"step-{line['step']:06d}.json").write_text(json.dumps(rows))
        Image.new("RGB", (1, len(shifts))).save(samples / f"step-{line['step']:06d}.png")
