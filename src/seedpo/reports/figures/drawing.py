"""Panels and image grids drawn by matplotlib for print: vector graphics, embedded fonts, the same bytes every time.

The only module that imports matplotlib, and it does so when it draws.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seedpo.errors import ConfigError, RunFolderError
from seedpo.pages.figures import Line, Panel
from seedpo.pages.rendering import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

FORMATS = (".pdf", ".svg", ".png")

STYLE: Any = {
    "font.size": 8.0,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "axes.titlesize": 8.0,
    "axes.labelsize": 8.0,
    "xtick.labelsize": 7.0,
    "ytick.labelsize": 7.0,
    "legend.fontsize": 7.0,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e7eb",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "seedpo",
    "figure.dpi": 100.0,
}
"""Sizes in points at the width of a journal's column; fonts are embedded as TrueType in PDF, as outlines in SVG."""

MARKERS = {"base": "o", "see": "D", "control": "^", "term": "v"}
DASHES = ("-", (0, (4, 2)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))
SHADES = ((1.0, 0.0), (0.55, 0.1), (0.55, 1.0), (0.8, 0.6))
"""Of the settings of one role in turn: share of the role's colour, and the grey that it is mixed with."""

DPI = 300
PANEL_WIDTH = 2.2
"""Least width of a panel in inches; a wider figure has several beside each other."""
RATIO = 0.72
"""Height of a panel over its width."""
HIGHEST = 2.6
"""Greatest height of a panel in inches."""

FIGURE_TICKS = 5
"""Most intervals between ticks of an x axis of figures, whose numbers are longer than steps."""

MOST_BANDS = 3
"""With more lines than this, bands would hide each other: intervals are thin bars."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """One image of a grid.

    Attributes:
        row, column: its place.
        image: at its full size.
    """

    row: int
    column: int
    image: Image


def check_target(path: Path) -> None:
    """Raises ConfigError unless figures can be written in the format that the file's name asks for."""
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"--out {path}: a figure is a file ending in {', '.join(FORMATS)}")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ConfigError("figures need matplotlib; run: pip install 'seedpo[figures]'") from error


def draw_panels(panels: Sequence[Panel], path: Path, *, width: float) -> None:
    """Writes charts beside and below each other, with one legend under them.

    Args:
        panels: the charts.
        path: of a PDF, SVG or PNG.
        width: of the figure in inches.
    """
    import matplotlib

    rows = math.ceil(len(panels) / max(1, int(width / PANEL_WIDTH)))
    columns = math.ceil(len(panels) / rows)
    styles = {line.label: line for panel in panels for line in panel.lines}
    entries = max(1, min(len(styles), int(width / (0.4 + 0.065 * max(map(len, styles), default=1)))))
    height = min(width / columns * RATIO, HIGHEST)
    with matplotlib.rc_context(STYLE):
        figure = _figure(width, rows * height + 0.16 * math.ceil(len(styles) / entries) + 0.1)
        for index, panel in enumerate(panels):
            letters = int(width / columns * (10 if panel.marks else 12)), int(height * 12)
            _draw(figure.add_subplot(rows, columns, index + 1), panel, letters=letters)
        handles = [_handle(line) for line in styles.values()]
        if len(handles) > 1:
            figure.legend(handles=handles, loc="outside lower center", ncols=entries, frameon=False)
        _save(figure, path)


def draw_grid(
    blocks: Sequence[Block],
    path: Path,
    *,
    rows: Sequence[str],
    columns: Sequence[tuple[str, str, int]],
    width: float,
) -> None:
    """Writes images in rows and columns, at their full size.

    Args:
        blocks: the images.
        path: of a PDF, SVG or PNG.
        rows: what stands beside each row.
        columns: of each block of columns: heading, role (its colour), and how many columns it spans.
        width: of the figure in inches.
    """
    import matplotlib

    spans = sum(span for *_, span in columns)
    label = min(1.1, 0.22 * width)
    gap = 0.05 * (len(columns) - 1)
    side = (width - label - gap) / spans
    height = side * len(rows) + 0.34
    dpi = max(DPI, *(math.ceil(max(block.image.size) / side) for block in blocks))
    starts = [sum(span for *_, span in columns[:index]) for index in range(len(columns))]
    with matplotlib.rc_context(STYLE):
        figure = _figure(width, height, layout=None)

        def left(column: int) -> float:
            block = max(index for index, start in enumerate(starts) if start <= column)
            return label + side * column + 0.05 * block

        for block in blocks:
            bottom = height - 0.34 - side * (block.row + 1)
            box = (left(block.column) / width, bottom / height, 0.985 * side / width, 0.985 * side / height)
            axes = figure.add_axes(box)
            axes.imshow(block.image, interpolation="none")
            axes.set_axis_off()
        for row, text in enumerate(rows):
            place = (height - 0.34 - side * (row + 0.5)) / height
            figure.text((label - 0.06) / width, place, _wrapped(text, label), ha="right", va="center", fontsize=6.0)
        for (text, role, span), start in zip(columns, starts, strict=True):
            middle = (left(start) + 0.5 * side * span) / width
            place = (height - 0.28) / height
            figure.text(middle, place, text, ha="center", va="bottom", color=COLOURS.get(role, "#1a1d21"), fontsize=7.0)
        _save(figure, path, dpi=dpi)


