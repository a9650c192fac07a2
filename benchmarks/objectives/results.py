"""The files of all runs as one small file, from which tables and figures are made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.objectives.contenders import CONTENDERS, WORLDS
from benchmarks.run_files import read_run_file, rounded, write_all_runs

PUBLISHED = Path(__file__).with_name("results.json")
"""The results behind docs/results.md."""


def read_result(out: Path, world: str, contender: str, phase: str, index: int) -> dict[str, Any] | None:
    """A finished run; `None` if it is not finished."""
    return read_run_file(out / world / contender / f"{phase}-{index}.json")


def collect(out: Path, *, trials: int, seeds: int) -> Path:
    """Writes ``results.json``: the finished runs of both phases, one a line."""
    rows = {
        f"{world} {name} {phase} {index}": read_result(out, world, name, phase, index)
        for world in WORLDS
        for name in CONTENDERS
        for phase, count in (("search", trials), ("comparison", seeds))
        for index in range(count)
    }
    runs = {key: _short(run) for key, run in rows.items() if run is not None}
    return write_all_runs(out / "results.json", {"trials": trials, "seeds": seeds}, runs)


def _short(run: dict[str, Any]) -> dict[str, Any]:
    short = {name: run[name] for name in ("rate", "second", "steps", "planned")}
    short |= {"failure": run["failure"]} if run["failure"] else {}
    return short | {"lines": rounded(run["lines"])}


@dataclass(frozen=True, kw_only=True)
class Results:
    """All runs.

    Attributes:
        trials, seeds: how many runs a contender has in each phase.
        runs: by "world contender phase index".
    """

    trials: int
    seeds: int
    runs: Mapping[str, dict[str, Any]]

    @classmethod
    def read(cls, path: Path = PUBLISHED) -> Results:
        """From a file that :func:`collect` wrote."""
        return cls(**json.loads(path.read_text("utf-8")))

    def search(self, world: str, contender: str) -> list[dict[str, Any]]:
        """The trials of a contender; empty if one is missing."""
        return self._phase(world, contender, "search", self.trials)

    def comparison(self, world: str, contender: str) -> list[dict[str, Any]]:
        """Its runs by seed; empty if one is missing."""
        return self._phase(world, contender, "comparison", self.seeds)

    def _phase(self, world: str, contender: str, phase: str, count: int) -> list[dict[str, Any]]:
        runs = [self.runs.get(f"{world} {contender} {phase} {index}") for index in range(count)]
        known = [run for run in runs if run is not None]
        return known if len(known) == count else []
