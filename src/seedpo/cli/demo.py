"""The demonstration: examples on the embedded model, each with and without the entropy term, and one report.

Every run is a process of its own with one thread, so that its numbers depend neither on the number of cores nor on
what runs beside it. A finished run is kept, an interrupted one continues from its last checkpoint.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from seedpo.errors import ConfigError, SeedpoError
from seedpo.reports import write_report
from seedpo.training.sweeps.definition import Cell
from seedpo.training.sweeps.demonstration import SHOWN, demo_runs
from seedpo.training.sweeps.running import Failure, run_cells, write_recipes


def run_demo(
    out: Path, *, seeds: int = 1, only: Sequence[str] = (), processes: int | None = None, fresh: bool = False
) -> Path:
    """Trains what is not trained yet and writes the report.

    Args:
        out: folder for the runs and the report.
        seeds: seeds of each run.
        only: beginnings of runs' names, as ``spo`` or ``hacking-base``; :data:`SHOWN` if there are none.
        processes: runs trained at the same time; as many as there are cores if not given.
        fresh: train again what is finished; a run whose settings have changed is trained again in any case.

    Returns:
        Path of the report.

    Raises:
        ConfigError: if no run is called so.
        SeedpoError: if a run fails; the message names its log.
    """
    runs = _chosen(list(demo_runs(seeds)), only or SHOWN)
    write_recipes(out, runs, fresh=fresh)
    run_cells(out, runs, processes=processes or os.cpu_count(), label="demo", on_end=_stop_at_failure)
    return write_report([out / run.name for run in runs], out / "report.html")


def _chosen(runs: Sequence[Cell], only: Sequence[str]) -> list[Cell]:
    for start in only:
        if not any(run.name.startswith(f"{start}-") for run in runs):
            names = dict.fromkeys(run.name.rpartition("-seed")[0] for run in runs)
            raise ConfigError(f"--only {start}: the demonstration has no such run; there are {', '.join(names)}")
    return [run for run in runs if run.name.startswith(tuple(f"{start}-" for start in only))]


def _stop_at_failure(run: Cell, failure: Failure | None) -> None:
    if failure is not None:
        raise SeedpoError(f"the run {run.name} failed; see {failure.log}")
