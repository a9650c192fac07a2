"""Writes the results of the benchmark of reward hacking: page, numbers and figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from seedpo.errors import RunFolderError
from seedpo.methods.presets import method_title
from seedpo.reports.frontier.comparisons import Comparison
from seedpo.reports.frontier.series import drawn
from seedpo.reports.frontier.writing import plain
from seedpo.reports.hacking_benchmark.analysis import (
    QUANTITIES,
    Measured,
    compare,
    ends,
    pools,
    read_measured,
    series_of,
)
from seedpo.reports.hacking_benchmark.page import answer, frontier_figure, markdown, summary
from seedpo.training.sweeps.hacking_grid import Grid, settings_of


def write_results(out: Path, chosen: Mapping[str, Grid], *, seeds: int, command: str) -> list[str]:
    """Writes ``hacking.md``, ``hacking.json`` and the figures from the finished runs.

    Args:
        out: folder of the benchmark; the runs of a method lie in ``out/<method>``.
        chosen: grid of each method.
        seeds: of each setting.
        command: that makes these results, for the page.

    Returns:
        The answers, a sentence each.

    Raises:
        RunFolderError: if the files cannot be written.
    """
    measured: dict[str, list[Measured]] = {}
    missing: list[str] = []
    for method, grid in chosen.items():
        measured[method], absent = read_measured(out / method, settings_of(grid), seeds=seeds)
        missing += [f"{method}/{name}" for name in absent]
    comparisons = {method: compare(members, progress=f"comparing, {method}") for method, members in measured.items()}
    try:
        figures = {method: _write_figures(out, method, members) for method, members in measured.items()}
        page = markdown(measured, comparisons, command=command, seeds=seeds, missing=missing, figures=figures)
        (out / "hacking.md").write_text(page, encoding="utf-8")
        data = {"command": command, "seeds": seeds, "missing": missing, **_data(measured, comparisons)}
        (out / "hacking.json").write_text(json.dumps(plain(data), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise RunFolderError(f"the results cannot be written into {out} ({error.strerror})") from error
    answers = [answer(method, row) for method, rows in comparisons.items() for row in rows if row.headline]
    return [summary(comparisons), *answers, f"tables: {out / 'hacking.md'}"]


def _write_figures(out: Path, method: str, measured: Sequence[Measured]) -> list[str]:
    names = []
    for key in QUANTITIES:
        picture = frontier_figure(method_title(method), measured, key)
        if picture is not None:
            names.append(f"{method}-{key.replace('_', '-')}.svg")
            (out / names[-1]).write_text(picture, encoding="utf-8")
    return names


def _data(
    measured: Mapping[str, Sequence[Measured]], comparisons: Mapping[str, Sequence[Comparison]]
) -> dict[str, Any]:
    """All numbers behind the page."""
    return {
        "summary": summary(comparisons),
        "methods": {
            method: {
                "answers": [answer(method, row) for row in comparisons[method] if row.headline],
                "settings": [
                    {
                        "label": member.setting.label,
                        **asdict(member.setting),
                        "seeds": sorted(member.series.curves),
                        "outcomes": member.outcomes,
                    }
                    for member in members
                ],
                "comparisons": [{**asdict(row), "verdict": row.verdict} for row in comparisons[method]],
                "ends": [{**asdict(end), "mean": end.mean} for end in ends(members)],
                "frontiers": {
                    name: {key: asdict(line) for key in QUANTITIES if (line := drawn(series_of(pool), key)) is not None}
                    for name, pool in pools(members).items()
                },
            }
            for method, members in measured.items()
        },
    }
