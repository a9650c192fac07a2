"""Commands that look at what was trained, or hand it on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seedpo.cli.shared import quieten_libraries


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
    quieten_libraries()
    from seedpo.evaluation.sample import sample_images

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


def report_command(
    folders: Annotated[
        list[Path], typer.Argument(metavar="FOLDER...", help="Folders of runs, sweeps and evaluations, in any mixture.")
    ],
    out: Annotated[Path, typer.Option(help="File to write; for a folder, report.html (or report.md) in it.")],
    title: Annotated[str, typer.Option(help="Title of the page.")] = "Preference tuning report",
    format: Annotated[
        str | None,
        typer.Option(help="`html`: the page, or `markdown`: verdicts and tables; else by the file's name."),
    ] = None,
) -> None:
    """Turn runs, sweeps and evaluations into one self-contained HTML page, or into Markdown.

    A folder of runs (a sweep's, for example) stands for all runs in it. The page needs no network and no other file.

    Examples:
        seedpo report runs/base runs/see runs/control --out report.html

        seedpo report sweeps/gamma evaluations/parti --out report.html --title "gamma on PartiPrompts"

        seedpo report runs/see --format markdown --out results.md
    """
    from seedpo.reports import write_report

    path = write_report(folders, out, title=title, format=format)
    typer.echo(f"report: {path.resolve()}")


def export_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    out: Annotated[Path, typer.Option(help="What to write: a .safetensors file, or a folder for `pipeline`.")],
    format: Annotated[str, typer.Option(help="`diffusers-lora`, `kohya` or `pipeline`.")] = "diffusers-lora",
    step: Annotated[
        int | None, typer.Option(min=0, help="Step of a checkpoint; the end of the run if not given.")
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Store float16: half the size.")] = False,
) -> None:
    """Write a run's trained weights for other programs.

    `diffusers-lora`: the adapter for `pipe.load_lora_weights(...)`. `kohya`: the adapter for web UIs (AUTOMATIC1111,
    ComfyUI and the like). `pipeline`: base model and training in one folder for `DiffusionPipeline.from_pretrained`,
    without safety checker; for runs of the whole UNet too.

    Examples:
        seedpo export runs/spo --format kohya --half --out spo.safetensors

        seedpo export runs/spo --format pipeline --step 400 --out models/spo
    """
    quieten_libraries()
    from seedpo.publishing.export import export_run

    typer.echo(f"written: {export_run(run, out, format=format, step=step, half=half)}")


License = Annotated[
    str | None, typer.Option(metavar="ID", help="Licence for the card, as the hub names it: apache-2.0, openrail++.")
]


BaseModel = Annotated[
    str | None,
    typer.Option(metavar="OWNER/NAME", help="Base model for the card, if the run's own is not a name on the hub."),
]


def card_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    repository: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="Where the weights will lie, for the lines that load them.")
    ] = None,
    license: License = None,
    base_model: BaseModel = None,
) -> None:
    """Write the model card of a run, README.md: base model, method, settings, measurements, images before and after.

    An existing README.md is written anew. Example: `seedpo card runs/spo --license openrail++`
    """
    from seedpo.publishing.card import write_card

    card = write_card(run, repository=repository, license=license, base_model=base_model)
    typer.echo(f"card: {card}")


def push_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder of a finished run.")],
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Repository; made if it does not exist.")],
    public: Annotated[bool, typer.Option("--public", help="Let everybody see a repository that is made.")] = False,
    license: License = None,
    base_model: BaseModel = None,
) -> None:
    """Upload a run's results to the Hugging Face hub, into a private repository unless --public is given.

    Trained weights, README.md (written first if there is none, see `seedpo card`), grid.png and config.yaml, as they
    are in the run folder; config.yaml names the files that you trained on. Log in once with `hf auth login`.

    Example: `seedpo push runs/spo me/sd15-spo --license openrail++`
    """
    from seedpo.publishing.push import push_run

    address = push_run(run, repository, private=not public, license=license, base_model=base_model)
    typer.echo(f"uploaded: {address}")
