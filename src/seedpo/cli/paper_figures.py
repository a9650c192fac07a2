"""Figures 1, 2, 4 and 5 of SEE-DPO's paper on the embedded world: trains what is not trained yet, then draws."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from seedpo.errors import SeedpoError
from seedpo.reports.figures import FigureOptions, write_figure
from seedpo.reports.figures.drawing import check_target
from seedpo.training.sweeps.definition import Cell
from seedpo.training.sweeps.demonstration import HACKING
from seedpo.training.sweeps.paper import paper_runs
from seedpo.training.sweeps.running import Failure, run_cells, write_recipes

LATENTS = (0, 1, 2, 3)
"""Initial latents of Figure 4; the demonstration's evaluations draw four of each prompt."""

PARTS = 8
"""Parts of the training over which the accuracy of Figure 2 is averaged: that of single batches is noise."""


def make_paper_figures(
    out: Path, *, seeds: int = 1, long: bool = False, format: str = "pdf", processes: int | None = None
) -> list[Path]:
    """Trains the runs and draws the figures.

    Args:
        out: folder of the figures; the runs lie in ``out/runs``.
        seeds: seeds of each run.
        long: whether runs are ten times as long, see :data:`seedpo.training.sweeps.paper.LONG`.
        format: ``pdf``, ``svg`` or ``png``.
        processes: runs trained at the same time; as many as there are cores if not given.

    Returns:
        The figures; beside each lies its table.

    Raises:
        SeedpoError: if a run fails; the message names its log.
        ConfigError: if matplotlib is missing or the format is unknown.
    """
    check_target(out / f"fig1.{format}")
    runs = out / "runs"
    parts = paper_runs(seeds, long=long)
    cells = [cell for part in parts.values() for cell in part]
    write_recipes(runs, cells)
    run_cells(runs, cells, processes=processes or os.cpu_count(), label="paper", on_end=_stop_at_failure)
    folders = {name: [runs / cell.name for cell in part] for name, part in parts.items()}
    return list(_figures(out, folders, format, last_step=cells[0].steps))


def _figures(out: Path, folders: dict[str, list[Path]], format: str, *, last_step: int) -> Iterator[Path]:
    trio, ablation = folders["trio"], folders["trio"] + folders["ablation"]
    for name, kind, runs, options in (
        ("fig1", "grid", trio, FigureOptions(steps=(0, last_step))),
        ("fig2", "accuracy", trio + folders["rewards"], FigureOptions(parts=PARTS)),
        ("fig4", "grid", trio, FigureOptions(prompts=(0, 1), latents=LATENTS, stacked=True, width="column")),
        ("fig5", "ablation", ablation, FigureOptions(metrics=(str(HACKING["reward"]), "truth", "pairwise_diversity"))),
        ("fig5-tradeoff", "tradeoff", ablation, FigureOptions(metrics=("truth", "pairwise_diversity"))),
    ):
        path = out / f"{name}.{format}"
        write_figure(kind, runs, path, options)
        yield path


def _stop_at_failure(run: Cell, failure: Failure | None) -> None:
    if failure is not None:
        raise SeedpoError(f"the run {run.name} failed; see {failure.log}")
