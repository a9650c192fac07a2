"""What the commands share."""

from __future__ import annotations

import logging
import os
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from seedpo.errors import ConfigError, escaped

Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one key of the run; dotted for nested ones. Repeatable."),
]


Resume = Annotated[
    str | None,
    typer.Option(
        metavar="latest",
        help="Continue from the last checkpoint in --out; begin if there is none.",
        show_default=False,
    ),
]

Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]

RewardFile = Annotated[
    Path | None, typer.Option(help="YAML whose key `rewards` defines rewards: a recipe, a run's config.yaml.")
]

NetworkPrecision = Annotated[str, typer.Option(help="Precision of the networks: no (float32), fp16 or bf16.")]

ImagesAtOnce = Annotated[int, typer.Option(min=1, help="Images read and scored at a time.")]

Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...; the GPU if there is one.")]

Host = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0: every network.")]

Processes = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Processes on this machine: one for each GPU, or several on the CPU.",
        show_default=False,
    ),
]


DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check everything and take one batch forward and backward; write nothing.")
]

CAN_START = "a run can start: leave out --dry-run"
"""What is said after one."""

PlannedGpu = Annotated[
    str, typer.Option("--gpu", help="Kind of GPU: A10, A100-40, A100-80, H100, H200, L4, RTX-4090, T4, ...")
]

PlannedGpus = Annotated[int, typer.Option("--gpus", metavar="N", help="How many; `batch_size` is per GPU.")]

PlannedUtilisation = Annotated[
    float, typer.Option("--utilisation", help="Share of the GPU's peak that is assumed to be reached.")
]

PlanAsJson = Annotated[bool, typer.Option("--json", help="Print JSON, in FLOPs, bytes and hours.")]


def say(text: str = "", *, err: bool = False) -> None:
    """Prints a text in which a terminal obeys no sign of a name, prompt or value; the way of all commands to print.

    Args:
        text: one line or several.
        err: whether it goes to the error output.
    """
    typer.echo(escaped(text, keep="\n\t"), err=err)


class PlainFormatter(logging.Formatter):
    """Lines of a log in which a terminal obeys no sign of a name or value; one of the package is one line."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The message, without what is said of an exception."""
        record.message = escaped(record.message, keep="" if record.name.startswith("seedpo") else "\n\t")
        return super().formatMessage(record)


def read_resume(resume: str | None) -> Literal["latest"] | None:
    """What ``--resume`` says.

    Raises:
        ConfigError: if it is anything but ``latest``.
    """
    if resume not in (None, "latest"):
        raise ConfigError(f"--resume {resume} is unknown; write --resume latest")
    return None if resume is None else "latest"


def read_changes(changes: list[str] | None) -> dict[str, Any]:
    """All ``--set key=value`` as one nested dictionary."""
    from seedpo.settings import nested, parse_override

    return nested([parse_override(change) for change in changes or []])


def split_names(text: str) -> list[str]:
    """The names of an option with commas between them, each once."""
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def quieten_libraries(*names: str) -> None:
    """Keeps the own progress bars and notices of libraries off the screen; of diffusers and transformers by default."""
    for name in names or ("diffusers", "transformers"):
        library = import_module(f"{name}.utils.logging")
        library.set_verbosity_error()
        library.disable_progress_bar()


def is_first_process() -> bool:
    """Whether this is the process that prints, of one or several."""
    return os.environ.get("RANK", "0") == "0"


def is_first_on_machine() -> bool:
    """Whether this is the process that prints what ends the processes of all machines."""
    return os.environ.get("LOCAL_RANK", "0") == "0"
