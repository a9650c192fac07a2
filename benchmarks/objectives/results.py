"""The files of all runs as one small file, from which tables and figures are made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.objectives.contenders import BUDGET, CONTENDERS, WORLDS

PUBLISHED = Path(__file__).with_name("results.json")
"""The results behind docs/results.md."""

DIGITS = 4
"""Significant digits of each figure."""


def read_result(out: Path, world: str, contender: str, phase: str, index: int) -> dict[str, Any] | None:
    """A finished run; `None` if it is not finished."""
    path = out / world / contender / f"{phase}-{index}.json"
    if not path.is_file():
        return None
    result: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return result


def collect(out: Path, *, trials: int, seeds: int) -> Path:
    """Writes ``results.json``: by world, contender and phase the runs in their order, one a line."""
    worlds: dict[str, dict[str, dict[str, list[Any]]]] = {}
    for world in WORLDS:
        for name in CONTENDERS:
            for phase, count in (("search", trials), ("comparison", seeds)):
                runs = [read_result(out, world, name, phase, index) for index in range(count)]
                if any(runs):
                    found = worlds.setdefault(world, {}).setdefault(name, {})
                    found[phase] = [None if run is None else _short(run) for run in runs]
    content = {"budget": BUDGET, "trials": trials, "seeds": seeds}
    path = out / "results.json"
    path.write_text(_lines(content, worlds), "utf-8")
    return path


def _short(run: dict[str, Any]) -> dict[str, Any]:
    short = {name: run[name] for name in ("rate", "second", "steps", "planned", "failure") if run[name] != ""}
    lines = [{key: _rounded(value) for key, value in line.items()} for line in run["lines"]]
    return short | {"lines": lines}


def _rounded(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.{DIGITS}g}")


def _lines(content: dict[str, Any], worlds: dict[str, Any]) -> str:
    """JSON with one run a line."""
    parts = []
    for world, contenders in worlds.items():
        rows = []
        for name, phases in contenders.items():
            runs = ",\n".join(
                f"{json.dumps(phase)}: [\n{','.join(chr(10) + json.dumps(run) for run in members)}]"
                for phase, members in phases.items()
            )
            rows.append(f"{json.dumps(name)}: {{{runs}}}")
        parts.append(f"{json.dumps(world)}: {{\n{(',' + chr(10)).join(rows)}}}")
    head = json.dumps(content)[:-1]
    text = f'{head}, "worlds": {{\n{("," + chr(10)).join(parts)}}}}}\n'
    json.loads(text)
    return text
