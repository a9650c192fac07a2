"""Trains cells, each in a process of its own, and records how each of them ended.

A cell has one thread, so that its numbers depend neither on the number of cores nor on what runs beside it. A finished
cell is kept; an interrupted one continues from its last checkpoint.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from seedpo.errors import RunFolderError, SeedpoError
from seedpo.files import write_text
from seedpo.lifelines import tied_to_this
from seedpo.run_folders import RunFolder
from seedpo.settings import changes_results, differences
from seedpo.training.settings import RunConfig
from seedpo.training.sweeps.definition import Cell, Sweep
from seedpo.training.sweeps.expansion import expand, shard_of

LOG_TAIL = 2000
"""Bytes at the end of a log among which the error of a failed run is looked for."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A cell that was not trained to its end.

    Attributes:
        name: its folder.
        message: the error, in one line.
        log: what it printed; ``None`` if it was never started.
    """

    name: str
    message: str
    log: Path | None = None

    def __str__(self) -> str:
        return f"failed: {self.name}: {self.message} ({self.log or 'never started: its settings are impossible'})"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a sweep came to.

    Attributes:
        record: the file with the state of each cell.
        folders: run folders of the finished cells, in the order of the sweep.
        failures: the cells that failed.
    """

    record: Path
    folders: tuple[Path, ...]
    failures: tuple[Failure, ...]


def run_sweep(
    sweep: Sweep,
    out: Path,
    *,
    shard: str | None = None,
    processes: int | None = None,
    fresh: bool = False,
    label: str = "sweep",
) -> Outcome:
    """Trains what is not trained yet: each cell an ordinary run folder ``out/<name>``.

    A cell that fails is recorded, with its log, and the others continue; the next call tries it again. A cell that was
    trained with other settings is refused before anything starts, so that no results are lost.

    Args:
        sweep: what is varied.
        out: folder of the sweep.
        shard: ``i/n`` trains every n-th cell from the i-th on, for job arrays.
        processes: cells trained at the same time; if not given, as many as there are GPUs, or else cores.
        fresh: trains all cells of the shard again.
        label: beside the progress bar.

    Raises:
        ConfigError: if the sweep or the shard is wrong, or no cell can be trained.
        RunFolderError: if cells were trained with other settings, or the folder cannot be written.
    """
    cells = shard_of(expand(sweep), shard)
    try:
        out.mkdir(parents=True, exist_ok=True)
        _prepare(out, cells, fresh=fresh)
    except OSError as error:
        raise RunFolderError(f"{out} cannot be written ({error.strerror}); choose another --out") from error
    failures = {cell.name: Failure(name=cell.name, message=cell.refusal) for cell in cells if cell.refusal}
    record = out / ("sweep.json" if shard is None else f"sweep-{shard.replace('/', '-of-')}.json")

    def write_record() -> None:
        content = {
            "origin": sweep.origin,
            "shard": shard,
            "varied": sorted({key for cell in cells for key in cell.changes}),
            "cells": [_state(out, cell, failures.get(cell.name)) for cell in cells],
        }
        write_text(record, json.dumps(content, indent=1, default=str) + "\n")

    def on_end(cell: Cell, failure: Failure | None) -> None:
        if failure is not None:
            failures[cell.name] = failure
        write_record()

    write_record()
    possible = [cell for cell in cells if not cell.refusal]
    run_cells(out, possible, processes=processes, label=label, on_end=on_end)
    write_record()
    return Outcome(
        record=record,
        folders=tuple(out / cell.name for cell in possible if is_finished(out, cell)),
        failures=tuple(failures.values()),
    )


def require_all(outcomes: Sequence[Outcome], tell: Callable[[str], None]) -> None:
    """Reports each failed cell.

    Raises:
        SeedpoError: if there is one.
    """
    failures = [failure for outcome in outcomes for failure in outcome.failures]
    for failure in failures:
        tell(str(failure))
    if failures:
        records = ", ".join(str(outcome.record) for outcome in outcomes if outcome.failures)
        raise SeedpoError(
            f"{len(failures)} {'run' if len(failures) == 1 else 'runs'} failed; {records} says which; fix the cause "
            "and run the same command again, which keeps what is finished"
        )


def _prepare(out: Path, cells: Sequence[Cell], *, fresh: bool) -> None:
    """Writes the recipe of each cell, unless other results would be mixed with its own."""
    if not fresh:
        _refuse_other_settings(out, cells)
    for cell in cells:
        if fresh:
            shutil.rmtree(out / cell.name, ignore_errors=True)
        if fresh or not (out / cell.name).exists():
            (out / f"{cell.name}.log").unlink(missing_ok=True)
        (out / f"{cell.name}.yaml").write_text(recipe_text(cell), encoding="utf-8")


def write_recipes(out: Path, cells: Sequence[Cell], *, fresh: bool = False) -> None:
    """Writes the recipe of each cell; one whose settings have changed is trained again, and with ``fresh`` all are."""
    out.mkdir(parents=True, exist_ok=True)
    for cell in cells:
        recipe, text = out / f"{cell.name}.yaml", recipe_text(cell)
        if fresh or (recipe.is_file() and recipe.read_text(encoding="utf-8") != text):
            shutil.rmtree(out / cell.name, ignore_errors=True)
        recipe.write_text(text, encoding="utf-8")


