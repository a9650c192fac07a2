"""All runs of the study as one file, from which tables and figures are made."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.run_files import read_run_file, write_all_runs
from seedpo.files import write_text

PUBLISHED = Path(__file__).with_name("results.json")
"""The results behind docs/results.md."""

Line = Mapping[str, Any]
"""Figures of an evaluation; see :class:`benchmarks.runs.Measurement`."""

Run = Mapping[str, Any]
"""What :func:`benchmarks.hacking.running.run_task` gives."""


@dataclass(frozen=True, kw_only=True)
class Results:
    """All finished runs.

    Attributes:
        runs: by the names of their files without the ending, ``world/contender/option/phase-index``.
    """

    runs: Mapping[str, Run]

    @classmethod
    def read(cls, path: Path = PUBLISHED) -> Results:
        """From a file that :func:`collect` wrote."""
        return cls(runs=json.loads(path.read_text("utf-8"))["runs"])

    def seeds(self, world: str, contender: str, option: str, phase: str) -> dict[int, Run]:
        """The runs of one setting by their number."""
        head = f"{world}/{contender}/{option}/{phase}-"
        return {int(name[len(head) :]): run for name, run in self.runs.items() if name.startswith(head)}


def collect(out: Path, names: Iterable[str], path: Path) -> Path:
    """Writes the finished runs of a folder into one file; those of the development phase without values by prompt.

    Args:
        out: folder of all files.
        names: of the files in it.
        path: what is written.
    """
    known = {name.removesuffix(".json"): read_run_file(out / name) for name in names}
    runs = {name: _short(run, name) for name, run in known.items() if run is not None}
    return write_all_runs(path, {}, runs)


def unpack(results: Results, out: Path) -> None:
    """Writes published runs into a folder as if they had been trained there, except those that it holds.

    Only runs of the development phase lack what the originals have: values by prompt.
    """
    for name, run in results.runs.items():
        path = out / f"{name}.json"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps(run) + "\n")


def _short(run: Run, name: str) -> Run:
    if "/development-" not in name:
        return run
    lines = [{key: value for key, value in line.items() if key != "by_prompt"} for line in run["lines"]]
    return {**run, "lines": lines}
