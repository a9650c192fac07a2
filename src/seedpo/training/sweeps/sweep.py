"""Trains the cells of a sweep and keeps a record of how each of them ended."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seedpo.errors import RunFolderError, SeedpoError
from seedpo.files import write_text
from seedpo.settings import build_config, changes_results, differences, read_recipe
from seedpo.training.settings import RunConfig
from seedpo.training.sweeps.cells import Cell, shard_of
from seedpo.training.sweeps.expanding import Checked, expand
from seedpo.training.sweeps.files import Sweep
from seedpo.training.sweeps.running import Failure, has_checkpoint, is_finished, recipe_text, run_cells


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

    A cell that fails is recorded, with its log, and the others go on; the next call tries it again. A finished cell is
    kept, an interrupted one goes on. A cell that was trained with other settings is refused before anything starts, so
    that no results are lost.

    Args:
        sweep: what is varied.
        out: folder of the sweep.
        shard: ``i/n`` trains every n-th cell from the i-th on, for job arrays.
        processes: cells trained at the same time; if not given, as many as there are GPUs, or else cores.
        fresh: trains all cells of the shard again.
        label: beside the progress bar.

    Raises:
        ConfigError: if the sweep or the shard is not as it should be, or no cell can be run.
        RunFolderError: if cells were trained with other settings, or the folder cannot be written.
    """
    everything = expand(sweep)
    mine = {cell.name for cell in shard_of([one.cell for one in everything], shard)}
    cells = [one for one in everything if one.cell.name in mine]
    try:
        out.mkdir(parents=True, exist_ok=True)
        _prepare(out, cells, fresh=fresh)
    except OSError as error:
        raise RunFolderError(f"{out} cannot be written ({error.strerror}); choose another --out") from error
    failures = {one.cell.name: Failure(name=one.cell.name, message=one.refusal) for one in cells if not one.config}
    record = out / ("sweep.json" if shard is None else f"sweep-{shard.replace('/', '-of-')}.json")

    def on_end(cell: Cell | None, failure: Failure | None) -> None:
        if failure is not None:
            failures[failure.name] = failure
        _write_record(record, out, sweep, cells, failures, shard)

    on_end(None, None)
    possible = [one.cell for one in cells if one.config is not None]
    run_cells(out, possible, processes=processes, label=label, on_end=on_end)
    on_end(None, None)
    return Outcome(
        record=record,
        folders=tuple(out / cell.name for cell in possible if is_finished(out, cell)),
        failures=tuple(failures.values()),
    )


def failure_lines(outcome: Outcome) -> list[str]:
    """What to say of the failed cells at the end: name, error and log, a line each."""
    return [
        f"failed: {one.name}: {one.message} ({one.log or 'never started: its settings are impossible'})"
        for one in outcome.failures
    ]


def _prepare(out: Path, cells: Sequence[Checked], *, fresh: bool) -> None:
    """Writes the recipe of each cell, after a look at what is there already."""
    if not fresh:
        refuse_other_settings(out, cells)
    for one in cells:
        if fresh:
            shutil.rmtree(out / one.cell.name, ignore_errors=True)
        if fresh or not (out / one.cell.name).exists():
            (out / f"{one.cell.name}.log").unlink(missing_ok=True)
        (out / f"{one.cell.name}.yaml").write_text(recipe_text(one.cell), encoding="utf-8")


def refuse_other_settings(out: Path, cells: Sequence[Checked]) -> None:
    """Refuses to mix results: cells that hold a checkpoint or are finished must have the settings asked for now.

    Raises:
        RunFolderError: naming the first such cell, its keys, and how many there are.
    """
    found = []
    for one in cells:
        if one.config is not None and (is_finished(out, one.cell) or has_checkpoint(out, one.cell)):
            changed = _changed(out / one.cell.name, one.config)
            if changed:
                found.append(f"{out / one.cell.name} was trained with other settings ({'; '.join(changed)})")
    if found:
        others = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise RunFolderError(f"{found[0]}{others}; choose another --out, or train all cells again with --fresh")


def _changed(folder: Path, config: RunConfig) -> list[str]:
    try:
        before = build_config(RunConfig, read_recipe(folder / "config.yaml")).tree()
    except SeedpoError as error:
        return [f"its config.yaml cannot be read: {error}"]
    return [
        f"{key} = {old} there, {new} now"
        for key, (old, new) in differences(before, config.tree()).items()
        if changes_results(type(config), key)
    ]


def _write_record(
    record: Path,
    out: Path,
    sweep: Sweep,
    cells: Sequence[Checked],
    failures: Mapping[str, Failure],
    shard: str | None,
) -> None:
    """The state of every cell of the shard; written aside, so that it is never half there."""
    content = {
        "origin": sweep.origin,
        "shard": shard,
        "varied": sorted({key for one in cells for key in one.cell.changes}),
        "cells": [_state(out, one.cell, failures.get(one.cell.name)) for one in cells],
    }
    write_text(record, json.dumps(content, indent=1, default=str) + "\n")


def _state(out: Path, cell: Cell, failure: Failure | None) -> dict[str, Any]:
    state = "failed" if failure else "finished" if is_finished(out, cell) else "waiting"
    told = {"error": failure.message, "log": failure.log.name if failure.log else None} if failure else {}
    return {"name": cell.name, "state": state, "changes": dict(cell.changes), **told}


def require_all(outcomes: Sequence[Outcome], tell: Callable[[str], None]) -> None:
    """Tells of each failed cell.

    Raises:
        SeedpoError: if there is one.
    """
    for line in (line for outcome in outcomes for line in failure_lines(outcome)):
        tell(line)
    amount = sum(len(outcome.failures) for outcome in outcomes)
    if amount:
        records = ", ".join(str(outcome.record) for outcome in outcomes if outcome.failures)
        raise SeedpoError(
            f"{amount} {'run' if amount == 1 else 'runs'} failed; {records} says which; mend the cause and run the "
            "same command again, which keeps what is finished"
        )
