"""Trains cells, each in a process of its own.

A cell has one thread, so that its numbers depend neither on the number of cores nor on what runs beside it. A finished
cell is kept, an interrupted one goes on from its last checkpoint.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from tqdm import tqdm

from seedpo.training.sweeps.cells import Cell

LAST_WORDS = 2000
"""Bytes at the end of a log among which the error of a failed run is looked for."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A cell that was not trained to its end.

    Attributes:
        name: its folder.
        message: the error, in one line.
        log: what it printed; none where it was never started.
    """

    name: str
    message: str
    log: Path | None = None


def is_finished(out: Path, cell: Cell) -> bool:
    """Whether nothing is left to train."""
    return (out / cell.name / "finished.json").is_file()


def has_checkpoint(out: Path, cell: Cell) -> bool:
    """Whether there is something to go on from."""
    return any((out / cell.name / "checkpoints").glob("checkpoint-*"))


def recipe_text(cell: Cell) -> str:
    """The cell as a recipe."""
    return yaml.safe_dump(dict(cell.config), sort_keys=False)


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
        on_end: told of each cell that ends, and how; what it raises stops the others.
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
                bar.set_postfix_str(", ".join(working))
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
    """The device with the fewest cells on it; none where there is no choice."""
    return min(devices, key=used.count) if len(devices) > 1 else None


def start(out: Path, cell: Cell, device: str | None = None) -> subprocess.Popen[bytes]:
    """Starts one cell, or lets it go on, on one GPU if it is named."""
    folder = out / cell.name
    resumes = has_checkpoint(out, cell)
    if not resumes:
        shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "seedpo", "train", str(out / f"{cell.name}.yaml"), "--out", str(folder), "--quiet"]
    with (out / f"{cell.name}.log").open("ab") as log:
        return subprocess.Popen(
            [*command, *(["--resume", "latest"] if resumes else [])],
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | ({} if device is None else {"CUDA_VISIBLE_DEVICES": device}),
        )


def steps_done(out: Path, cell: Cell) -> int:
    """Training steps on record."""
    path = out / cell.name / "metrics.jsonl"
    return path.read_bytes().count(b'"kind": "train"') if path.is_file() else 0


def _failure(out: Path, cell: Cell) -> Failure:
    """The last line of the log that says what is wrong, or its last line."""
    log = out / f"{cell.name}.log"
    lines = [line.strip() for line in log.read_bytes()[-LAST_WORDS:].decode(errors="replace").splitlines()]
    lines = [line for line in lines if line] or ["it ended without a word"]
    message = next((line for line in reversed(lines) if line.startswith("error: ")), lines[-1])
    return Failure(name=cell.name, message=message.removeprefix("error: "), log=log)
