"""Runs, evaluations and score tables in; page, numbers and figures out."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from seedpo.errors import ConfigError
from seedpo.files import write_text, writing
from seedpo.pages.rendering import figure_file
from seedpo.reports.curves import Curves
from seedpo.reports.frontier.page import figures_sentence, html, markdown
from seedpo.reports.frontier.panels import panels
from seedpo.reports.frontier.reading import read_courses
from seedpo.reports.frontier.results import Results, results_of
from seedpo.reports.frontier.tables import answers, headline

TITLE = "Learning or hacking?"


def write_frontier(
    places: Sequence[Path],
    out: Path,
    *,
    proxy: str | None = None,
    held_out: Sequence[str] | None = None,
    diversity: Sequence[str] | None = None,
    title: str = TITLE,
    command: str = "",
) -> list[str]:
    """Writes ``frontier.md``, ``frontier.html``, ``frontier.json`` and a figure for each held-out figure and diversity.

    Args:
        places: run folders, folders of them, evaluation folders and score tables.
        out: the folder.
        proxy, held_out, diversity: see :func:`seedpo.reports.frontier.courses.chosen_figures`.
        title: heading.
        command: that makes these results, for the page.

    Returns:
        What is shown, a sentence each.

    Raises:
        SeedpoError: if nothing can be judged, or the results cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file; choose a folder")
    courses, notes = read_courses(places)
    results = results_of(courses, notes, proxy=proxy, held_out=held_out, diversity=diversity)
    charts = panels(results)
    pictures = {key: f"frontier-{_file_name(key)}.svg" for key in charts}
    with writing("the results", out, fix="choose an --out that can be written"):
        out.mkdir(parents=True, exist_ok=True)
        for key, panel in charts.items():
            write_text(out / pictures[key], figure_file(panel))
        write_text(out / "frontier.md", markdown(results, pictures, title=title, command=command))
        write_text(out / "frontier.html", html(results, charts, title=title, command=command))
        numbers = json.dumps(plain(_data(results, command)), indent=1, allow_nan=False)
        write_text(out / "frontier.json", f"{numbers}\n")
    return [
        headline(results),
        figures_sentence(results),
        *answers(results),
        *results.notes,
        f"page: {out / 'frontier.html'}",
    ]


def _file_name(key: str) -> str:
    """A figure as part of a file's name."""
    return "".join(sign if sign.isalnum() else "-" for sign in key.removeprefix("reward/")).strip("-").lower()


def _data(results: Results, command: str) -> dict[str, Any]:
    """All numbers behind the page."""
    return {
        "command": command,
        "figures": asdict(results.figures),
        "settings": [
            {
                "label": one.series.label,
                "outcome": one.outcome,
                "verdicts": {
                    seed: {**asdict(verdict), "fall": verdict.fall, "rise": verdict.rise}
                    for seed, verdict in one.verdicts.items()
                },
                "evaluations": {seed: _evaluations(curves) for seed, curves in one.series.curves.items()},
            }
            for one in results.trained
        ],
        "free": [
            {
                "label": one.series.label,
                "kind": one.kind,
                "names": one.names,
                "evaluations": {seed: _evaluations(curves) for seed, curves in one.series.curves.items()},
            }
            for one in results.free
        ],
        "stops": [
            {
                "label": stop.label,
                "figure": stop.key,
                "step": stop.step,
                "last_step": stop.last_step,
                "value": stop.value.value,
                "proxy": stop.proxy.value,
                "last_value": stop.last_value.value,
                "last_proxy": stop.last_proxy.value,
            }
            for stop in results.stops
        ],
        "comparisons": [{**asdict(row), "verdict": row.verdict, "covered": row.covered} for row in results.comparisons],
        "notes": results.notes,
    }


def _evaluations(curves: Curves) -> dict[str, list[dict[str, float]]]:
    return {
        key: [
            {"step": step, "value": point.value, "low": point.low, "high": point.high}
            for step, point in zip(curve.steps, curve.points, strict=True)
        ]
        for key, curve in curves.items()
    }


def plain(tree: Any) -> Any:
    """The tree as JSON can hold it: null for numbers that are not finite."""
    if isinstance(tree, Mapping):
        return {str(key): plain(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [plain(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree
