"""``seedpo evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seedpo.cli.controls import BestOf, Mixing, Strength, read_controls
from seedpo.cli.shared import RewardFile, quieten_libraries, say, split_names
from seedpo.errors import ConfigError


def evaluate_command(
    context: typer.Context,
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]TARGET...",
            help="RUN, RUN@base, RUN@STEP, a pipeline (folder, owner/name, `scenes`), or a LoRA with --model.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the evaluation; the same command continues in it.")],
    prompts: Annotated[
        str, typer.Option(metavar="SET", help="A set of `seedpo list prompts`, NAME@FOLDER, or a file.")
    ] = "scenes-evaluation",
    rewards: Annotated[
        str, typer.Option(metavar="A,B,...", help="Rewards, with commas between them; see `seedpo list rewards`.")
    ] = "",
    metrics: Annotated[
        str, typer.Option(metavar="C,D,...", help="Metrics; see `seedpo list metrics` and `seedpo list set-metrics`.")
    ] = "",
    num_prompts: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Prompts from the head of the set; all if not given.")
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Images of each prompt; diversity needs at least 2.")] = 4,
    steps: Annotated[int, typer.Option(min=1, help="Denoising steps of each model's own sampler, without noise.")] = 20,
    guidance: Annotated[float, typer.Option(min=1.0, help="Guidance scale, 1: none.")] = 5.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the initial latents and of the resampling.")] = 1234,
    batch_size: Annotated[int, typer.Option(min=1, help="Images drawn or scored at a time.")] = 16,
    prompts_seed: Annotated[int, typer.Option(min=0, help="Seed of sets that are drawn: study-300.")] = 0,
    strength: Strength = None,
    mixing: Mixing = None,
    best_of: BestOf = None,
    best_by: Annotated[
        str | None, typer.Option(metavar="REWARD", help="Reward that picks, with --best-of; the first of --rewards.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Base model of LoRA files.")] = None,
    vae: Annotated[str | None, typer.Option(help="Another autoencoder, for targets that are not runs.")] = None,
    resolution: Annotated[
        int | None,
        typer.Option(
            min=8, help="Height and width of images of targets that are not runs; the model's own if not given."
        ),
    ] = None,
    max_sequence_length: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Tokens of the longest text encoder, for targets that are not runs."),
    ] = None,
    embedded_guidance: Annotated[
        float | None,
        typer.Option(
            min=1.0,
            metavar="G",
            help="Guidance that FLUX.1-dev and FLUX.2-dev take as an input; targets that are not runs.",
        ),
    ] = None,
    mixed_precision: Annotated[
        str | None, typer.Option(help="no, fp16 or bf16 for all targets; a run's own if not given.")
    ] = None,
    reward_precision: Annotated[str, typer.Option(help="Precision of rewards: no (float32), fp16 or bf16.")] = "no",
    config: RewardFile = None,
    tie_width: Annotated[
        str | None,
        typer.Option(
            metavar="W|NAME=W,...",
            help="Scores no further apart are ties; a tenth of their spread.",
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(help="Metrics of all images (precision_..., fd_...): folder of images, or a target's label."),
    ] = None,
    over_training: Annotated[
        bool,
        typer.Option("--over-training", help="Score the images that runs wrote at their evaluations; loads no model."),
    ] = False,
    processes: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Processes on this machine that draw, one for each GPU.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """Compare models: the same prompts and latents for all, scores with 95 % intervals, win rates.

    Writes images, scores.parquet (one row for each image), metrics.parquet (one for each prompt) and summary.json, .csv
    and .md. Finished images and scores are kept. Run the same command again after an interruption, or with more targets
    or rewards.

    Examples:
        seedpo evaluate base=scenes runs/spo runs/see-spo --rewards scenes-scorer,scenes-truth --out out/eval

        seedpo evaluate base=runs/dpo@base runs/dpo --prompts pickapic-validation --rewards pickscore,hpsv2.1
        --metrics pairwise_diversity --processes 8 --out out/eval

        seedpo evaluate my.safetensors --model stable-diffusion-v1-5/stable-diffusion-v1-5 --prompts prompts.txt
        --rewards clipscore --out out/lora

        seedpo evaluate base=models/sd35 theirs=checkpoint-500/lora --model models/sd35 --steps 28 --guidance 4.5
        --prompts parti --rewards pickscore --out out/sd35

        seedpo evaluate runs/spo --over-training --rewards pickscore,aesthetic --out out/curves

        seedpo evaluate runs/spo@base runs/spo --strength 0.5 --mixing 1,2,4 --best-of 4 --rewards scenes-scorer
        --out out/free

    --strength, --mixing and --best-of take values with commas between them. Each value adds the model under it, beside
    the model as it is: what can be had without training.
    """
    from seedpo.cli.launch import run_in_processes

    if over_training:
        _refuse_drawing(None if processes == 1 else processes, strength, mixing, best_of, best_by)
    run_in_processes(context.obj, processes=processes)
    quieten_libraries()
    from seedpo.evaluation.evaluate import Measures, evaluate, evaluate_over_training, tie_widths
    from seedpo.evaluation.score import Scoring, read_definitions
    from seedpo.evaluation.settings import Drawing
    from seedpo.evaluation.summary import Summary, text
    from seedpo.evaluation.targets import ModelOptions
    from seedpo.processes import is_one_of_several
    from seedpo.settings import as_precision
    from seedpo.training.accelerator import build_accelerator

    measures = Measures(
        rewards=split_names(rewards),
        metrics=split_names(metrics),
        scoring=Scoring(
            definitions=read_definitions(config),
            precision=as_precision(reward_precision),
            batch_size=batch_size,
            progress=not quiet,
        ),
        tie_widths=tie_widths(tie_width),
        reference=reference,
    )
    if over_training:
        if not measures.rewards and not measures.metrics:
            raise ConfigError("--over-training only measures; give --rewards or --metrics")
        summary: Summary | None = evaluate_over_training(targets, out, measures=measures)
    else:
        drawing = Drawing(
            images=images, num_inference_steps=steps, guidance_scale=guidance, seed=seed, batch_size=batch_size
        )
        options = ModelOptions(
            model=model,
            vae=vae,
            resolution=resolution,
            max_sequence_length=max_sequence_length,
            embedded_guidance=embedded_guidance,
            mixed_precision=mixed_precision,
        )
        summary = evaluate(
            targets,
            out,
            prompts=prompts,
            num_prompts=num_prompts,
            prompts_seed=prompts_seed,
            drawing=drawing,
            measures=measures,
            options=options,
            controls=read_controls(strength, mixing, best_of),
            best_by=best_by,
            accelerator=build_accelerator("no") if is_one_of_several() else None,
        )
    if summary is not None and summary.figures:
        say(text(summary))
    if summary is not None:
        say(f"evaluation: {out}")


def _refuse_drawing(*values: object) -> None:
    """Refuses options of drawing where stored images are scored."""
    options = ("--processes", "--strength", "--mixing", "--best-of", "--best-by")
    for option, value in zip(options, values, strict=True):
        if value is not None:
            raise ConfigError(f"--over-training draws no images; leave {option} out")
