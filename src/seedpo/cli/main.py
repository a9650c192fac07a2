"""From arguments to an exit status."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from seedpo.cli.cache import cache_app
from seedpo.cli.configuration import config_app, print_versions
from seedpo.cli.data import data_app
from seedpo.cli.evaluation import evaluate_command
from seedpo.cli.figures import figure_app
from seedpo.cli.frontier import frontier_command
from seedpo.cli.init import init_command
from seedpo.cli.names import list_command
from seedpo.cli.results import card_command, export_command, push_command, report_command, sample_command
from seedpo.cli.reward import reward_app
from seedpo.cli.scenes import scenes_app
from seedpo.cli.scoring import score_command
from seedpo.cli.shared import PlainFormatter, is_first_on_machine, is_first_process
from seedpo.cli.stopping import ended_in_one_line
from seedpo.cli.study import study_app
from seedpo.cli.sweeping import bench_app, sweep_command
from seedpo.cli.training import demo_command, plan_command, train_command
from seedpo.errors import SeedpoError
from seedpo.lifelines import end_with_parent
from seedpo.rewards.code_places import follow

COMMANDS: Mapping[str, Mapping[str, Callable[..., None] | typer.Typer]] = {
    "Begin": {"demo": demo_command, "init": init_command, "list": list_command, "config": config_app},
    "Train": {
        "data": data_app,
        "plan": plan_command,
        "cache": cache_app,
        "reward": reward_app,
        "train": train_command,
        "sweep": sweep_command,
    },
    "Look at results and hand them on": {
        "report": report_command,
        "frontier": frontier_command,
        "figure": figure_app,
        "evaluate": evaluate_command,
        "sample": sample_command,
        "score": score_command,
        "export": export_command,
        "card": card_command,
        "push": push_command,
    },
    "People in the loop": {"study": study_app},
    "The embedded world": {"scenes": scenes_app, "bench": bench_app},
}
"""The commands, in the order in which ``--help`` shows them."""

BAR_SECONDS = "10"
"""Least time between two states of a progress bar that no terminal shows: in a log file each is a line of its own."""

app = typer.Typer(
    name="seedpo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help=(
        "Align text-to-image diffusion models with human preferences: Diffusion-DPO, D3PO, SPO and a dozen other "
        "objectives (`seedpo list methods`), with a gamma-weighted self-entropy term (SEE-DPO) where it has a "
        "meaning.\n\n"
        "Start with `seedpo demo`, which trains on an embedded model and writes a report."
    ),
)


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=print_versions, is_eager=True, help="Print the versions, of libraries too."),
    ] = False,
    code: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            exists=True,
            file_okay=False,
            help="Folder whose Python code rewards `module:function` may run, beside installed modules.",
        ),
    ] = None,
) -> None:
    """Options of all commands."""
    if code is not None:
        from seedpo.rewards.code_places import allow

        allow(code)


for panel, commands in COMMANDS.items():
    for name, command in commands.items():
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name, rich_help_panel=panel)
        else:
            app.command(name, rich_help_panel=panel)(command)


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line.

    An error that a user can fix is printed as one line, with exit status 1 (3: an alarm stopped the run).

    Of several processes the first one of each machine prints it; under ``--processes`` the launcher does.
    """
    from seedpo.cli import launch

    handler = logging.StreamHandler()
    handler.setFormatter(PlainFormatter())
    logging.basicConfig(level=logging.INFO if is_first_process() else logging.ERROR, handlers=[handler])
    for noisy in ("httpx", "accelerate", "matplotlib", "fontTools"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_MININTERVAL", BAR_SECONDS)  # read when tqdm is imported, which a command does
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns of kernels that nothing here asks for
    end_with_parent()
    command = sys.argv[1:] if arguments is None else arguments
    tell = launch.leave_error if launch.is_launched() else None
    # A study is served by processes that handle signals themselves.
    with follow(command), nullcontext() if "study" in command[:1] else ended_in_one_line(tell):
        _run(arguments)


def _run(arguments: list[str] | None) -> None:
    from seedpo import peers
    from seedpo.cli import launch

    try:
        with peers.told():
            app(arguments, obj=arguments)
    except Exception as error:
        if launch.is_launched():
            launch.tell_launcher(error)
        elif not isinstance(error, SeedpoError):
            raise
        elif is_first_on_machine() or not error.on_every_process:
            print(f"error: {error}", file=sys.stderr)  # noqa: T201
        raise SystemExit(error.exit_status if isinstance(error, SeedpoError) else 1) from None
