"""``seedpo cache``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seedpo.cli.shared import Changes, is_first_process, quieten_libraries, read_changes

cache_app = typer.Typer(
    no_args_is_help=True,
    help="Latents, embedded prompts and reference log-probabilities on the disk: make them beforehand, verify them.",
)


@cache_app.command("build")
def cache_build_command(
    method: Annotated[
        str, typer.Argument(metavar="METHOD|RECIPE.yaml", help="`diffusion-dpo`, or the recipe file of the runs.")
    ],
    changes: Changes = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Store the latents and embedded prompts of all pairs before runs need them.

    Runs with the same model, data and `cache.folder` then call neither the autoencoder nor the text encoder, and those
    need no room on the GPU. Give the same recipe and the same `--set` as for `seedpo train`; what does not change
    latents and prompts (beta, gamma, learning rate, seed, ...) may differ. Where `pairs.flip` is on, both directions of
    every pair are stored. Started again after an interruption, it goes on where it was.

    Examples:
        seedpo cache build recipes/diffusion-dpo-sd15.yaml --set data=my_pairs/ --set cache.folder=cache

        torchrun --nproc_per_node 8 -m seedpo cache build my-sdxl-recipe.yaml
    """
    overrides = read_changes(changes)
    quieten_libraries()
    from seedpo.cli.cache_builds import build_cache
    from seedpo.training.run import resolve_config

    done = build_cache(resolve_config(method, overrides), progress=not quiet)
    if is_first_process():
        typer.echo(done)


@cache_app.command("check")
def cache_check_command(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The `cache.folder` of runs.")],
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Verify every entry of a cache by its hash, and list what is there with its size.

    Each line is one set of entries, made with one model and one set of settings; `settings.json` in its folder says
    which. A set that no run needs any more can be deleted, folder and all. Exit status 1 if anything is damaged.

    Example: `seedpo cache check cache`
    """
    quieten_libraries()
    from seedpo.cli.cache_builds import check_cache

    typer.echo(check_cache(folder, progress=not quiet))
