"""Frontiers of the benchmark as SVG files that stand by themselves."""

from __future__ import annotations

from collections.abc import Sequence

from seedpo.pages.figures import Line, Panel
from seedpo.pages.rendering import figure_file
from seedpo.reports.hacking_benchmark.analysis import QUANTITIES, Measured, drawn, pools

STYLES = {"base at any beta": ("base", 0), "SEE": ("see", 0), "control": ("control", 1)}
"""Pools that are drawn, with the role that chooses the colour and the dash pattern."""

BANDS = ("base", "see")
"""Roles whose range over the seeds is drawn; the controls are part of the base pool and would cover it."""


def frontier_figure(method: str, measured: Sequence[Measured], key: str) -> str | None:
    """The frontiers of the pools: mean over the seeds, with the range over the seeds as a band, but for the controls.

    Args:
        method: its name, for the title.
        measured: the settings of the method.
        key: the quantity.

    Returns:
        The SVG; `None` if there is no frontier to draw.
    """
    lines = []
    for name, (role, order) in STYLES.items():
        line = drawn(pools(measured).get(name, []), key)
        if line is not None:
            low, high = (line.low, line.high) if role in BANDS else ((), ())
            lines.append(Line(label=name, role=role, order=order, x=line.proxy, y=line.mean, low=low, high=high))
    if not lines:
        return None
    panel = Panel(
        title=f"{method}: best {QUANTITIES[key]} at a proxy of at least x",
        x_label="proxy reward x",
        y_label=f"best {QUANTITIES[key]}",
        lines=lines,
        by_step=False,
        width=560.0,
        height=380.0,
    )
    return figure_file(panel)
