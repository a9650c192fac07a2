from __future__ import annotations

import math
import re

import pytest

from seedpo.pages.figures import Axis, Line, Panel, description, geometry, tick_label, ticks


def panel(*lines: Line, by_step: bool = True) -> Panel:
    return Panel(title="Truth", x_label="step", y_label="truth", lines=lines, by_step=by_step, marks=((0.0, "zero"),))


def test_ticks_are_round_and_inside() -> None:
    assert ticks(0.0, 1.0) == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert ticks(-19.5, 3.0) == pytest.approx([-15.0, -10.0, -5.0, 0.0])
    assert ticks(0.0, 250.0) == pytest.approx([0, 50, 100, 150, 200, 250])


def test_tick_labels_need_no_more_decimals_than_their_spacing() -> None:
    assert [tick_label(value, 0.25) for value in (-0.5, 0.0, 0.25)] == ["−0.50", "0.00", "0.25"]
    assert tick_label(40.0, 20.0) == "40"
    assert tick_label(20000.0, 10000.0) == "20k"


def test_an_axis_is_linear() -> None:
    axis = Axis(low=-1.0, high=1.0, start=100.0, end=0.0)
    assert [axis(value) for value in (-1.0, 0.0, 1.0)] == [100.0, 50.0, 0.0]


def test_everything_lies_within_the_plot() -> None:
    line = Line(
        label="base", role="base", x=[0, 50, 100], y=[0, -2, 5], low=[-1, -9, 4], high=[1, 2, 7], steps=[0, 50, 100]
    )
    drawn = geometry(panel(line))
    plot = drawn["plot"]
    (one,) = drawn["lines"]
    for path in (one["stroke"], one["band"]):
        for x, y in re.findall(r"[ML]([-\d.]+) ([-\d.]+)", path):
            assert plot["left"] <= float(x) <= plot["right"]
            assert plot["top"] <= float(y) <= plot["bottom"]
    assert [marker["step"] for marker in one["markers"]] == [0, 50, 100]
    assert one["markers"][2]["tip"] == "base, step 100: truth 5"
    assert drawn["x_range"] == (0.0, 100)


def test_missing_interval_ends_leave_no_hole_in_the_band() -> None:
    nan = math.nan
    drawn = geometry(panel(Line(label="a", role="see", x=[0, 1, 2], y=[0, 1, 2], low=[nan, 0, 1], high=[nan, 2, 3])))
    assert "nan" not in drawn["lines"][0]["band"]
    assert drawn["lines"][0]["band"].count("L") == 3
    bare = geometry(panel(Line(label="a", role="see", x=[0, 1], y=[0, 1], low=[nan, nan], high=[nan, nan])))
    assert bare["lines"][0]["band"] == ""


def test_single_and_constant_values_can_be_drawn() -> None:
    rows: list[list[float]] = [[0.0], [3.0, 3.0], []]
    for values in rows:
        for by_step in (True, False):
            steps = [0] * len(values)
            drawn = geometry(panel(Line(label="a", role="base", x=steps, y=values, steps=steps), by_step=by_step))
            assert "nan" not in str(drawn["lines"])


def test_the_description_says_what_the_curves_do() -> None:
    text = description(panel(Line(label="base", role="base", x=[0, 1], y=[0.1, -0.25])))
    assert text == "Truth, truth against step. base from 0.1 to -0.25."


def test_many_bands_become_bars_beside_each_other() -> None:
    steps = (0, 10)
    lines = [
        Line(label=str(i), role="see", order=i, x=steps, y=(0, i), low=(-1, i - 1), high=(1, i + 1), steps=steps)
        for i in range(4)
    ]
    few, many = (geometry(Panel(title="", x_label="step", y_label="y", lines=lines[:n])) for n in (3, 4))
    assert all(line["band"] and not line["bars"] for line in few["lines"])
    assert all(line["bars"] and not line["band"] for line in many["lines"])
    assert len({line["bars"].split()[0] for line in many["lines"]}) == 4, "no bar hides another"


def test_long_labels_of_the_y_axis_get_room() -> None:
    lines = [Line(label="a", role="base", x=(0, 1), y=(0.169725, 0.1697251))]
    wide = geometry(Panel(title="", x_label="x", y_label="y", lines=lines, by_step=False))
    longest = max(len(tick["label"]) for tick in wide["y_ticks"])
    assert wide["plot"]["left"] >= 6 * longest + 20
