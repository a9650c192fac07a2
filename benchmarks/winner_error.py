"""A run whose winner's error explodes, and what saves it: ``python -m benchmarks.winner_error FOLDER``.

Plain DPO on the embedded flow-matching model at ten times its usual rate and a tenth of its usual beta. A finished run
is kept, so that the command can be repeated. The figure and a table of its numbers are written into the folder.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from accelerate import Accelerator

from seedpo.pages.figures import Line, Panel, style
from seedpo.reports.figures.drawing import draw_panels
from seedpo.settings import merge
from seedpo.training.configuration import resolve_config
from seedpo.training.run import train

FAILING: Mapping[str, Any] = {
    "model": "scenes-flow",
    "beta": 5.0,
    "learning_rate": 1e-2,
    "batch_size": 8,
    "max_steps": 30,
    "evaluate_every": 15,
    "checkpoint_every": 0,
}
"""Keys of `diffusion-dpo` with which it fails."""

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "loser_scale": {"objective": {"loser_scale": "pair"}},
    "anchor_kl": {"anchor": {"kl": 2.0}},
}
"""Keys beside the failing ones, by the name of the setting."""

SMOOTHED = 5
"""Steps over which errors are averaged in the figure, as the alarm averages them."""

Lines = Sequence[Mapping[str, Any]]
"""Lines of metrics."""


def run(folder: Path, setting: str, seed: int, *, accelerator: Accelerator | None = None, **changes: Any) -> Path:
    """Trains a setting with a seed, unless its folder is finished; where it lies."""
    path = folder / f"{setting}-{seed}"
    if not (path / "finished.json").exists():
        keys = merge(merge(dict(FAILING), dict(SETTINGS[setting])), {"seed": seed, **changes})
        resume: Any = "latest" if path.exists() else None
        train(resolve_config("diffusion-dpo", keys), path, resume=resume, accelerator=accelerator, progress=False)
    return path


def lines_of(path: Path, kind: str) -> list[dict[str, Any]]:
    """Lines of metrics of a kind, ``train`` or ``evaluation``."""
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line["kind"] == kind]


def growth(lines: Lines, side: str) -> float:
    """How much the policy's error on a side is above the reference's, as a share of it: of means over lines."""
    policy, reference = (fmean(line[f"error/{who}_{side}"] for line in lines) for who in ("policy", "reference"))
    return policy / reference - 1


def growths(path: Path, side: str) -> dict[int, float]:
    """:func:`growth` over a few steps, by the last of them."""
    lines = lines_of(path, "train")
    ends = range(SMOOTHED, len(lines) + 1)
    return {lines[end - 1]["step"]: growth(lines[end - SMOOTHED : end], side) for end in ends}


def evaluated(path: Path, figure: str) -> dict[int, float]:
    """A figure of the evaluations by step."""
    return {line["step"]: line[figure] for line in lines_of(path, "evaluation")}


def _line(label: str, index: int, curves: Sequence[Mapping[int, float]]) -> Line:
    """The mean of the seeds, and their range."""
    steps = sorted(set.intersection(*(set(curve) for curve in curves)))
    columns = [[curve[step] for curve in curves] for step in steps]
    role, order = style(index)
    return Line(
        label=label,
        role=role,
        order=order,
        x=steps,
        y=[fmean(column) for column in columns],
        low=[min(column) for column in columns],
        high=[max(column) for column in columns],
    )


def panels(folder: Path, seeds: int) -> list[Panel]:
    """Growth of both errors and truth, over the steps."""
    curves = (
        ("Error on preferred images", "growth over the reference's", lambda path: growths(path, "chosen")),
        ("Error on rejected images", "growth over the reference's", lambda path: growths(path, "rejected")),
        ("Truth", "truth", lambda path: evaluated(path, "truth")),
    )
    paths = {name: [folder / f"{name}-{seed}" for seed in range(seeds)] for name in SETTINGS}
    return [
        Panel(
            title=title,
            x_label="step",
            y_label=label,
            lines=[_line(name, index, list(map(read, paths[name]))) for index, name in enumerate(SETTINGS)],
        )
        for title, label, read in curves
    ]


def table(folder: Path, seeds: int) -> list[str]:
    """Rows of Markdown: growth of the winner's error over the last 10 steps, and the last truth, of each seed."""
    rows = ["| setting | winner's error, growth | truth | proxy |", "|---|---|---|---|"]
    for name in SETTINGS:
        paths = [folder / f"{name}-{seed}" for seed in range(seeds)]
        grown = [growth(lines_of(path, "train")[-10:], "chosen") for path in paths]
        last = [lines_of(path, "evaluation")[-1] for path in paths]
        cells = [grown, [line["truth"] for line in last], [line["reward/scenes-scorer"] for line in last]]
        rows.append(f"| {name} | " + " | ".join(", ".join(f"{value:.2f}" for value in cell) for cell in cells) + " |")
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains all settings with all seeds, draws them and prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.winner_error", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the runs and the figure go")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of each setting")
    chosen = parser.parse_args(arguments)
    for seed in range(chosen.seeds):
        for name in SETTINGS:
            run(chosen.folder, name, seed)
    draw_panels(panels(chosen.folder, chosen.seeds), chosen.folder / "winner-error.svg", width=6.9)
    print("\n".join(table(chosen.folder, chosen.seeds)))


if __name__ == "__main__":
    main()
