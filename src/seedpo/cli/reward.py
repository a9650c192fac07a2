"""``seedpo reward``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from seedpo.cli.shared import (
    Changes,
    Processes,
    Quiet,
    Resume,
    is_first_process,
    quieten_libraries,
    read_changes,
    read_resume,
    say,
)

reward_app = typer.Typer(no_args_is_help=True, help="Train a preference model on labelled pairs, and measure one.")

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
    from seedpo.training.reward_run import last_evaluation, train_reward

    train_reward(config, out, resume=resumed, progress=not quiet)
    if not is_first_process():
        return
    say(accuracy_table(last_evaluation(out)))
    say(f"preference model: {out / config.weights_folder}")
    method = "spo" if config.model is not None else "d3po"
    say(f"train with it: seedpo train {method} --set reward={out / config.weights_folder} --out ...")
    say(f"score with it: seedpo score IMAGES --prompts FILE --reward {out / config.weights_folder} --out ...")


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
