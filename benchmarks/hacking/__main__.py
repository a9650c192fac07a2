"""Trains the study of reward hacking: ``python -m benchmarks.hacking --phase development --out out/hacking``.

In the phase `development` every contender is trained with every option, on seeds and prompts of its own. In the phase
`final` the option that the rule of benchmarks/hacking/plan.md chooses is trained with other seeds and evaluated on
other prompts. Finished runs are kept, so that the command can be interrupted and repeated.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

# Before the first import of torch: one thread, on which the numbers depend neither on the machine nor on its load.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks.hacking.analysis import entering
from benchmarks.hacking.contenders import CONTENDERS, PHASES, Contender
from benchmarks.hacking.results import Results, collect, unpack
from benchmarks.hacking.running import Task, run_task
from benchmarks.hacking.worlds import WORLDS
from benchmarks.run_files import read_run_file
from benchmarks.runs import run_unfinished


def development_tasks(worlds: Sequence[str], contenders: Sequence[Contender], seeds: int) -> Iterator[Task]:
    """All options seed by seed, so that an interrupted study has all options of the first seeds."""
    for index in range(seeds):
        for contender in contenders:
            for world in worlds:
                for option in contender.options if contender.fits(WORLDS[world]) else ():
                    yield Task(world=world, contender=contender.name, option=option, phase="development", index=index)


def final_tasks(worlds: Sequence[str], contenders: Sequence[Contender], seeds: int, results: Results) -> Iterator[Task]:
    """The chosen option of each contender that enters, seed by seed, and the base method at its first one.

    Of the base method, those that are chosen for what sampling makes of its runs are trained too. Its first option
    shows what becomes of the method as it stands.
    """
    entered = [
        (world, entry.contender, choice.option)
        for world in worlds
        for entry, choice in entering(results, world).items()
    ]
    first = next(iter(CONTENDERS["base"].options))
    settings = dict.fromkeys([*entered, *((world, "base", first) for world, _, _ in entered)])
    for index in range(seeds):
        for world, contender, option in settings:
            if CONTENDERS[contender] in contenders:
                yield Task(world=world, contender=contender, option=option, phase="final", index=index)


def all_tasks() -> Iterator[Task]:
    """Whatever could be in a folder of results."""
    most = 10
    worlds, contenders = list(WORLDS), list(CONTENDERS.values())
    for task in development_tasks(worlds, contenders, most):
        for phase in PHASES:
            yield Task(world=task.world, contender=task.contender, option=task.option, phase=phase, index=task.index)


def finished(out: Path) -> Results:
    """The runs of a folder."""
    known = {task.name.removesuffix(".json"): read_run_file(out / task.name) for task in all_tasks()}
    return Results(runs={name: run for name, run in known.items() if run is not None})


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.hacking",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs; finished ones are kept")
    parser.add_argument("--phase", choices=[*PHASES, "collect"], required=True, help="what is trained")
    parser.add_argument("--seeds", type=int, help="seeds (default: 1 of the development, 5 of the final)")
    parser.add_argument("--only", action="append", choices=list(CONTENDERS), help="a contender; repeatable")
    parser.add_argument("--option", action="append", metavar="NAME", help="an option, in development; repeatable")
    parser.add_argument("--world", action="append", choices=list(WORLDS), help="a world; repeatable")
    parser.add_argument("--published", action="store_true", help="begin with the published runs, as finished ones")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="runs at the same time")
    options = parser.parse_args(arguments)
    worlds, contenders = options.world or list(WORLDS), [CONTENDERS[name] for name in options.only or CONTENDERS]
    if options.published:
        unpack(Results.read(), options.out)
    tasks: list[Task] = []
    if options.phase == "development":
        every = development_tasks(worlds, contenders, options.seeds or 1)
        tasks = [task for task in every if not options.option or task.option in options.option]
    elif options.phase == "final":
        tasks = list(final_tasks(worlds, contenders, options.seeds or 5, finished(options.out)))
    if tasks:
        run_unfinished(tasks, run_task, options.out, processes=options.processes, label=options.phase)
    print(f"results: {collect(options.out, [task.name for task in all_tasks()], options.out / 'results.json')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