def _wrapped(text: str, width: float) -> str:
    return "\n".join(textwrap.wrap(text, max(8, int(width * 17))))


def _figure(width: float, height: float, layout: Any = "constrained") -> Figure:
    from matplotlib.figure import Figure as Canvas

    return Canvas(figsize=(width, height), layout=layout)


def _draw(axes: Axes, panel: Panel, *, letters: tuple[int, int]) -> None:
    """Draws one chart; its title and the label of its upright axis have at most so many letters in a line."""
    axes.set_title(
        "\n".join(textwrap.wrap(panel.title, letters[0], break_on_hyphens=False)), loc="left", fontweight="bold"
    )
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel("\n".join(textwrap.wrap(panel.y_label, letters[1])))
    for value, label in panel.marks:
        axes.axhline(value, color="#5a636d", linewidth=0.7, linestyle=(0, (2, 3)))
        axes.annotate(
            label,
            (1.01, value),  # beside the chart, where no line crosses it
            xycoords=("axes fraction", "data"),
            fontsize=6.5,
            ha="left",
            va="center",
            color="#5a636d",
        )
    bands = len([line for line in panel.lines if len(line.low)]) <= MOST_BANDS
    for line in panel.lines:
        _line(axes, line, bands=bands)
    if not panel.by_step:
        axes.locator_params(axis="x", nbins=FIGURE_TICKS)
    if panel.x_ticks:
        axes.set_xticks([place for place, _ in panel.x_ticks], [label for _, label in panel.x_ticks])


def _line(axes: Axes, line: Line, *, bands: bool) -> None:
    axes.plot(line.x, line.y, **_look(line))
    ends = [
        (x, y, low, high)
        for x, y, low, high in zip(line.x, line.y, line.low, line.high, strict=False)
        if low < high and not math.isnan(x)
    ]
    if not ends:
        return
    x, y, low, high = zip(*ends, strict=True)
    colour = _colour(line)
    if bands and not line.bars and len(ends) > 1:
        axes.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0)
    else:
        errors = [[b - a for a, b in zip(low, y, strict=True)], [a - b for a, b in zip(high, y, strict=True)]]
        reach = [[max(0.0, value) for value in side] for side in errors]
        axes.errorbar(x, y, yerr=reach, fmt="none", ecolor=colour, elinewidth=0.8, capsize=1.6)


def _look(line: Line) -> dict[str, Any]:
    marked = bool(len(line.steps) or len(line.points))
    return {
        "color": _colour(line),
        "linestyle": DASHES[line.order % len(DASHES)] if line.joined else "none",
        "linewidth": 1.2,
        "marker": MARKERS[line.role] if marked else "none",
        "markersize": 3.2,
        "markeredgewidth": 0.0,
        "label": line.label,
    }


def _handle(line: Line) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], **_look(line))


def _colour(line: Line) -> str:
    from matplotlib.colors import to_hex, to_rgb

    share, grey = SHADES[line.order % len(SHADES)]
    red, green, blue = (share * part + (1 - share) * grey for part in to_rgb(COLOURS[line.role]))
    return to_hex((red, green, blue))


def _save(figure: Figure, path: Path, *, dpi: int = DPI) -> None:
    """Writes the file without its date, so that equal data gives equal bytes."""
    metadata = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}.get(path.suffix.lower(), {})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=dpi, metadata=metadata)
    except OSError as error:
        raise RunFolderError(f"the figure {path} cannot be written ({error.strerror}); name another file") from error
