"""Frontiers as SVG files that stand by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from seedpo.reports.figures import Line, Panel, description, geometry
from seedpo.reports.hacking_benchmark.analysis import QUANTITIES, Measured, drawn, pools

ROLES = {"base at any beta": "base", "SEE": "see", "control": "control"}
"""Pools that are drawn, and the role that chooses their colour."""

COLOURS = {"base": "#0072b2", "see": "#d55e00", "control": "#00805d"}
DASHES = {"base": "", "see": "", "control": "6 4"}

BANDS = ("base", "see")
"""Roles whose range over the seeds is drawn; the controls are part of the base pool and would cover it."""

WIDTH, HEIGHT, LEGEND = 560.0, 380.0, 28.0
"""Size in SVG units, and the height of the legend above the plot."""


def frontier_figure(method: str, measured: Sequence[Measured], key: str) -> str | None:
    """The frontiers of the pools: mean over the seeds, with the range over the seeds as a band, but for the controls.

    Args:
        method: its name, for the title.
        measured: the settings of the method.
        key: the quantity.

    Returns:
        The SVG; nothing if there is no frontier to draw.
    """
    lines = []
    for name, role in ROLES.items():
        line = drawn(pools(measured).get(name, []), key)
        if line is not None:
            low, high = (line.low, line.high) if role in BANDS else ((), ())
            lines.append(Line(label=name, role=role, x=line.proxy, y=line.mean, low=low, high=high))
    if not lines:
        return None
    panel = Panel(
        title=f"{method}: best {QUANTITIES[key]} at a proxy of at least x",
        x_label="proxy reward x",
        y_label=f"best {QUANTITIES[key]}",
        lines=lines,
        by_step=False,
        width=WIDTH,
        height=HEIGHT,
    )
    return svg(panel)


def svg(panel: Panel) -> str:
    """A chart as a file of its own: light background, system font, a legend."""
    drawing = geometry(panel)
    plot = drawing["plot"]
    parts = [*_axes(drawing, plot), *_curves(drawing, panel), *_legend(panel, plot)]
    height = panel.height + LEGEND
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {panel.width:g} {height:g}" width="{panel.width:g}" '
        f'height="{height:g}" role="img" font-family="system-ui, sans-serif" font-size="11.5" fill="#1a1d21">\n'
        f"<title>{escape(description(panel))}</title>\n"
        f'<rect width="100%" height="100%" fill="#ffffff"/>\n'
        f'<text x="{plot["left"]:g}" y="16" font-weight="600">{escape(panel.title)}</text>\n'
        f'<g transform="translate(0 {LEGEND:g})">\n' + "\n".join(parts) + "\n</g>\n</svg>\n"
    )


def _axes(drawing: dict[str, Any], plot: dict[str, float]) -> list[str]:
    left, right, top, bottom = (plot[side] for side in ("left", "right", "top", "bottom"))
    panel, parts = drawing["panel"], []
    for tick in drawing["y_ticks"]:
        parts.append(f'<line x1="{left:g}" x2="{right:g}" y1="{tick["at"]:g}" y2="{tick["at"]:g}" stroke="#e8ebef"/>')
        parts.append(_text(left - 6, tick["at"] + 3.8, tick["label"], anchor="end"))
    for tick in drawing["x_ticks"]:
        parts.append(f'<line x1="{tick["at"]:g}" x2="{tick["at"]:g}" y1="{top:g}" y2="{bottom:g}" stroke="#e8ebef"/>')
        parts.append(_text(tick["at"], bottom + 15, tick["label"]))
    parts.append(f'<line x1="{left:g}" x2="{right:g}" y1="{bottom:g}" y2="{bottom:g}" stroke="#5a636d"/>')
    parts.append(_text((left + right) / 2, panel.height - 8, panel.x_label))
    middle = (top + bottom) / 2
    parts.append(
        f'<text transform="translate(12 {middle:g}) rotate(-90)" text-anchor="middle">{escape(panel.y_label)}</text>'
    )
    return parts


def _curves(drawing: dict[str, Any], panel: Panel) -> list[str]:
    bands, strokes = [], []
    for line, shape in zip(panel.lines, drawing["lines"], strict=True):
        colour, dash = COLOURS[line.role], DASHES[line.role]
        if shape["band"]:
            bands.append(f'<path d="{shape["band"]}" fill="{colour}" fill-opacity="0.14"/>')
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        strokes.append(f'<path d="{shape["stroke"]}" fill="none" stroke="{colour}" stroke-width="2"{dashed}/>')
    return bands + strokes


def _legend(panel: Panel, plot: dict[str, float]) -> list[str]:
    """Lower left, where a frontier, which never rises, leaves room."""
    parts = []
    for index, line in enumerate(reversed(panel.lines)):
        y = plot["bottom"] - 12 - 17 * index
        x, dash = plot["left"] + 10, DASHES[line.role]
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        parts.append(
            f'<line x1="{x:g}" x2="{x + 26:g}" y1="{y:g}" y2="{y:g}" stroke="{COLOURS[line.role]}" '
            f'stroke-width="2"{dashed}/>'
        )
        parts.append(_text(x + 32, y + 3.8, line.label, anchor="start"))
    return parts


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(text)}</text>'
