"""``seedpo scenes``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seedpo.cli.shared import quieten_libraries

scenes_app = typer.Typer(no_args_is_help=True, help="The embedded world: build its weights, measure them, write pairs.")


@scenes_app.command("build")
def scenes_build_command(
    out: Annotated[Path, typer.Option(help="Folder for the weights.")],
    part: Annotated[str, typer.Option(help="autoencoder, practice, denoiser, captions, scorer, plain or all.")] = "all",
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything.")] = 0,
) -> None:
    """Train the embedded model and its scorers from a seed: about an hour on two CPU cores."""
    quieten_libraries()
    from seedpo.embedded_build import build

    build(out, part=part, seed=seed)
    typer.echo(f"weights: {out}")


@scenes_app.command("card")
def scenes_card_command(
    assets: Annotated[Path | None, typer.Option(help="Folder of the weights; the shipped ones if not given.")] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file to write as well.")] = None,
) -> None:
    """Measure the embedded model and scorer: the figures of the model card."""
    quieten_libraries()
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
