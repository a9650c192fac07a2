"""Commands that train many runs: `seedpo sweep` and `seedpo bench`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from seedpo.cli.shared import Changes, read_changes, say

Processes = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Runs trained at the same time; if not given, as many as there are GPUs, or else cores.",
    ),
]


def sweep_command(
    source: Annotated[
        str, typer.Argument(metavar="FILE|METHOD", help="A sweep file, a recipe, or one of `seedpo list methods`.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the runs, one folder each.")],
    vary: Annotated[
        list[str] | None,
        typer.Option(
            "--vary",
            metavar="KEY=VALUE,VALUE",
            help="Values of one key of the run; dotted for nested ones. Repeatable: all combinations are trained.",
        ),
    ] = None,
    changes: Changes = None,
    controls: Annotated[
        bool,
        typer.Option("--controls", help="Add the base method at beta' = a for every run with an entropy term."),
    ] = False,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Train every N-th run from the I-th on: one job of an array.")
    ] = None,
    processes: Processes = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Train again what is finished already.")] = False,
) -> None:
    """Train a grid of runs: any key over any values, each run a folder of its own.

    Every run is one process with one thread. Finished runs are kept and interrupted ones continue when the command is
    repeated; runs that were trained with other settings are refused. A run that fails is named at the end and in
    `sweep.json`, the others continue, and the exit status is 1.

    Examples:
        seedpo sweep spo --vary gamma=0,1,3 --vary seed=0,1,2 --controls --out sweeps/gamma

        seedpo sweep sweeps/beta.yaml --set max_steps=200 --out sweeps/beta --shard 1/4
    """
    from seedpo.training.sweeps.definition import read_sweep
    from seedpo.training.sweeps.running import require_all, run_sweep

    sweep = read_sweep(source, changes=read_changes(changes), vary=vary or [], controls=controls)
    outcome = run_sweep(sweep, out, shard=shard, processes=processes, fresh=fresh)
    amount = len(outcome.folders)
    say(f"finished: {amount} {'run' if amount == 1 else 'runs'} in {out}; states: {outcome.record}")
    require_all([outcome], say)


bench_app = typer.Typer(no_args_is_help=True, help="Benchmarks of the entropy term on the embedded model.")


@bench_app.command("hacking")
def hacking_command(
    out: Annotated[Path, typer.Option(help="Folder for the runs and the results.")],
    method: Annotated[
        list[str] | None,
        typer.Option(help="`spo`, `d3po` or `diffusion-dpo`; repeatable. All if not given.", show_default=False),
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Seeds of each run; 3, or 1 with --quick.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Few and short runs: shows the output, proves nothing.")
    ] = False,
    trials: Annotated[
        bool, typer.Option("--trials", help="Try options that no paper has, too (docs/options.md).")
    ] = False,
    changes: Changes = None,
    processes: Processes = None,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Train every N-th run from the I-th on, without the analysis.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Train again what is finished already.")] = False,
) -> None:
    """Measure whether the entropy term lessens reward hacking: truth and diversity at equal proxy reward.

    For each method the base method over several betas, the entropy term over gammas in both conventions, and the base
    method at each of their temperatures. Writes `hacking.md`, `hacking.json` and figures. Finished runs are kept when
    the command is repeated.

    Examples:
        seedpo bench hacking --out out/hacking

        seedpo bench hacking --quick --method spo --out out/quick
    """
    from seedpo.reports.hacking_benchmark.results import write_results
    from seedpo.training.sweeps.hacking_grid import SEEDS, grids, sweep_of
    from seedpo.training.sweeps.running import require_all, run_sweep

    keys = read_changes(changes)
    chosen, amount = grids(method or [], quick=quick, trials=trials), seeds or (1 if quick else SEEDS)
    outcomes = [
        run_sweep(
            sweep_of(name, grid, seeds=amount, changes=keys),
            out / name,
            shard=shard,
            processes=processes,
            fresh=fresh,
            label=f"hacking, {name}",
        )
        for name, grid in chosen.items()
    ]
    if shard is None:
        command = _hacking_command_line(method or [], seeds=seeds, quick=quick, trials=trials, changes=keys)
        lines = write_results(out, chosen, seeds=amount, command=command)
    else:
        amount = sum(len(outcome.folders) for outcome in outcomes)
        last = "run the command without --shard at the end, for the analysis"
        lines = [f"finished: {amount} runs of shard {shard} in {out}; {last}"]
    for line in lines:
        say(line)
    require_all(outcomes, say)


def _hacking_command_line(
    methods: Sequence[str], *, seeds: int | None, quick: bool, trials: bool, changes: Mapping[str, Any]
) -> str:
    """The command that makes the results of the benchmark anew."""
    from seedpo.pages.wording import written
    from seedpo.settings import dotted

    options = [f"--method {method}" for method in methods]
    options += [f"--seeds {seeds}"] if seeds else []
    options += ["--quick"] if quick else []
    options += ["--trials"] if trials else []
    options += [f"--set {key}={written(value)}" for key, value in dotted(changes).items()]
    return " ".join(["seedpo bench hacking --out OUT", *options])
