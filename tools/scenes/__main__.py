"""``python -m tools.scenes build|card``: train the embedded world's weights, and measure them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seedpo.cli.shared import quieten_libraries
from tools.scenes.build import PARTS, build
from tools.scenes.card import measure

app = typer.Typer(no_args_is_help=True, help="The embedded world: build its weights and measure them.")


@app.command("build")
def build_command(
    out: Annotated[Path, typer.Option(help="Folder for the weights.")],
    part: Annotated[str, typer.Option(help=f"{', '.join(PARTS)} or all.")] = "all",
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything.")] = 0,
) -> None:
    """Train the embedded models and their scorers from a seed: about two hours on two CPU cores."""
    quieten_libraries()
    build(out, part=part, seed=seed)
    typer.echo(f"weights: {out}")


@app.command("card")
def card_command(
    assets: Annotated[Path | None, typer.Option(help="Folder of the weights; the shipped ones if not given.")] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file to write as well.")] = None,
) -> None:
    """Measure the embedded model and scorer: the figures of the model card."""
    quieten_libraries()
    typer.echo(measure(assets, out))


if __name__ == "__main__":
    app()
