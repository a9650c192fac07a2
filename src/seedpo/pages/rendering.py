"""The Jinja environment of all pages, and charts as files: text is escaped, and an unknown name is an error."""

from __future__ import annotations

from pathlib import Path

import jinja2

from seedpo.pages.figures import MARKERS, Panel, description, geometry

TEMPLATES = Path(__file__).parent / "templates"
"""Parts that pages share: charts, tables and the style sheet ``page.css``."""


COLOURS = {"base": "#0072b2", "see": "#d55e00", "control": "#b0478a", "term": "#0b8f6e", "free": "#7d8791"}
"""Colours of a chart that is a file; on a page the style sheet chooses them."""

TITLE_HEIGHT = 28.0
"""Height of the title above the plot, in SVG units."""


def environment(*folders: Path) -> jinja2.Environment:
    """An environment that finds the shared parts, too.

    Args:
        folders: with the templates of the page itself.
    """
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, TEMPLATES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals |= {"markers": MARKERS, "geometry": geometry, "description": description}
    return made


def figure_file(panel: Panel) -> str:
    """A chart as an SVG file that stands by itself: light background, system font, legend below."""
    template = environment().get_template("figure.svg.j2")
    return template.render(panel=panel, g=geometry(panel), colours=COLOURS, top=TITLE_HEIGHT)
