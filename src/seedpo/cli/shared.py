"""What the commands share."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one key of the run; dotted for nested ones. Repeatable."),
]


def read_changes(changes: list[str] | None) -> dict[str, Any]:
    """All ``--set key=value`` as one nested dictionary."""
    from seedpo.settings import nested, parse_override

    return nested([parse_override(change) for change in changes or []])


def quieten_libraries() -> None:
    """Keeps the libraries' own progress bars and notices off the screen."""
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()


def is_first_process() -> bool:
    """Whether this is the process that prints, of one or several."""
    return os.environ.get("RANK", "0") == "0"
