"""``seedpo reward``."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from seedpo.cli.shared import (
    CAN_START,
    Changes,
    Device,
    DryRun,
    Host,
    NetworkPrecision,
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
    split_names,
)
from seedpo.errors import ConfigError

reward_app = typer.Typer(
    no_args_is_help=True,
    help="Train a preference model on labelled pairs, measure one, and serve rewards to other machines.",
)

Recipe = Annotated[Path | None, typer.Argument(metavar="[RECIPE.yaml]", help="Recipe; else the embedded scorer.")]


@reward_app.command("train")
def reward_train_command(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Run folder to write; must be new unless a run is resumed.")],
    recipe: Recipe = None,
    changes: Changes = None,
    resume: Resume = None,
    quiet: Quiet = False,
    processes: Processes = None,
    dry_run: DryRun = False,
) -> None:
    """Train a preference model: step-aware as SPO's, or plain as PickScore.

    With a diffusion model it learns from previews: noise is added to both images of a pair, the model predicts the
    clean images, and the preference model is given the time step. With `model=none` it learns from the images as they
    are.

    Examples:
        seedpo reward train --out runs/scorer

        seedpo reward train --out runs/scorer --set data=my-pairs.parquet --set start=models/my-clip
        --set model=models/my-sd15 --set pairs.resolution=512 --set cache.folder=cache

        seedpo reward train --out runs/plain --set model=none

        seedpo reward train spm-sd15 --out runs/spm --processes 4

    `seedpo reward plan` says beforehand what a run would cost.

    The result, OUT/model, is a reward: `--set reward=OUT/model` trains with it, `seedpo score --reward OUT/model`
    scores images with it. `batch_size` counts pairs per process.
    """
    from seedpo.cli.launch import run_in_processes

    resumed = read_resume(resume)
    overrides = read_changes(changes)
    run_in_processes(context.obj, processes=processes)
    from seedpo.training.configuration import resolve_reward_config

    config = resolve_reward_config(recipe, overrides)  # refused before the libraries are imported
    quieten_libraries()
    from seedpo.training.reward_run import last_evaluation, rehearse_reward, train_reward

    if dry_run:
        rehearse_reward(config, progress=not quiet)
        if is_first_process():
            say(CAN_START)
        return
    train_reward(config, out, resume=resumed, progress=not quiet)
    if not is_first_process():
        return
    say(accuracy_table(last_evaluation(out)))
    say(f"preference model: {out / config.weights_folder}")
    method = "spo" if config.model is not None else "d3po"
    say(f"train with it: seedpo train {method} --set reward={out / config.weights_folder} --out ...")
    say(f"score with it: seedpo score IMAGES --prompts FILE --reward {out / config.weights_folder} --out ...")


@reward_app.command("plan")
def reward_plan_command(
    gpu: PlannedGpu,
    recipe: Recipe = None,
    gpus: PlannedGpus = 1,
    changes: Changes = None,
    utilisation: PlannedUtilisation = 0.35,
    pairs: Annotated[
        int | None, typer.Option(metavar="N", help="Pairs in the set, where they are met again or kept out.")
    ] = None,
    cached: Annotated[bool, typer.Option("--cached", help="The cache in `cache.folder` is filled already.")] = False,
    as_json: PlanAsJson = False,
) -> None:
    """Estimate what the training of a preference model would cost: FLOPs, memory, hours; see `seedpo plan`.

    Only configuration files are read: no weights, no pairs.

    Examples:
        seedpo reward plan spm-sd15 --gpu A100-80 --gpus 4 --set gradient_accumulation_steps=1

        seedpo reward plan pickscore --gpu RTX-4090 --set gradient_checkpointing=true
    """
    from seedpo.planning.gpus import find_gpu
    from seedpo.training.configuration import resolve_reward_config

    kind = find_gpu(gpu)
    config = resolve_reward_config(recipe, read_changes(changes), bfloat16=kind.bfloat16)
    quieten_libraries()
    from seedpo.planning.command import plan_text
    from seedpo.planning.dry_run import Guesses
    from seedpo.planning.reward_plan import plan_reward_run

    guesses = Guesses(pairs=pairs, cached=cached)
    make = partial(plan_reward_run, config, gpu=kind, gpus=gpus, utilisation=utilisation, guesses=guesses)
    say(plan_text(make, as_json=as_json))


@reward_app.command("measure")
def reward_measure_command(
    recipe: Recipe = None,
    changes: Changes = None,
    quiet: Quiet = False,
) -> None:
    """Measure the preference model `start` on held-out pairs, at each time step, without training it.

    A plain model is shown the previews as if they were finished images.

    Examples:
        seedpo reward measure --set start=runs/scorer/model

        seedpo reward measure --set start=runs/scorer/model --set model=models/my-sd15
        --set held_out=my-pairs.parquet
    """
    from seedpo.training.configuration import resolve_reward_config

    config = resolve_reward_config(recipe, read_changes(changes))
    quieten_libraries()
    from seedpo.training.reward_run import measure_reward

    say(accuracy_table(measure_reward(config, progress=not quiet)))


@reward_app.command("serve")
def reward_serve_command(
    rewards: Annotated[str, typer.Argument(metavar="REWARD[,REWARD]", help="Rewards, written as a recipe's `reward`.")],
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Recipe, run or other YAML file whose `rewards` may be named."),
    ] = None,
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: a free one.")] = 8077,
    names: Annotated[
        list[str] | None,
        typer.Option("--name", metavar="NAME", help="Name under which clients reach the server. Repeatable."),
    ] = None,
    token_env: Annotated[
        str | None,
        typer.Option(
            metavar="VARIABLE",
            help="Environment variable with the token that clients must send; default: none on this machine alone, "
            "else a random one, which is printed.",
        ),
    ] = None,
    max_images: Annotated[int, typer.Option(min=1, max=4096, help="Images of a request at most.")] = 64,
    max_megabytes: Annotated[int, typer.Option(min=1, max=2048, help="Size of a request at most.")] = 128,
    device: Device = None,
    precision: NetworkPrecision = "no",
) -> None:
    """Serve rewards over HTTP to training runs, evaluations and `seedpo score`, here or on other machines.

    So a large reward has a GPU of its own, several runs share one, and a reward with other requirements has an
    environment of its own. Clients name the address and the reward, `http://HOST:PORT/REWARD`, wherever a reward is
    named. The images of a request are scored in one batch; requests are scored one after the other.

    Without --host only this machine reaches the server. For others, name the token's variable with --token-env, and
    on their side with the key `key_env`; put a server with HTTPS in front on networks that you do not trust.

    Examples:
        seedpo reward serve pickscore

        seedpo reward serve pickscore,hpsv2.1 --device cuda:1 --precision bf16

        seedpo reward serve mix --config my-recipe.yaml --port 9000

        REWARD_TOKEN=$(openssl rand -hex 24) seedpo reward serve pickscore --host 0.0.0.0 --token-env REWARD_TOKEN

        seedpo train spo --set reward=http://127.0.0.1:8077/pickscore --out runs/mine
    """
    missing = [name for name in ("h11", "starlette", "uvicorn") if not importlib.util.find_spec(name)]
    if missing:
        raise ConfigError(f"seedpo reward serve needs {', '.join(missing)}: pip install 'seedpo[remote]'")
    served = split_names(rewards)
    if not served:
        raise ConfigError("name a reward; `seedpo list rewards` shows them")
    token = os.environ.get(token_env, "") if token_env is not None else None
    if token == "":
        raise ConfigError(f"--token-env {token_env}: this environment variable is not set; set it first")
    quieten_libraries("transformers")
    from seedpo.cli.scoring import checked_device
    from seedpo.evaluation.score import read_definitions
    from seedpo.rewards.remote.offers import Limits, build_offers
    from seedpo.rewards.remote.serving import check_serving, serve
    from seedpo.settings import as_precision

    check_serving(token, names or ())
    offers = build_offers(
        served,
        definitions=read_definitions(config),
        device=checked_device(device),
        precision=as_precision(precision),
    )
    serve(
        offers,
        host=host,
        port=port,
        token=token,
        names=tuple(names or ()),
        limits=Limits(images=max_images, megabytes=max_megabytes),
        say=say,
    )


def accuracy_table(figures: Mapping[str, float]) -> str:
    """Accuracies by time step as lines of text."""
    names = [name for name in figures if name.startswith("accuracy") and not name.endswith(("/low", "/high"))]
    count = int(figures["held_out_pairs"])
    rows = [f"accuracy on {count} held-out pairs (95 % interval)"]
    for name in names:
        what = name.partition("/")[2] or "finished images"
        share, low, high = (100.0 * figures[name + end] for end in ("", "/low", "/high"))
        rows.append(f"  {what:<16} {share:5.1f} %  ({low:.1f} to {high:.1f})")
    return "\n".join(rows)
