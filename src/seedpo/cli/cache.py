"""``seedpo cache``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seedpo.cli.shared import Changes, is_first_process, quieten_libraries, read_changes, say

cache_app = typer.Typer(
    no_args_is_help=True,
    help="Latents, embedded prompts and reference log-probabilities on the disk: compute them once, verify them.",
)


@cache_app.command("build")
def cache_build_command(
    method: Annotated[
        str, typer.Argument(metavar="METHOD|RECIPE.yaml", help="`diffusion-dpo`, or the recipe file of the runs.")
    ],
    changes: Changes = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Compute the latents and embedded prompts of all pairs, and store them for runs to read.

    Runs with the same model, data and `cache.folder` then call neither the autoencoder nor the text encoder, and those
    need no room on the GPU. Give the same recipe and the same `--set` as for `seedpo train`; keys that do not change
    latents and prompts (beta, gamma, learning rate, seed, ...) may differ. If `pairs.flip` is on, both directions of
    every pair are stored. With `cache.reference=true cache.visits=N` the reference's log-probabilities at N draws of
    every pair are stored too. Started again after an interruption, the command goes on where it was.

    Examples:
        seedpo cache build diffusion-dpo-sd15 --set data=my_pairs/ --set cache.folder=cache

        torchrun --nproc_per_node 8 -m seedpo cache build my-sdxl-recipe.yaml
    """
    from seedpo.training.configuration import resolve_config

    config = resolve_config(method, read_changes(changes))  # refused before the libraries are imported
    quieten_libraries()
    from seedpo.cli.cache_builds import build_cache

    summary = build_cache(config, progress=not quiet)
    if is_first_process():
        say(summary)


@cache_app.command("check")
def cache_check_command(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The `cache.folder` of runs.")],
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Verify every entry of a cache by its hash, and list what is there with its size.

    Each line is one set of entries, made with one model and one set of settings, which `settings.json` in its folder
    lists. A set that no run needs any more can be deleted with its folder. Exit status 1 if anything is damaged.

    Example: `seedpo cache check cache`
    """
    from seedpo.cli.cache_checks import check_cache

    say(check_cache(folder, progress=not quiet))
