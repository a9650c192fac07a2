"""`seedpo figure`: figures of runs as PDF, SVG or PNG, each with a CSV of its numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seedpo.cli.shared import say

figure_app = typer.Typer(
    no_args_is_help=True,
    help="Draw figures of runs for print: PDF, SVG or PNG, with a CSV of the very numbers beside each.",
)

Runs = Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, or folders of them.")]
Out = Annotated[Path, typer.Option(help="File to write: .pdf, .svg or .png. The CSV gets the same name.")]
Width = Annotated[str, typer.Option(help="`column` (3.3 inches), `page` (6.9 inches), or inches.")]
Metric = Annotated[
    list[str] | None,
    typer.Option("--metric", help="What is drawn, as truth or reward/pickscore; repeatable.", show_default=False),
]
Names = Annotated[
    str,
    typer.Option(help="What lines are called: `settings`, `folders`, or `auto`: settings where runs differ in gamma."),
]


def _draw(
    kind: str,
    runs: list[Path],
    out: Path,
    names: str,
    *,
    metrics: list[str] | None = None,
    x: str = "",
    width: str = "page",
    best: bool = False,
    parts: int | None = None,
    prompts: str = "",
    latents: str = "0",
    steps: str = "",
    stacked: bool = False,
) -> None:
    from seedpo.errors import ConfigError
    from seedpo.reports.figures import FigureOptions, write_figure

    if names not in ("auto", "settings", "folders"):
        raise ConfigError(f"--names {names}: write auto, settings or folders")
    options = FigureOptions(
        metrics=tuple(metrics or ()),
        x=x,
        width=width,
        best=best,
        parts=parts,
        folder_names={"auto": None, "settings": False, "folders": True}[names],
        prompts=_numbers("prompts", prompts),
        latents=_numbers("latents", latents),
        steps=_numbers("steps", steps),
        stacked=stacked,
    )
    table = write_figure(kind, runs, out, options)
    say(f"figure: {out}; its numbers: {table}")


def _numbers(name: str, text: str) -> tuple[int, ...]:
    from seedpo.errors import ConfigError

    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise ConfigError(f"--{name} {text}: write whole numbers with commas, for example 0,2,5") from error


@figure_app.command("grid")
def grid_command(
    runs: Runs,
    out: Out,
    prompts: Annotated[str, typer.Option(help="Rows: prompts by number, from 0; if not given, the first six.")] = "",
    steps: Annotated[str, typer.Option(help="Evaluation steps, as 0,40; if not given, the last of each run.")] = "",
    latents: Annotated[str, typer.Option(help="Initial latents of each prompt by number, from 0.")] = "0",
    stacked: Annotated[
        bool, typer.Option("--stacked", help="Runs below each other with latents as columns, not side by side.")
    ] = False,
    width: Width = "page",
    names: Names = "auto",
) -> None:
    """Images of the same prompts and latents: prompts as rows, runs and steps as columns, at full size.

    Example: `seedpo figure grid runs/base runs/see --steps 0,60 --prompts 0,3,5 --out fig1.pdf`
    """
    _draw("grid", runs, out, names, prompts=prompts, steps=steps, latents=latents, stacked=stacked, width=width)


@figure_app.command("curves")
def curves_command(
    runs: Runs,
    out: Out,
    metric: Metric = None,
    x: Annotated[str, typer.Option("--x", help="`step` or `pairs` (pairs of images seen).")] = "step",
    width: Width = "page",
    names: Names = "auto",
) -> None:
    """Measured figures over the training, with 95 % intervals over prompts or the range over seeds.

    Example: `seedpo figure curves runs/base runs/see --metric truth --width column --out truth.pdf`
    """
    _draw("curves", runs, out, names, metrics=metric, x=x, width=width)


@figure_app.command("ablation")
def ablation_command(
    runs: Runs,
    out: Out,
    metric: Metric = None,
    best: Annotated[bool, typer.Option("--best", help="Each run's best evaluation instead of its last.")] = False,
    width: Width = "page",
    names: Names = "auto",
) -> None:
    """A figure against gamma at fixed beta, and against beta at fixed gamma, with the controls.

    Example: `seedpo figure ablation sweeps/gamma sweeps/beta --metric truth --out fig5.pdf`
    """
    _draw("ablation", runs, out, names, metrics=metric, best=best, width=width)


@figure_app.command("tradeoff")
def tradeoff_command(
    runs: Runs,
    out: Out,
    metric: Metric = None,
    x: Annotated[str, typer.Option("--x", help="The figure across; the proxy if not given.")] = "",
    width: Width = "page",
    names: Names = "auto",
) -> None:
    """What a run gives up for its proxy: truth and diversity against it. Up and to the right is better.

    Example: `seedpo figure tradeoff runs/base runs/see runs/control --out tradeoff.pdf`
    """
    _draw("tradeoff", runs, out, names, metrics=metric, x=x, width=width)


@figure_app.command("accuracy")
def accuracy_command(
    runs: Runs,
    out: Out,
    metric: Metric = None,
    parts: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Average over N equal parts of the training: few show a trend in noise."),
    ] = None,
    width: Width = "page",
    names: Names = "auto",
) -> None:
    """Share of pairs that the model orders as the labels do: on held-out pairs if there are any.

    Example: `seedpo figure accuracy runs/base runs/see --out fig2.pdf`
    """
    _draw("accuracy", runs, out, names, metrics=metric, parts=parts, width=width)


@figure_app.command("paper")
def paper_command(
    out: Annotated[Path, typer.Option(help="Folder for the figures; the runs go into its subfolder runs.")],
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of each run; the time grows with them.")] = 1,
    long: Annotated[
        bool, typer.Option("--long", help="Ten times as long, in which rewards are hacked to the end.")
    ] = False,
    format: Annotated[str, typer.Option(help="`pdf`, `svg` or `png`.")] = "pdf",
    processes: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Runs trained at the same time; all cores if not given."),
    ] = None,
) -> None:
    """Make Figures 1, 2, 4 and 5 of SEE-DPO's paper on the embedded world, controls included.

    It trains fourteen small runs of one to two minutes of processor time each: 10 to 18 minutes in all on two cores.
    Finished runs are kept, and interrupted ones continue when the command is repeated. What the
    embedded world shows may differ from the paper, whose models and data are others.

    Example: `seedpo figure paper --out figs`
    """
    from seedpo.cli.paper_figures import make_paper_figures

    for path in make_paper_figures(out, seeds=seeds, long=long, format=format, processes=processes):
        say(f"figure: {path}; its numbers: {path.with_suffix('.csv')}")
