"""Score tables that any trainer can write: a row for each checkpoint, or for each of its prompts or images.

Columns, of which only ``step`` and one figure are needed:

    run        the setting; also ``label``, ``target`` or ``model``. Without it the file is one run
    seed       of the training; 0 without it
    step       of the checkpoint
    strength, mixing, best_of    how images were drawn: the free baselines
    prompt     also ``prompt_index`` or ``prompt_id``; rows of one prompt are its images, and are averaged
    ANYTHING   a figure: a reward, or a metric by its name. ``ANYTHING/low`` and ``ANYTHING/high`` are its interval

Columns of text that are none of these are passed over with a note, :data:`NO_FIGURES` without one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from seedpo.data.tables.parquet import UNREADABLE, require_rows
from seedpo.data.text import records, shown
from seedpo.errors import ConfigError, DataError
from seedpo.evaluation.controls import SamplingControl
from seedpo.metrics.catalogue import find_metric
from seedpo.pages.wording import listing
from seedpo.reports.curves import Point
from seedpo.reports.frontier.courses import Course, Spot, courses_of, key_of, point_of
from seedpo.reports.runs import PerPrompt

LABELS = ("run", "label", "target", "model")
PROMPTS = ("prompt", "prompt_index", "prompt_id")
CONTROLS = ("strength", "mixing", "best_of")
NO_FIGURES = frozenset(
    {"image", "image_index", "index", "epoch", "time", "seconds", "loss", "learning_rate", "lr", "kl", "grad_norm"}
)
"""Columns of numbers that say nothing about images."""

GREATEST = 1e150
"""Greater numbers have no finite square, of which statistics are made."""

ENDS = ("/low", "/high")
"""What the columns of an interval end in."""

ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
"""Of the names of score tables."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row: where it stands, for messages, and its cells by column; empty cells are left out."""

    place: str
    cells: Mapping[str, Any]


def read_score_table(path: Path) -> tuple[list[Course], list[str]]:
    """The runs and free baselines of a table, and notes on what it lacks.

    Raises:
        DataError: if it cannot be read, lacks columns, or a row is ambiguous or holds what is no number.
    """
    rows = _rows(path)
    columns = list(dict.fromkeys(name for row in rows for name in row.cells))
    label, prompt = (next((name for name in names if name in columns), None) for names in (LABELS, PROMPTS))
    figures = _figures(path, rows, columns)
    if "step" not in columns and not {*CONTROLS} & {*columns}:
        raise DataError(
            f"{path} lacks the column step; it has: {', '.join(columns)}; write the step of the checkpoint that each "
            "row is of"
        )
    groups: dict[Spot, list[Row]] = {}
    for row in rows:
        groups.setdefault(_spot(row, path, label), []).append(row)
    if prompt is None:
        for own in groups.values():
            if len(own) > 1:
                raise DataError(
                    f"{own[1].place} repeats run and step of {own[0].place}; add the column prompt if rows are images "
                    "of prompts, seed if they are other trainings, or remove one"
                )
    notes = [] if prompt else [f"{path.name} has no column prompt: nothing is compared prompt by prompt."]
    if text := [name for name in columns if _may_be_figure(name) and name not in figures]:
        notes.append(f"{path.name}: {listing(text)} hold{'s' if len(text) == 1 else ''} no numbers, so passed over.")
    return courses_of({spot: _points(own, figures, prompt) for spot, own in groups.items()}, path.name), notes


def _rows(path: Path) -> list[Row]:
    if path.suffix.lower() == ".parquet":
        import pyarrow.parquet as pq

        try:
            require_rows(path)
            table = pq.read_table(path)
            content = table.to_pylist()
        except UNREADABLE as error:
            raise DataError(f"{path} cannot be read as parquet: {error}; fetch or write it again") from error
        named = [(f"{path} row {number}", cells) for number, cells in enumerate(content)]
    else:
        lines = records(path)
        for line in lines:
            if line.fault:
                raise DataError(f"{line.place} {line.fault}")
        named = [(line.place, line.values) for line in lines if line.values.get("kind") != "train"]
    rows = [
        Row(place=place, cells={str(name): cell for name, cell in cells.items() if not _is_empty(cell)})
        for place, cells in named
    ]
    if not any(row.cells for row in rows):
        raise DataError(f"{path} holds no rows; write one for each checkpoint, or for each of its prompts")
    return rows


