"""Findings and results as Markdown, one section per method and per evaluation: for documents and model cards."""

from __future__ import annotations

from collections.abc import Sequence

from seedpo.reports import versus
from seedpo.reports.contents import Contents
from seedpo.reports.evaluations import Evaluation
from seedpo.reports.findings import findings
from seedpo.reports.places import FailedCell
from seedpo.reports.preference import PreferenceModel
from seedpo.reports.settings import Family, group
from seedpo.reports.tables import PLAIN, Row, columns, result_rows
from seedpo.reports.wording import sentence

BAR = "\\|"
"""A bar that does not end a cell."""


def results_markdown(contents: Contents) -> str:
    """Sections of methods (findings, and a row per setting), evaluations, preference models and failed cells.

    The row of a setting holds a run's own figures, or mean and range over its seeds.
    """
    sections = [_section(family) for family in group(contents.runs)]
    sections += [_evaluation(one) for one in contents.evaluations]
    sections += [_preference_model(one) for one in contents.preference_models]
    sections += [_failed(contents.failed)] if contents.failed else []
    return "\n\n".join(sections) + "\n"


def _section(family: Family) -> str:
    header = ["setting", *PLAIN, *(column.title for column in columns(family))]
    several = {row.setting.name for row in result_rows(family) if row.mean}
    rows = [row for row in result_rows(family) if row.mean or row.setting.name not in several]
    lines = [_line(header), _line(["---"] * len(header)), *(_line(_cells(row)) for row in rows)]
    found = findings(family)
    words = [f"* **{one.topic}**: {' '.join(one.lines)}" for one in found.statements]
    return "\n".join([f"## {family.title}", "", found.headline, "", *words, "", *lines])


def _evaluation(one: Evaluation) -> str:
    parts = [f"## Evaluation {one.name}", "", versus.lead(one), ""]
    header = ["model", *one.figures]
    parts += [_line(header), _line(["---"] * len(header))]
    parts += [
        _line([target.name, *(" ".join((cell.text, *cell.small)) for cell in cells)])
        for target, _, cells in versus.table(one)
    ]
    bars, note = versus.bars(one)
    if bars:
        header = ["models", "reward", "win / tie / loss in %", "win rate", "paired difference"]
        parts += ["", *([note, ""] if note else []), _line(header), _line(["---"] * len(header))]
        parts += [
            _line(
                [
                    f"{bar.left} against {bar.right}",
                    bar.reward,
                    f"{bar.win:.0f} / {bar.tie:.0f} / {bar.loss:.0f}",
                    bar.rate,
                    bar.difference,
                ]
            )
            for bar in bars
        ]
    parts += ["", "Brackets: 95% bootstrap intervals over prompts. The win rate counts half of the ties."]
    return "\n".join(parts)


def _preference_model(one: PreferenceModel) -> str:
    header = ["time step", "accuracy at the first evaluation", "accuracy at the last evaluation"]
    rows = [_line(header), _line(["---"] * len(header)), *(_line(row) for row in one.rows)]
    return "\n".join([f"## Preference model {one.name}", "", *(rows if one.rows else one.notes)])


def _failed(cells: Sequence[FailedCell]) -> str:
    return "\n".join(["## Failed cells", "", *(f"* {one.sweep}/{one.name}: {sentence(one.reason)}" for one in cells)])


def _cells(row: Row) -> list[str]:
    return [row.setting.name, *row.plain, *(" ".join((cell.text, *cell.small)) for cell in row.cells)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', BAR) for cell in cells)} |"
