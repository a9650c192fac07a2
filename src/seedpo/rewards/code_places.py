"""Where the code of rewards ``module:function`` may lie; needs no torch.

A command imports installed modules. Code of a folder is run only if the command line asks for it: ``--code FOLDER``
names the folder, or the reward itself stands there, which stands for ``--code .``. So a recipe of somebody else runs no
file that came with it. Where no command runs, the caller imports what he named, from the current folder too. Processes
that a command starts follow the same command line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FOLDER, _COMMAND = "SEEDPO_CODE", "SEEDPO_COMMAND"
"""Variables of the environment, by which processes that a command starts know what was asked for."""

_BETWEEN_NAMES = re.compile(r"[^\w.:]+")


@contextmanager
def follow(command: list[str]) -> Iterator[None]:
    """Inside, code is run as a command line asks for it; that of the command that started this process goes before."""
    before = {name: os.environ.get(name) for name in (_FOLDER, _COMMAND)}
    os.environ.setdefault(_COMMAND, " ".join(command))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def allow(folder: Path) -> None:
    """Allows the code of a folder in this process and in those that it starts."""
    os.environ[_FOLDER] = str(folder.resolve())


def code_folder(name: str) -> Path | None:
    """The folder whose modules may be imported for a reward ``module:function``; `None`: installed ones only."""
    if _FOLDER in os.environ:
        return Path(os.environ[_FOLDER])
    command = os.environ.get(_COMMAND)
    return Path.cwd() if command is None or name in _BETWEEN_NAMES.split(command) else None
