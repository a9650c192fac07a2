"""``seedpo scenes``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seedpo.cli.shared import say

scenes_app = typer.Typer(no_args_is_help=True, help="The embedded world: write its pairs.")


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
    say(f"{count} pairs: {out}")
