"""No command that needs no model imports torch or a model library, whatever it does."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import typer

from benchmarks.startup import COMMANDS, MODEL_LIBRARIES, Command, make_inputs, start
from seedpo.cli import app, main


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, before = tmp_path_factory.mktemp("inputs"), Path.cwd()
    os.chdir(folder)
    try:
        make_inputs(folder, _run_here)
    finally:
        os.chdir(before)
    return folder


def _run_here(folder: Path, words: Sequence[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    assert not stop.value.code, words


@pytest.mark.parametrize("command", [command for command in COMMANDS if not command.needs_model], ids=lambda c: c.line)
def test_imports_no_model_library(command: Command, inputs: Path) -> None:
    done = start(command, inputs)
    assert done.status == command.status, done.output
    assert not set(done.libraries) & set(MODEL_LIBRARIES)


def test_an_import_would_be_seen(inputs: Path) -> None:
    done = start(Command(line="scenes pairs --count 2 --out {out}.parquet"), inputs)
    assert set(done.libraries) & set(MODEL_LIBRARIES) == {"torch"}


def test_every_command_is_looked_at() -> None:
    assert {command.name for command in COMMANDS} - {"--version"} == set(_names(typer.main.get_command(app)))


def _names(command: object, before: str = "") -> Iterator[str]:
    for name, part in getattr(command, "commands", {}).items():
        if hasattr(part, "commands"):
            yield from _names(part, f"{before}{name} ")
        else:
            yield before + name
