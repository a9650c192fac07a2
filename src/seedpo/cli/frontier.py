"""``seedpo frontier``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from seedpo.cli.controls import BestOf, Mixing, Strength, read_controls
from seedpo.cli.shared import quieten_libraries, say, split_names

CHECKPOINTS = "Checkpoints of any trainer"
"""Heading of the options that say what is drawn and scored."""


def frontier_command(
    context: typer.Context,
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUNS...",
            help="Run folders, evaluation folders, score tables, folders of them; or checkpoints to draw from.",
        ),
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
    strength: Strength = None,
    mixing: Mixing = None,
    best_of: BestOf = None,
    model: Annotated[
        str | None,
        typer.Option(help="Base model of the checkpoints, which is their step 0.", rich_help_panel=CHECKPOINTS),
    ] = None,
    rewards: Annotated[
        str, typer.Option(metavar="A,B,...", help="Rewards, the proxy first.", rich_help_panel=CHECKPOINTS)
    ] = "",
    metrics: Annotated[
        str, typer.Option(metavar="C,D,...", help="Metrics, as clip_diversity.", rich_help_panel=CHECKPOINTS)
    ] = "",
    prompts: Annotated[
        str, typer.Option(metavar="SET", help="A set of `seedpo list prompts`, or a file.", rich_help_panel=CHECKPOINTS)
    ] = "general-evaluation",
    num_prompts: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Prompts from its head.", rich_help_panel=CHECKPOINTS)
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Images of each prompt.", rich_help_panel=CHECKPOINTS)] = 4,
    steps: Annotated[int, typer.Option(min=1, help="Denoising steps.", rich_help_panel=CHECKPOINTS)] = 20,
    guidance: Annotated[
        float, typer.Option(min=1.0, help="Guidance scale, 1: none.", rich_help_panel=CHECKPOINTS)
    ] = 5.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the latents.", rich_help_panel=CHECKPOINTS)] = 1234,
    batch_size: Annotated[int, typer.Option(min=1, help="Images drawn at a time.", rich_help_panel=CHECKPOINTS)] = 16,
) -> None:
    """Say whether runs learn, hack their reward or collapse, where to stop them, and which is better at equal proxy.

    Works on runs of any trainer. Write a table (CSV, JSON lines or parquet) with a row for each checkpoint, or for each
    of its prompts or images: `step`, a column for each reward and metric, and where there are several: `run`, `seed`,
    `prompt`. Or name the checkpoints: LoRAs (files or folders), pipelines, folders of them. They are drawn and scored
    first; the step is read from the name.

    What judges must be held out: no reward that was trained on, and best none of its kind. Evaluate the model before
    training (step 0) and at least two checkpoints, on the same prompts and latents.

    --strength, --mixing and --best-of add what costs no training, in grey: drawn from the last checkpoint of each run.
    Run folders are drawn as their own evaluations are.

    Writes frontier.html, frontier.md, frontier.json and a figure (SVG) for each held-out figure and each diversity.
    docs/judging-a-run.md says how to read them.

    Examples:
        seedpo frontier runs/base runs/new --out out/frontier

        seedpo frontier scores.csv --proxy pickscore --held-out hpsv2.1,imagereward --out out/frontier

        seedpo frontier runs/base --strength 0.25,0.5,0.75 --mixing 1,2,4 --best-of 4 --out out/frontier

        seedpo frontier theirs/checkpoint-100 theirs/checkpoint-200 theirs/checkpoint-300 --model models/sd35
        --rewards pickscore,hpsv2.1 --metrics clip_diversity --strength 0.5 --steps 28 --out out/theirs
    """
    from seedpo.cli.checkpoints import Drawn, is_readable, readable_places
    from seedpo.evaluation.settings import Drawing
    from seedpo.reports.frontier.writing import write_frontier

    controls = read_controls(strength, mixing, best_of)
    if controls or not all(is_readable(Path(name)) for name in runs):
        quieten_libraries()
    drawing = Drawing(
        images=images, num_inference_steps=steps, guidance_scale=guidance, seed=seed, batch_size=batch_size
    )
    drawn = Drawn(
        model=model,
        rewards=split_names(rewards),
        metrics=split_names(metrics),
        prompts=prompts,
        num_prompts=num_prompts,
        drawing=drawing,
        controls=controls,
    )
    lines = write_frontier(
        readable_places(runs, out, drawn),
        out,
        proxy=proxy,
        held_out=split_names(held_out),
        diversity=split_names(diversity),
        title=title,
        command=shlex.join(["seedpo", *(context.obj or sys.argv[1:])]),
    )
    for line in lines:
        say(line)