def _refuse_other_settings(out: Path, cells: Sequence[Cell]) -> None:
    trained_otherwise = []
    for cell in cells:
        if cell.config is not None and (is_finished(out, cell) or has_checkpoint(out, cell)):
            changes = _changed_settings(out / cell.name, cell.config)
            if changes:
                trained_otherwise.append(f"{out / cell.name} was trained with other settings ({'; '.join(changes)})")
    if trained_otherwise:
        others = f" (and {len(trained_otherwise) - 1} more)" if len(trained_otherwise) > 1 else ""
        raise RunFolderError(
            f"{trained_otherwise[0]}{others}; choose another --out, or train all cells again with --fresh"
        )


def _changed_settings(folder: Path, config: RunConfig) -> list[str]:
    try:
        before = RunFolder.open(folder).read_config(RunConfig).tree()
    except SeedpoError as error:
        return [f"its config.yaml cannot be read: {error}"]
    return [
        f"{key} = {old} there, {new} now"
        for key, (old, new) in differences(before, config.tree()).items()
        if changes_results(type(config), key)
    ]


def _state(out: Path, cell: Cell, failure: Failure | None) -> dict[str, Any]:
    state = "failed" if failure else "finished" if is_finished(out, cell) else "waiting"
    details = {"error": failure.message, "log": failure.log.name if failure.log else None} if failure else {}
    return {"name": cell.name, "state": state, "changes": dict(cell.changes), **details}


def is_finished(out: Path, cell: Cell) -> bool:
    """Whether nothing is left to train."""
    return RunFolder(out / cell.name).finished.is_file()


def has_checkpoint(out: Path, cell: Cell) -> bool:
    """Whether an interrupted cell can continue."""
    return bool(RunFolder(out / cell.name).checkpoint_steps())


def recipe_text(cell: Cell) -> str:
    """The cell as a recipe."""
    return yaml.safe_dump(dict(cell.keys), sort_keys=False)


def run_cells(
    out: Path,
    cells: Sequence[Cell],
    *,
    processes: int | None = None,
    label: str,
    on_end: Callable[[Cell, Failure | None], None],
) -> None:
    """Trains what is not trained yet; the folder of a cell is ``out/<name>``, its log ``out/<name>.log``.

    Args:
        out: folder of all cells; it holds ``<name>.yaml`` of each.
        cells: what is trained, in this order.
        processes: cells trained at the same time; if not given, as many as there are GPUs, or else cores. Several GPUs
            are dealt out among them.
        label: beside the progress bar.
        on_end: called with each cell that ends, and its failure; what it raises stops the others.
    """
    waiting = [cell for cell in cells if not is_finished(out, cell)]
    devices = visible_devices() if waiting else []
    processes = processes or len(devices) or os.cpu_count() or 1
    working: dict[str, tuple[Cell, subprocess.Popen[bytes]]] = {}
    places: dict[str, str | None] = {}
    with tqdm(total=sum(cell.steps for cell in cells), desc=label, unit="step", dynamic_ncols=True) as bar:
        try:
            while waiting or working:
                while waiting and len(working) < processes:
                    cell = waiting.pop(0)
                    places[cell.name] = least_used(devices, [places[name] for name in working])
                    working[cell.name] = cell, start(out, cell, places[cell.name])
                time.sleep(0.5)
                for name in [name for name, (_, process) in working.items() if process.poll() is not None]:
                    cell, process = working.pop(name)
                    on_end(cell, _failure(out, cell) if process.returncode else None)
                bar.set_postfix_str(", ".join(working), refresh=False)
                bar.update(sum(min(steps_done(out, cell), cell.steps) for cell in cells) - bar.n)
        finally:
            for _, process in working.values():
                process.terminate()
            for _, process in working.values():
                process.wait()


def visible_devices() -> list[str]:
    """The GPUs that may be used: those of ``CUDA_VISIBLE_DEVICES``, or all of this machine."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [device.strip() for device in named.split(",") if device.strip()]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]


def least_used(devices: Sequence[str], used: Sequence[str | None]) -> str | None:
    """The device with the fewest cells on it; ``None`` if there is no choice."""
    return min(devices, key=used.count) if len(devices) > 1 else None


def start(out: Path, cell: Cell, device: str | None = None) -> subprocess.Popen[bytes]:
    """Starts or continues one cell, on one GPU if it is named."""
    folder = out / cell.name
    resumes = has_checkpoint(out, cell)
    if not resumes:
        shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-P", "-m", "seedpo", "train", str(out / f"{cell.name}.yaml"), "--out", str(folder)]
    with (out / f"{cell.name}.log").open("ab") as log:
        return subprocess.Popen(
            [*command, "--quiet", *(["--resume", "latest"] if resumes else [])],
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=os.environ
            | tied_to_this()
            | {"OMP_NUM_THREADS": "1"}
            | ({} if device is None else {"CUDA_VISIBLE_DEVICES": device}),
        )


def steps_done(out: Path, cell: Cell) -> int:
    """Training steps on record."""
    path = out / cell.name / "metrics.jsonl"
    return path.read_bytes().count(b'"kind": "train"') if path.is_file() else 0


def _failure(out: Path, cell: Cell) -> Failure:
    """The last line of the log that says what is wrong, or its last line."""
    log = out / f"{cell.name}.log"
    lines = [line.strip() for line in log.read_bytes()[-LOG_TAIL:].decode(errors="replace").splitlines()]
    lines = [line for line in lines if line] or ["it ended without a word"]
    message = next((line for line in reversed(lines) if line.startswith("error: ")), lines[-1])
    return Failure(name=cell.name, message=message.removeprefix("error: "), log=log)
