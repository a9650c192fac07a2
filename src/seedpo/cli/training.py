"""Commands that train, or estimate what training would cost."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from seedpo.cli.shared import (
    CAN_START,
    Changes,
    DryRun,
    PlanAsJson,
    PlannedGpu,
    PlannedGpus,
    PlannedUtilisation,
    Processes,
    Quiet,
    Resume,
    is_first_process,
    quieten_libraries,
    read_changes,
    read_resume,
    say,
)


def train_command(
    context: typer.Context,
    method: Annotated[
        str, typer.Argument(metavar="METHOD|RECIPE.yaml", help="One of `seedpo list methods`, or a recipe.")
    ],
    out: Annotated[Path, typer.Option(help="Run folder to write; must be new unless a run is resumed.")],
    changes: Changes = None,
    resume: Resume = None,
    feedback: Annotated[
        Path | None,
        typer.Option(
            metavar="STUDY", help="People judge the images that the policy draws, in this study; made if there is none."
        ),
    ] = None,
    quiet: Quiet = False,
    processes: Processes = None,
    shard: Annotated[
        bool,
        typer.Option("--shard", help="Each process keeps its part of gradients and optimiser state (FSDP2)."),
    ] = False,
    dry_run: DryRun = False,
    push_to_hub: Annotated[
        str | None,
        typer.Option(metavar="OWNER/NAME", help="At the end, upload the results to the hub; see `seedpo push`."),
    ] = None,
) -> None:
    """Train a policy with a preference method.

    Examples:
        seedpo train spo --out runs/spo --set gamma=1 --set max_steps=100

        seedpo train see-spo-sd15 --out runs/see-spo --set seed=1

        seedpo train spo --out runs/spo --set gamma=1 --set max_steps=200 --resume latest

        seedpo train my-lora.yaml --out runs/mine --dry-run

        seedpo train diffusion-dpo --out runs/dpo --processes 8

        seedpo train d3po --feedback studies/mine --out runs/mine --set trajectories.images_per_prompt=7

    With `--feedback` the run stops after each round of images until raters have voted; `seedpo study serve
    studies/mine` shows them the images meanwhile, and Ctrl-C and `--resume latest` lose no vote.

    `batch_size` counts pairs per process, or likes, groups or steps where a method reads those. `torchrun
    --nproc_per_node 8 -m seedpo train ...` and `accelerate launch -m seedpo train ...` start the same run, on several
    machines too.
    """
    from seedpo.cli.launch import run_in_processes
    from seedpo.settings import merge

    resumed = read_resume(resume)
    if push_to_hub is not None:
        from seedpo.models.names import repository_name

        repository_name(push_to_hub)
    overrides = read_changes(changes)
    if feedback is not None:
        overrides = merge(overrides, {"feedback": {"study": str(feedback)}})
    run_in_processes(context.obj, processes=processes, shard=shard)
    from seedpo.training.configuration import resolve_config

    config = resolve_config(method, overrides)  # refused before the libraries are imported
    quieten_libraries()
    from seedpo.training.run import rehearse, train

    if dry_run:
        rehearse(config, progress=not quiet)
        if is_first_process():
            say(CAN_START)
        return
    last = train(config, out, resume=resumed, progress=not quiet)
    if not is_first_process():
        return
    shown = {key: last[key] for key in ("step", "loss", "rewards/margins", "rewards/accuracies") if key in last}
    from seedpo.evaluation.gains import compare_with_base
    from seedpo.run_folders import RunFolder

    say("finished: " + ", ".join(f"{key} {value:.4g}" for key, value in shown.items()))
    if (comparison := compare_with_base(RunFolder.open(out))) is not None:
        for sentence in comparison.sentences:
            say(sentence)
    say(f"run folder: {out}")
    say("next:")
    for command, why in next_commands(out):
        say(f"  {command:{NEXT_WIDTH}} # {why}")
    if push_to_hub is not None:
        from seedpo.publishing.push import push_run

        say(f"uploaded: {push_run(out, push_to_hub)}")


NEXT_WIDTH = 60
"""Columns of a command, before what it is for."""


def next_commands(out: Path) -> list[tuple[str, str]]:
    """What people do with a finished run: a command and what it is for."""
    return [
        (f"seedpo report {out} --out {out}/report.html", "pictures before and after, verdict, curves"),
        (f"seedpo sample --run {out} --prompt TEXT --grid --out {out}-grid", "strength x step, same latents"),
        (f"seedpo export {out} --format kohya --out {out.name}.safetensors", "for web UIs"),
    ]


def plan_command(
    method: Annotated[
        str, typer.Argument(metavar="METHOD|RECIPE.yaml", help="One of `seedpo list methods`, or a recipe.")
    ],
    gpu: PlannedGpu,
    gpus: PlannedGpus = 1,
    changes: Changes = None,
    utilisation: PlannedUtilisation = 0.35,
    kept: Annotated[float, typer.Option(help="Online methods: share of what a roll-out gives that is kept.")] = 1.0,
    pairs: Annotated[
        int | None, typer.Option(metavar="N", help="Offline: pairs or likes in the set, where they are met again.")
    ] = None,
    cached: Annotated[
        bool, typer.Option("--cached", help="Offline: the cache in `cache.folder` is filled already.")
    ] = False,
    as_json: PlanAsJson = False,
) -> None:
    """Estimate what a run would cost before anything is loaded: forward passes, FLOPs, memory, hours.

    Only configuration files of the model are read (those of SD1.5, SD2.1 and SDXL ship with seedpo), no weights and no
    data. FLOPs are counted on networks without weights and are those of the run; memory is an estimate; hours are FLOPs
    over the assumed share of the peak. Warns where the memory does not suffice and says what to change.

    Examples:
        seedpo plan spo-sdxl --gpu H100 --gpus 8

        seedpo plan diffusion-dpo --gpu RTX-4090 --set model=models/my-sd15 --set mixed_precision=bf16 --pairs 20000
    """
    from seedpo.planning.gpus import find_gpu
    from seedpo.training.configuration import resolve_config

    kind = find_gpu(gpu)
    config = resolve_config(method, read_changes(changes), bfloat16=kind.bfloat16)  # refused before the imports
    quieten_libraries()
    from seedpo.planning.command import plan_text
    from seedpo.planning.dry_run import Guesses
    from seedpo.planning.plan import plan_run

    guesses = Guesses(kept=kept, pairs=pairs, cached=cached)
    make = partial(plan_run, config, gpu=kind, gpus=gpus, utilisation=utilisation, guesses=guesses)
    say(plan_text(make, as_json=as_json))


def demo_command(
    out: Annotated[Path, typer.Option(help="Folder for the runs and the report.")] = Path("out/demo"),
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of each run.")] = 1,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Other runs: `spo`, `d3po`, `hacking-base`, ...; repeatable.", show_default=False),
    ] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Runs trained at the same time; as many as there are cores if not given.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Train again what is finished already.")] = False,
) -> None:
    """Train on the embedded models with and without the entropy term, and write the report.

    `hacking`: SPO on the size of the JPEG file, which destroys the images. `learning`: Diffusion-DPO on pairs, which
    improves them. `flow-learning`: the same on the flow-matching twin. Each as base method, with the entropy term, and
    as base method at its temperature. Finished runs are kept; an interrupted run continues.
    """
    from seedpo.cli.demo import run_demo

    path = run_demo(out, seeds=seeds, only=only or [], processes=processes, fresh=fresh)
    say(f"report: {path.resolve()}")
