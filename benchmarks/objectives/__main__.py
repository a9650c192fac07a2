"""Compares all objectives: ``python -m benchmarks.objectives --out out/objectives``.

Every contender gets equally many trials of learning rate and beta; the chosen one is trained again with other seeds and
evaluated on other prompts. Every run has the same budget of rows through the network. Finished runs are kept, so the
command can be interrupted and repeated, with more trials, seeds or contenders.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

# Before the first import of torch: one thread, on which the numbers depend neither on the machine nor on its load.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks.objectives.contenders import CONTENDERS, WORLDS, Contender, trial
from benchmarks.objectives.results import collect, read_result
from benchmarks.objectives.running import Task, prepare, run_task
from benchmarks.objectives.selection import chosen
from benchmarks.runs import run_unfinished


def search_tasks(worlds: Sequence[str], contenders: Sequence[Contender], trials: int) -> Iterator[Task]:
    """All trials, contender by contender; twins have none."""
    for contender in contenders:
        for world in worlds:
            for index in range(0 if contender.twin else trials):
                rate, second = trial(contender, index)
                yield Task(world=world, contender=contender, phase="search", index=index, rate=rate, second=second)


def comparison_tasks(
    worlds: Sequence[str], contenders: Sequence[Contender], trials: int, seeds: int, out: Path
) -> Iterator[Task]:
    """The chosen trial of each contender with each seed, contender by contender.

    Contenders whose search is not finished, or whose trials all diverged, are left out.
    """
    for contender in contenders:
        for world in worlds:
            if (values := chosen_values(world, contender, trials, out)) is not None:
                rate, second = values
                for seed in range(seeds):
                    yield Task(
                        world=world, contender=contender, phase="comparison", index=seed, rate=rate, second=second
                    )


def chosen_values(world: str, contender: Contender, trials: int, out: Path) -> tuple[float, float | None] | None:
    """Learning rate and second value for the comparison; `None` where the search is not finished or all diverged."""
    searched = CONTENDERS[contender.twin] if contender.twin else contender
    results = [read_result(out, world, searched.name, "search", index) for index in range(trials)]
    known = [result for result in results if result is not None]
    best = chosen(known) if len(known) == trials else None
    if best is None:
        return None
    rate, second = trial(searched, best)
    return rate, None if second is None else float(f"{second * contender.factor:.6g}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.objectives",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs; finished ones are kept")
    parser.add_argument("--trials", type=int, default=5, help="trials of each contender in each world (default: 5)")
    parser.add_argument("--seeds", type=int, default=5, help="seeds of the comparison (default: 5)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="runs at the same time")
    parser.add_argument("--only", action="append", choices=list(CONTENDERS), help="a contender; repeatable")
    parser.add_argument("--world", action="append", choices=list(WORLDS), help="a world; repeatable")
    parser.add_argument("--phase", choices=("search", "comparison", "collect"), help="one phase alone")
    options = parser.parse_args(arguments)
    worlds = options.world or list(WORLDS)
    contenders = [CONTENDERS[name] for name in options.only or CONTENDERS]
    if options.phase in (None, "search"):
        prepare(options.out)
        searches = list(search_tasks(worlds, contenders, options.trials))
        run_unfinished(searches, run_task, options.out, processes=options.processes, label="search")
    if options.phase in (None, "comparison"):
        tasks = list(comparison_tasks(worlds, contenders, options.trials, options.seeds, options.out))
        run_unfinished(tasks, run_task, options.out, processes=options.processes, label="comparison")
    print(f"results: {collect(options.out, trials=options.trials, seeds=options.seeds)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
