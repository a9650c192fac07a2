"""``seedpo frontier``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from seedpo.cli.shared import say, split_names


def frontier_command(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUNS...", help="Run folders, folders of them, evaluation folders, score tables."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the page, its numbers and figures.")],
    proxy: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The reward that was optimised; of run folders the first of evaluation.rewards, else the first "
            "reward.",
        ),
    ] = None,
    held_out: Annotated[
        str,
        typer.Option(
            metavar="A,B,...",
            help="Figures that judge; of run folders those of the alarms, else all other rewards, and truth.",
        ),
    ] = "",
    diversity: Annotated[
        str,
        typer.Option(metavar="C,D,...", help="Diversities; if not given, all figures that are known to be one."),
    ] = "",
    title: Annotated[str, typer.Option(help="Title of the page.")] = "Learning or hacking?",
) -> None:
    """Say whether runs learn, hack their reward or collapse, where to stop them, and which is better at equal proxy.

    Works on runs of any trainer: write a table (CSV, JSON lines or parquet) with a row for each checkpoint, or for each
    of its prompts or images.

    Columns: `step`, a column for each reward and metric, and where there are several: `run`, `seed`, `prompt`. Rows
    with `strength`, `mixing` or `best_of` are free baselines.

    The first reward that you name is the proxy; what judges must be held out: no reward that was trained on, and best
    none of its kind. Evaluate the model before training (step 0) and at least two checkpoints, on the same prompts and
    latents.

    Writes frontier.html, frontier.md, frontier.json and a figure (SVG) for each held-out figure and each diversity.

    Examples:
        seedpo frontier runs/base runs/new --out out/frontier

        seedpo frontier scores.csv --proxy pickscore --held-out hpsv2.1,imagereward --out out/frontier

        seedpo frontier sweeps/beta baselines.csv --held-out truth --diversity pairwise_diversity --out out/frontier
    """
    from seedpo.reports.frontier.writing import write_frontier

    options = {"--proxy": proxy, "--held-out": held_out, "--diversity": diversity}
    given = [part for option, value in options.items() if value for part in (option, value)]
    lines = write_frontier(
        runs,
        out,
        proxy=proxy,
        held_out=split_names(held_out),
        diversity=split_names(diversity),
        title=title,
        command=shlex.join(["seedpo", "frontier", *map(str, runs), *given, "--out", str(out)]),
    )
    for line in lines:
        say(line)
