"""Run folders of preference models (``seedpo reward train``): accuracy on held-out pairs against the steps."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from seedpo.documents import read_yaml
from seedpo.errors import RunFolderError
from seedpo.pages.figures import Panel, style
from seedpo.pages.tables import Cell, Table
from seedpo.pages.wording import count, duration, interval, number, written
from seedpo.reports.charts import curve_line
from seedpo.reports.curves import Curve, Curves, read_curves
from seedpo.reports.runs import read_mapping, read_metrics

ACCURACY = re.compile(r"accuracy/(.+)")
SHOWN = ("start", "model", "data", "timesteps", "batch_size", "learning_rate", "seed")


@dataclass(frozen=True, kw_only=True)
class PreferenceModel:
    """One preference model.

    Attributes:
        name: its folder.
        settings: the keys of its configuration that say what it is, in words.
        panel: accuracy against the steps, by time step.
        table: accuracy at the first and at the last evaluation, by time step.
        notes: what is missing, and what the figures mean.
    """

    name: str
    settings: tuple[tuple[str, str], ...]
    panel: Panel | None
    table: Table | None
    notes: tuple[str, ...]

    @property
    def legend(self) -> list[tuple[str, str, int]]:
        """Label, role and dash pattern of every line."""
        return [(line.label, line.role, line.order) for line in (self.panel.lines if self.panel else ())]


def read_preference_model(folder: Path) -> PreferenceModel:
    """Reads a run folder of ``seedpo reward train``.

    Raises:
        RunFolderError: if its ``config.yaml`` cannot be read.
    """
    path = folder / "config.yaml"
    try:
        config: Mapping[str, Any] = read_yaml(path)
        if not isinstance(config, dict):
            raise ValueError("it holds no keys")
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise RunFolderError(f"{path} cannot be read as YAML ({reason}); restore it or leave this run out") from error
    _, evaluations, notes = read_metrics(folder / "metrics.jsonl")
    finished, _ = read_mapping(folder / "finished.json")
    curves = {match[1]: curve for key, curve in read_curves(evaluations).items() if (match := ACCURACY.fullmatch(key))}
    pairs = [int(record["held_out_pairs"]) for record in evaluations if "held_out_pairs" in record]
    return PreferenceModel(
        name=folder.resolve().name,
        settings=tuple((key, written(config[key])) for key in SHOWN if config.get(key) is not None),
        panel=_panel(curves) if curves else None,
        table=_table(curves) if curves else None,
        notes=(*_state(config, finished, pairs), *notes),
    )


def _state(config: Mapping[str, Any], finished: Mapping[str, Any] | None, pairs: Sequence[int]) -> list[str]:
    notes = [f"Measured on {count(pairs[-1], 'held-out pair')}."] if pairs else []
    if finished is None:
        return [*notes, f"It is not finished: max_steps = {config.get('max_steps', 'unknown')}."]
    seconds = finished.get("seconds")
    return [*notes, f"Trained in {duration(float(seconds))}."] if isinstance(seconds, int | float) else notes


def _table(curves: Curves) -> Table:
    rows = [(key.removeprefix("t="), _cell(curve, 0), _cell(curve, -1)) for key, curve in curves.items()]
    return Table.of(("time step", "accuracy at the first evaluation", "accuracy at the last evaluation"), rows)


def _cell(curve: Curve, index: int) -> Cell:
    point = curve.points[index]
    ends = interval(point.low, point.high)
    return Cell(text=number(point.value), small=(*([ends] if ends else []), f"step {curve.steps[index]}"))


def _panel(curves: Curves) -> Panel:
    lines = []
    for index, (key, curve) in enumerate(curves.items()):
        role, order = style(index)
        lines.append(curve_line(curve, label=key, role=role, order=order))
    panel = Panel(title="Accuracy on held-out pairs", x_label="step", y_label="accuracy", lines=lines)
    return replace(panel, marks=((0.5, "chance"),), width=440.0, height=280.0)