def _is_empty(cell: object) -> bool:
    if isinstance(cell, str):
        return cell.strip().lower() in ("", "nan", "none", "null")
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def _figures(path: Path, rows: Sequence[Row], columns: Sequence[str]) -> list[str]:
    """The columns of figures: those of numbers that mean nothing else."""
    figures = [
        name for name in columns if _may_be_figure(name) and any(_is_number(row.cells.get(name)) for row in rows)
    ]
    if not figures:
        raise DataError(
            f"{path} has no column of figures; it has: {', '.join(columns)}; add one for each reward and metric"
        )
    for row in rows:
        for name in figures:
            if name in row.cells and _number(row.cells[name]) is None:
                raise DataError(
                    f"{row.place}: {name} is {shown(row.cells[name])}, not a number below {GREATEST:g} in size; "
                    "leave the cell empty where there is none"
                )
            low, high = (_number(row.cells.get(f"{name}{end}")) for end in ENDS)
            if low is not None and high is not None and low > high:
                raise DataError(f"{row.place}: {name}/low = {low:g} is above {name}/high = {high:g}; exchange them")
    return figures


def _may_be_figure(column: str) -> bool:
    """Whether a column has no other meaning."""
    other = {*LABELS, *PROMPTS, *CONTROLS, *NO_FIGURES, "seed", "step", "kind"}
    return column not in other and not column.endswith(ENDS)


def _is_number(cell: object) -> bool:
    """Whether a cell is written as a number, finite or not."""
    try:
        return not isinstance(cell, bool) and isinstance(cell, int | float | str) and float(cell) == float(cell)
    except (ValueError, OverflowError):
        return False


def _number(cell: object) -> float | None:
    """The number that a cell holds; ``None`` if it holds none, or one whose square is not finite."""
    if not (_is_number(cell) and isinstance(cell, int | float | str)):
        return None
    return float(cell) if abs(float(cell)) < GREATEST else None


def _spot(row: Row, path: Path, label: str | None) -> Spot:
    def whole(name: str) -> int | None:
        if name not in row.cells:
            return None
        value = _number(row.cells[name])
        if value is None or value != int(value) or value < 0:
            raise DataError(f"{row.place}: {name} is {shown(row.cells[name])}; write a whole number of 0 or more")
        return int(value)

    def free(name: str) -> float | None:
        value = _number(row.cells.get(name))
        if name in row.cells and value is None:
            raise DataError(f"{row.place}: {name} is {shown(row.cells[name])}, not a number")
        return value

    strength, best_of = free("strength"), whole("best_of")
    try:
        control = SamplingControl(
            strength=1.0 if strength is None else strength,
            mixing=free("mixing"),
            best_of=1 if best_of is None else best_of,
        )
    except ConfigError as error:
        raise DataError(f"{row.place}: {error}") from error
    step = whole("step")
    if step is None and control == SamplingControl():
        raise DataError(f"{row.place} has no step; write that of the checkpoint, 0 before training")
    return Spot(
        label=str(row.cells.get(label, path.stem)) if label else path.stem,
        seed=whole("seed") or 0,
        step=step,
        control=control,
    )


def _points(rows: Sequence[Row], figures: Sequence[str], prompt: str | None) -> dict[str, Point]:
    """Figures of one spot by key: means over prompts, each the mean of its images."""
    if prompt is None:
        (row,) = rows
        ends = {name: [_number(row.cells.get(f"{name}{end}")) for end in ENDS] for name in figures}
        return {
            key_of(name): Point(
                value=float(row.cells[name]),
                low=math.nan if None in ends[name] else float(row.cells[f"{name}/low"]),
                high=math.nan if None in ends[name] else float(row.cells[f"{name}/high"]),
            )
            for name in figures
            if name in row.cells
        }
    points = {}
    for name in figures:
        values: dict[str, list[float]] = {}
        for row in rows:
            values.setdefault(str(row.cells.get(prompt, "")), []).extend(
                [float(row.cells[name])] if name in row.cells else []
            )
        means = {text: fmean(own) if own else math.nan for text, own in values.items()}
        point = finished_point(name, PerPrompt(prompts=tuple(means), values=tuple(means.values())))
        if point is not None:
            points[key_of(name)] = point
    return points


def finished_point(name: str, row: PerPrompt) -> Point | None:
    """The figure of a metric from its values by prompt, of which it may be a function of the mean."""
    point, entry = point_of(row), find_metric(name)
    if point is None or entry is None or entry.finish is None:
        return point
    ends = [entry.finish(value) for value in (point.value, point.low, point.high)]
    return Point(value=ends[0], low=ends[1], high=ends[2])
