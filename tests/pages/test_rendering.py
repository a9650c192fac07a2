from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from jinja2 import UndefinedError

from seedpo.pages.figures import Line, Panel
from seedpo.pages.rendering import COLOURS, environment, figure_file


def test_a_chart_is_a_file_that_stands_by_itself() -> None:
    line = Line(label="a < b", role="see", x=[0, 1, 2], y=[1, 2, 0], low=[0, 1, -1], high=[2, 3, 1])
    panel = Panel(title="Truth & more", x_label="proxy", y_label="truth", lines=[line], by_step=False)
    drawing = ET.fromstring(figure_file(panel))
    words = "".join(drawing.itertext())
    assert {"Truth & more", "proxy", "a < b"} <= {text.strip() for text in words.splitlines()}
    assert COLOURS["see"] in words
    assert len(drawing.findall(".//{*}path")) == 3, "band, curve and the swatch of the legend"


def test_unknown_names_are_errors_and_text_is_escaped() -> None:
    made = environment()
    assert made.from_string("{{ text }}").render(text="<b>") == "&lt;b&gt;"
    with pytest.raises(UndefinedError):
        made.from_string("{{ nothing }}").render()
