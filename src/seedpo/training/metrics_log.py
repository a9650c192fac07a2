"""What a run tells: one JSON object per line in ``metrics.jsonl``, and a progress bar.

A line is ``{"step": int, "kind": "train" | "evaluation", ...figures}``; a figure that is not finite is ``null``.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from seedpo.files import write_text, writing
from seedpo.run_folders import read_metrics

Kind = Literal["train", "evaluation"]

SHOWN = ("loss", "margin", "reward", "accuracy")
"""Figures on the progress bar: those whose name's last part starts like this."""


def truncate_metrics(path: Path, *, step: int) -> None:
    """Keeps the lines of steps up to ``step``; after a crash the file is the old one or the new one."""
    kept = [record for record in read_metrics(path) if record["step"] <= step]
    with writing("metrics", path.parent, fix="continue with --resume latest"):
        write_text(path, "".join(_line(record) for record in kept))


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, allow_nan=False) + "\n"


class MetricsLog:
    """The metrics file of a run, open for more lines; every line is handed to the system at once."""

    def __init__(self, path: Path | None) -> None:
        """Opens the file, which may exist already; ``None``: the lines are remembered and lead nowhere."""
        self._records = [] if path is None else read_metrics(path)
        place = Path(os.devnull) if path is None else path
        self._file = place.open("a", buffering=1, encoding="utf-8")
        self._folder = place.parent

    def write(self, step: int, kind: Kind, figures: Mapping[str, float]) -> None:
        """Adds one line.

        Raises:
            RunFolderError: if the disk is full.
        """
        record: dict[str, Any] = {"step": step, "kind": kind}
        for name, value in figures.items():
            number = value if isinstance(value, int) else float(value)
            record[name] = number if math.isfinite(number) else None
        with writing("metrics", self._folder, fix="continue with --resume latest"):
            self._file.write(_line(record))
        self._records.append(record)

    @property
    def records(self) -> Sequence[Mapping[str, Any]]:
        """All lines, in their order."""
        return self._records

    def last(self, kind: Kind) -> dict[str, Any] | None:
        """The last line of a kind."""
        return next((record for record in reversed(self._records) if record["kind"] == kind), None)

    def has(self, step: int, kind: Kind) -> bool:
        """Whether there is a line of a kind for a step."""
        return any(record["step"] == step and record["kind"] == kind for record in self._records)

    def flush(self) -> None:
        """Forces all lines onto the disk: a checkpoint must not survive the lines before it."""
        with writing("metrics", self._folder, fix="continue with --resume latest"):
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file; what a full disk kept from being written was said by :meth:`write` already."""
        with suppress(OSError):
            self._file.close()


class ProgressBar:
    """A bar on standard error with the step, the pace and a few figures."""

    def __init__(self, *, done: int, total: int, shown: bool) -> None:
        """Starts at ``done`` of ``total`` steps; with ``shown`` false nothing is ever written."""
        self._bar = tqdm(initial=done, total=total, unit="step", disable=not shown)

    def advance(self, figures: Mapping[str, float]) -> None:
        """One step further."""
        self._bar.set_postfix(
            {name: f"{value:.4g}" for name, value in figures.items() if _is_shown(name)}, refresh=False
        )
        self._bar.update()

    def close(self) -> None:
        """Leaves the bar as it is."""
        self._bar.close()


def _is_shown(name: str) -> bool:
    return name.removesuffix("/mean").rpartition("/")[2].startswith(SHOWN)
