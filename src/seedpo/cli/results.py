"""Commands that look at what was trained, or hand it on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from seedpo.cli.controls import BestOf, Mixing, Strength, numbers, read_controls
from seedpo.cli.shared import quieten_libraries, say
from seedpo.errors import ConfigError


def sample_command(
    out: Annotated[Path, typer.Option(help="Folder for the images.")],
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", help="A prompt; repeatable.", show_default=False)
    ] = None,
    prompts: Annotated[str | None, typer.Option(help="A prompt set or a file of prompts.")] = None,
    run: Annotated[Path | None, typer.Option(help="Run folder whose trained weights are used.")] = None,
    model: Annotated[str, typer.Option(help="Model, where no run is given.")] = "scenes",
    lora: Annotated[
        str | None, typer.Option(metavar="FILE|FOLDER", help="LoRA of any trainer, added to --model.")
    ] = None,
    step: Annotated[
        str | None, typer.Option(metavar="N[,N...]", help="Step of a checkpoint of the run; its end if not given.")
    ] = None,
    strength: Strength = None,
    mixing: Mixing = None,
    best_of: BestOf = None,
    best_by: Annotated[str | None, typer.Option(metavar="REWARD", help="Reward that picks, with --best-of.")] = None,
    grid: Annotated[
        bool,
        typer.Option(
            "--grid", help="Draw controls x steps as one picture: all checkpoints, strengths 0, 0.5, 1 by default."
        ),
    ] = False,
    negative_prompt: Annotated[str, typer.Option(help="What guidance leads away from.", show_default=False)] = "",
    size: Annotated[
        str | None, typer.Option(metavar="S|HxW", help="Side, or height x width, in pixels; the model's own.")
    ] = None,
    sampler: Annotated[
        str | None, typer.Option(metavar="NAME", help="dpm++, euler, heun, unipc, ...; the model's own if not given.")
    ] = None,
    max_sequence_length: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Tokens of the longest text encoder; the model's usual.")
    ] = None,
    embedded_guidance: Annotated[
        float | None,
        typer.Option(min=1.0, metavar="G", help="Guidance that FLUX.1-dev and FLUX.2-dev take as an input."),
    ] = None,
    images: Annotated[int, typer.Option("--images", min=1, help="Images of each prompt.")] = 4,
    num_inference_steps: Annotated[
        int | None,
        typer.Option("--steps", min=1, help="Denoising steps; those of the run's evaluations, or the model's usual."),
    ] = None,
    guidance_scale: Annotated[
        float | None,
        typer.Option(
            "--guidance", min=1.0, help="Guidance scale, 1: none; that of the run's evaluations, or the model's."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the initial latents.")] = 0,
) -> None:
    """Draw images with a base model, with a trained run, or with a LoRA of any trainer.

    Examples:
        seedpo sample --run runs/spo --prompt "a large red star on a white background" --out images

        seedpo sample --run runs/lora --step 400 --strength 0.8 --negative-prompt "blurry" --size 768x512
        --sampler dpm++ --steps 25 --prompt "a lighthouse" --out images

        seedpo sample --model models/sd35 --lora lora.safetensors --strength 0,1 --grid --prompts p.txt --out out

        seedpo sample --run runs/lora --grid --step 100,200,400 --strength 0,0.5,1 --images 1 --prompts p.txt --out grid

        seedpo sample --run runs/spo --grid --step 400 --strength 0.5,1 --mixing 1,2,4 --best-of 4 --best-by
        scenes-scorer --prompts p.txt --out grid
    """
    steps, strengths = numbers("--step", step, int), numbers("--strength", strength, float)
    powers, counts = numbers("--mixing", mixing, float), numbers("--best-of", best_of, int)
    if not grid and any(len(values) > 1 for values in (steps, strengths, powers, counts)):
        raise ConfigError("several values of --step, --strength, --mixing or --best-of make a grid; add --grid")
    quieten_libraries()
    from seedpo.evaluation.controls import SamplingControl
    from seedpo.evaluation.sample import ROWS, SampleRequest, sample_grid, sample_images

    request = SampleRequest(
        prompt=prompt or [],
        prompts=prompts,
        run=run,
        model=model,
        lora=lora,
        images=images,
        num_inference_steps=num_inference_steps,
        guidance_scale=guidance_scale,
        negative_prompt=negative_prompt,
        size=_size(size),
        sampler=sampler,
        max_sequence_length=max_sequence_length,
        embedded_guidance=embedded_guidance,
        seed=seed,
        best_by=best_by,
    )
    if grid:
        controls = read_controls(strength, mixing, best_of) or ROWS
        cells = sample_grid(request, out, steps=steps, controls=controls)
        say(f"{len(cells)} cells on {out / 'grid.png'}; {out / 'grid.csv'} says what each of them is")
        return
    control = SamplingControl(
        strength=next(iter(strengths), 1.0), mixing=next(iter(powers), None), best_of=next(iter(counts), 1)
    )
    files = sample_images(request, out, step=next(iter(steps), None), control=control)
    say(f"{len(files)} images in {out}; all of them on {out / 'sheet.png'}")


def _size(text: str | None) -> tuple[int, int] | None:
    """Height and width of ``S`` or ``HxW``.

    Raises:
        ConfigError: if it is neither.
    """
    if text is None:
        return None
    match = re.fullmatch(r"([1-9]\d{0,5})(?:[xX]([1-9]\d{0,5}))?", text)
    if match is None:
        raise ConfigError(f"--size {text}: write a side, as 512, or height x width in pixels, as 768x512")
    return int(match[1]), int(match[2] or match[1])


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
    say(f"report: {path.resolve()}")


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
    without safety checker; for runs of the whole network too.

    Examples:
        seedpo export runs/spo --format kohya --half --out spo.safetensors

        seedpo export runs/spo --format pipeline --step 400 --out models/spo
    """
    if format == "pipeline":
        quieten_libraries()
    from seedpo.publishing.export import export_run

    say(f"written: {export_run(run, out, format=format, step=step, half=half)}")


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
    say(f"card: {card}")


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
    say(f"uploaded: {address}")
