"""The command line. Heavy imports wait until a command needs them, so that ``--help`` answers at once."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from seedpo.errors import ConfigError, SeedpoError

app = typer.Typer(
    name="seedpo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help=(
        "Align text-to-image diffusion models with human preferences: Diffusion-DPO, D3PO and SPO, "
        "each with a gamma-weighted self-entropy term (SEE-DPO).\n\n"
        "Start with `seedpo demo`, which trains on an embedded model and writes a report."
    ),
)

Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one key of the run; dotted for nested ones. Repeatable."),
]


@app.command("train")
def train_command(
    method: Annotated[
        str, typer.Argument(metavar="METHOD|RECIPE.yaml", help="`diffusion-dpo`, `d3po`, `spo`, or a recipe file.")
    ],
    out: Annotated[Path, typer.Option(help="Run folder to write; must be new unless a run is resumed.")],
    changes: Changes = None,
    resume: Annotated[
        str | None, typer.Option(metavar="latest", help="Go on from the last checkpoint in --out.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """Train a policy with a preference method.

    Examples:
        seedpo train spo --out runs/spo --set gamma=1 --set max_steps=100

        seedpo train recipes/see-spo-scenes.yaml --out runs/see-spo --set seed=1

        seedpo train spo --out runs/spo --set gamma=1 --set max_steps=200 --resume latest

    Several processes: `torchrun --nproc_per_node 2 -m seedpo train ...`, or `accelerate launch` with GPUs.
    """
    from seedpo.config import nested, parse_override

    if resume not in (None, "latest"):
        raise ConfigError(f"--resume {resume} is unknown; write --resume latest")
    overrides = nested([parse_override(change) for change in changes or []])
    _quieten_libraries()
    from seedpo.runs import resolve_config, train

    last = train(resolve_config(method, overrides), out, resume="latest" if resume else None, progress=not quiet)
    shown = {key: last[key] for key in ("step", "loss", "rewards/margins", "rewards/accuracies") if key in last}
    typer.echo("finished: " + ", ".join(f"{key} {value:.4g}" for key, value in shown.items()))
    typer.echo(f"run folder: {out}")


@app.command("sample")
def sample_command(
    out: Annotated[Path, typer.Option(help="Folder for the images.")],
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", help="A prompt; repeatable.", show_default=False)
    ] = None,
    prompts: Annotated[str | None, typer.Option(help="A prompt set or a text file, one prompt per line.")] = None,
    run: Annotated[Path | None, typer.Option(help="Run folder whose trained weights are used.")] = None,
    model: Annotated[str, typer.Option(help="Model, where no run is given.")] = "scenes",
    images_per_prompt: Annotated[int, typer.Option("--images", min=1, help="Images of each prompt.")] = 4,
    num_inference_steps: Annotated[int, typer.Option("--steps", min=1, help="Denoising steps.")] = 20,
    guidance_scale: Annotated[float, typer.Option("--guidance", min=1.0, help="Guidance scale.")] = 3.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the initial latents.")] = 0,
) -> None:
    """Draw images with the base model or with a trained run.

    Example: `seedpo sample --run runs/spo --prompt "a large red star on a white background" --out images`
    """
    _quieten_libraries()
    from seedpo.sample import sample_images

    files = sample_images(
        prompt=prompt or [],
        prompts=prompts,
        run=run,
        model=model,
        images_per_prompt=images_per_prompt,
        num_inference_steps=num_inference_steps,
        guidance_scale=guidance_scale,
        seed=seed,
        out=out,
    )
    typer.echo(f"{len(files)} images in {out}; all of them on {out / 'sheet.png'}")


@app.command("report")
def report_command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders.")],
    out: Annotated[Path, typer.Option(help="File to write: .html, or .md for the tables alone.")],
    title: Annotated[str | None, typer.Option(help="Title of the page.")] = None,
) -> None:
    """Turn run folders into one self-contained HTML page, or into Markdown tables."""
    from seedpo.reports import write_report

    path = write_report(runs, out, title=title) if title else write_report(runs, out)
    typer.echo(f"report: {path.resolve()}")


@app.command("demo")
def demo_command(
    out: Annotated[Path, typer.Option(help="Folder for the runs and the report.")] = Path("out/demo"),
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of each run.")] = 1,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Runs trained at the same time; as many as there are cores if not given.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Train again what is finished already.")] = False,
) -> None:
    """Train all methods with and without the entropy term on the embedded model, and write the report.

    Runs that are finished already are kept; a run that was interrupted goes on.
    """
    from seedpo.demo import run_demo

    path = run_demo(out, seeds=seeds, processes=processes, fresh=fresh)
    typer.echo(f"report: {path.resolve()}")


@app.command("list")
def list_command(
    kind: Annotated[
        str | None, typer.Argument(help="methods, models, data, prompts, rewards or metrics; all if not given.")
    ] = None,
) -> None:
    """List the names that can be written in configurations and commands."""
    from seedpo.catalogue import KINDS

    if kind is not None and kind not in KINDS:
        raise ConfigError(f"unknown kind {kind!r}; there are: {', '.join(KINDS)}")
    for word in [kind] if kind else KINDS:
        typer.echo(f"{word}:")
        for entry in KINDS[word].entries:
            typer.echo(f"  {entry.name:20} {entry.summary}")


scenes_app = typer.Typer(no_args_is_help=True, help="The embedded world: build its weights, measure them, write pairs.")
app.add_typer(scenes_app, name="scenes")


@scenes_app.command("build")
def scenes_build_command(
    out: Annotated[Path, typer.Option(help="Folder for the weights.")],
    part: Annotated[str, typer.Option(help="autoencoder, practice, denoiser, scorer or all.")] = "all",
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything.")] = 0,
) -> None:
    """Train the embedded model and its scorer from a seed: about an hour on two CPU cores."""
    _quieten_libraries()
    from seedpo.embedded_build import build

    build(out, part=part, seed=seed)
    typer.echo(f"weights: {out}")


@scenes_app.command("card")
def scenes_card_command(
    assets: Annotated[Path | None, typer.Option(help="Folder of the weights; the shipped ones if not given.")] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file to write as well.")] = None,
) -> None:
    """Measure the embedded model and scorer: the figures of the model card."""
    _quieten_libraries()
    from seedpo.embedded_card import measure

    typer.echo(measure(assets, out))


@scenes_app.command("pairs")
def scenes_pairs_command(
    out: Annotated[Path, typer.Option(help="Parquet file to write.")],
    count: Annotated[int, typer.Option(min=1, help="Number of pairs.")] = 3000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of drawings and labels.")] = 0,
) -> None:
    """Write the embedded preference set as a parquet file with Pick-a-Pic's columns."""
    import pyarrow.parquet as pq

    from seedpo.scenes.pairs import preference_table

    out.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(preference_table(count=count, seed=seed), out)
    typer.echo(f"{count} pairs: {out}")


def _quieten_libraries() -> None:
    """Keeps the libraries' own progress bars and notices off the screen."""
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()


def main(arguments: list[str] | None = None) -> Any:
    """Runs the command line; what a user can mend is printed as one line, with exit status 1."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for noisy in ("httpx", "accelerate", "matplotlib"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        app(arguments)
    except SeedpoError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)  # noqa: T201
        raise SystemExit(1) from None
