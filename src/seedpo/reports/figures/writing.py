"""From run folders to a figure and the table of its numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from seedpo.data.text import csv_text
from seedpo.errors import ConfigError, RunFolderError
from seedpo.files import write_text
from seedpo.pages.figures import Panel
from seedpo.pages.wording import listing
from seedpo.reports.contents import find_places
from seedpo.reports.families import Family, group
from seedpo.reports.figures import series
from seedpo.reports.figures.drawing import check_target, draw_grid, draw_panels
from seedpo.reports.figures.image_grid import image_grid
from seedpo.reports.runs import read_runs

WIDTHS = {"column": 3.3, "page": 6.9}
"""Widths of a journal's column and page in inches."""


@dataclass(frozen=True, kw_only=True)
class FigureOptions:
    """What a user may choose.

    Attributes:
        metrics: figures that are drawn; the kind's own if none are named.
        x: what they are drawn against; empty for the kind's own.
        width: ``column``, ``page`` or inches.
        best: of an ablation, whether each run's best evaluation is drawn instead of its last.
        parts: of an accuracy, equal parts of the training over which it is averaged; ``None`` for those of the page.
        folder_names: whether lines are called after run folders instead of settings; ``None``: where no setting of
            the entropy term is among them.
        prompts, latents, steps: of a grid, see :func:`seedpo.reports.figures.image_grid.image_grid`.
        stacked: of a grid, whether runs stand below each other.
    """

    metrics: tuple[str, ...] = ()
    x: str = ""
    width: str = "page"
    best: bool = False
    parts: int | None = None
    folder_names: bool | None = None
    prompts: tuple[int, ...] = ()
    latents: tuple[int, ...] = (0,)
    steps: tuple[int, ...] = ()
    stacked: bool = False


Panels = Callable[[Sequence[Family], FigureOptions], list[Panel]]

CHARTS: Mapping[str, Panels] = {
    "curves": lambda families, options: series.curves(families, options.metrics, options.x or "step"),
    "tradeoff": lambda families, options: series.tradeoff(families, options.metrics, options.x),
    "ablation": lambda families, options: series.ablation(families, options.metrics, best=options.best),
    "accuracy": lambda families, options: series.accuracy(families, options.metrics, options.parts),
}
KINDS = ("grid", *CHARTS)
"""Kinds of figures."""


def write_figure(
    kind: str, folders: Sequence[Path | str], out: Path | str, options: FigureOptions | None = None
) -> Path:
    """Draws a figure of runs and writes the numbers that it shows beside it, under the same name with ``.csv``.

    Args:
        kind: one of :data:`KINDS`.
        folders: run folders, or folders of them.
        out: a PDF, SVG or PNG.
        options: what is drawn.

    Returns:
        The table.

    Raises:
        ConfigError: if matplotlib is missing, or an option names what is not there.
        RunFolderError: if a folder is no run, or the runs hold nothing of this kind.
    """
    options, out = options or FigureOptions(), Path(out)
    check_target(out)
    width = width_of(options.width)
    families = _families([Path(folder) for folder in folders], options.folder_names)
    if kind == "grid":
        grid = image_grid(
            families, prompts=options.prompts, steps=options.steps, latents=options.latents, stacked=options.stacked
        )
        draw_grid(grid.blocks, out, rows=grid.rows, columns=grid.columns, width=width)
        rows: Sequence[series.Row] = grid.table
    else:
        panels = [panel for panel in CHARTS[kind](families, options) if panel.lines]
        if not panels:
            raise RunFolderError(f"these runs hold nothing that a figure of {kind} could show")
        draw_panels(panels, out, width=width)
        rows = list(series.rows_of(panels))
    table = out.with_suffix(".csv")
    write_text(table, _csv(rows))
    return table


def width_of(text: str) -> float:
    """Inches of a named width or of a number.

    Raises:
        ConfigError: if it is neither, or not from 1 to 40 inches.
    """
    try:
        inches = WIDTHS.get(text) or float(text)
    except ValueError:
        inches = 0.0
    if not 1.0 <= inches <= 40.0:
        raise ConfigError(f"--width {text}: write {listing(list(WIDTHS))} or inches from 1 to 40")
    return inches


def _families(folders: Sequence[Path], folder_names: bool | None) -> list[Family]:
    places, _ = find_places(folders)
    families = group(read_runs(places["run"]))
    if not families:
        raise RunFolderError(f"{folders[0]} holds no run of `seedpo train`; name run folders")
    see = any(setting.role == "see" for family in families for setting in family.settings)
    if folder_names or (folder_names is None and not see):
        return list(families)
    return [
        replace(family, settings=tuple(replace(setting, label=setting.name) for setting in family.settings))
        for family in families
    ]


def _csv(rows: Sequence[series.Row]) -> str:
    return csv_text([list(rows[0]) if rows else [], *(row.values() for row in rows)])
