"""The results of runs as Markdown tables, one per method: for documents and model cards."""

from __future__ import annotations

from collections.abc import Sequence

from seedpo.reports.runs import Run
from seedpo.reports.settings import Family, group
from seedpo.reports.tables import PLAIN, Row, columns, result_rows


def results_markdown(runs: Sequence[Run]) -> str:
    """One section per method with one row per setting: a run's own figures, or mean and range over its seeds."""
    return "\n\n".join(_section(family) for family in group(runs)) + "\n"


def _section(family: Family) -> str:
    header = ["setting", *PLAIN, *(column.title for column in columns(family))]
    several = {row.setting.name for row in result_rows(family) if row.mean}
    rows = [row for row in result_rows(family) if row.mean or row.setting.name not in several]
    lines = [_line(header), _line(["---"] * len(header)), *(_line(_cells(row)) for row in rows)]
    return "\n".join([f"## {family.title}", "", *lines])


def _cells(row: Row) -> list[str]:
    return [row.setting.name, *row.plain, *(" ".join((cell.text, *cell.small)) for cell in row.cells)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
