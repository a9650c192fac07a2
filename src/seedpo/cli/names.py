"""``seedpo list``."""

from __future__ import annotations

from typing import Annotated

import typer

from seedpo.errors import ConfigError


def list_command(
    kind: Annotated[
        str | None, typer.Argument(help="methods, models, data, prompts, rewards or metrics; all if not given.")
    ] = None,
) -> None:
    """List the names that can be written in configurations and commands."""
    from seedpo.catalogue import KINDS

    if kind is not None and kind not in KINDS:
        raise ConfigError(f"unknown kind {kind!r}; there are: {', '.join(KINDS)}")
    for word in [kind] if kind else KINDS:
        typer.echo(f"{word}:")
        for entry in KINDS[word].entries:
            typer.echo(f"  {entry.name:24} {entry.summary}")
