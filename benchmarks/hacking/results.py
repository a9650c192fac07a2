"""All runs of the study as one file, from which tables and figures are made."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.run_files import read_run_file, write_all_runs
from seedpo.files import write_text

PUBLISHED = Path(__file__).with_name("results.json")
"""The results behind docs/results.md."""

JUDGED = ("proxy", "truth")
"""Figures from whose values by prompt the verdict on a run follows."""

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
    """Writes the finished runs of a folder into one file, which is to be small.

    Of the development phase it holds values by prompt only where the base method is judged by them.

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
    kept = JUDGED if "/base/" in name else ()
    return {**run, "lines": [_short_line(line, () if "control" in line else kept) for line in run["lines"]]}


def _short_line(line: Line, kept: Sequence[str]) -> Line:
    by_prompt = {name: values for name, values in line.get("by_prompt", {}).items() if name in kept}
    others = {key: value for key, value in line.items() if key != "by_prompt"}
    return {**others, "by_prompt": by_prompt} if by_prompt else others
