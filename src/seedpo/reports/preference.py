"""Run folders of preference models (``seedpo reward train``): accuracy on held-out pairs against the steps."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from seedpo.errors import RunFolderError
from seedpo.reports.figures import Line, Panel
from seedpo.reports.runs import read_mapping, read_metrics
from seedpo.reports.settings import Curve, Curves, read_curves
from seedpo.reports.wording import count, duration, interval, number, written

ACCURACY = re.compile(r"accuracy/(.+)")
ROLES = ("base", "see", "control")
SHOWN = ("start", "model", "data", "timesteps", "batch_size", "learning_rate", "seed")


@dataclass(frozen=True, kw_only=True)
class PreferenceModel:
    """One preference model.

    Attributes:
        name: its folder.
        settings: the keys of its configuration that say what it is, in words.
        panel: accuracy against the steps, by time step.
        rows: time step, accuracy at the first and at the last evaluation with their intervals.
        notes: what is missing, and what the figures mean.
    """

    name: str
    settings: tuple[tuple[str, str], ...]
    panel: Panel | None
    rows: tuple[tuple[str, str, str], ...]
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
        config: Mapping[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise RunFolderError(f"{path} cannot be read as YAML ({reason}); restore it or leave this run out") from error
    _, evaluations, notes = read_metrics(folder / "metrics.jsonl")
    finished, _ = read_mapping(folder / "finished.json")
    curves = {found[1]: curve for key, curve in read_curves(evaluations).items() if (found := ACCURACY.fullmatch(key))}
    pairs = [int(record["held_out_pairs"]) for record in evaluations if "held_out_pairs" in record]
    return PreferenceModel(
        name=folder.resolve().name,
        settings=tuple((key, written(config[key])) for key in SHOWN if config.get(key) is not None),
        panel=_panel(curves) if curves else None,
        rows=tuple((key.removeprefix("t="), _shown(curve, 0), _shown(curve, -1)) for key, curve in curves.items()),
        notes=(*_state(config, finished, pairs), *notes),
    )


def _state(config: Mapping[str, Any], finished: Mapping[str, Any] | None, pairs: Sequence[int]) -> list[str]:
    notes = [f"Measured on {count(pairs[-1], 'held-out pair')}."] if pairs else []
    if finished is None:
        return [*notes, f"It is not finished ({config.get('max_steps', 'an unknown number of')} steps are asked for)."]
    seconds = finished.get("seconds")
    return [*notes, f"Trained in {duration(float(seconds))}."] if isinstance(seconds, int | float) else notes


def _shown(curve: Curve, index: int) -> str:
    point = curve.points[index]
    return f"{number(point.value)} {interval(point.low, point.high)} at step {curve.steps[index]}".replace("  ", " ")


def _panel(curves: Curves) -> Panel:
    return Panel(
        title="Accuracy on held-out pairs",
        x_label="step",
        y_label="accuracy",
        lines=[
            Line(
                label=key,
                role=ROLES[index % len(ROLES)],
                order=index // len(ROLES),
                x=curve.steps,
                y=curve.values,
                low=[point.low for point in curve.points],
                high=[point.high for point in curve.points],
                points=[f"step {step}" for step in curve.steps],
            )
            for index, (key, curve) in enumerate(curves.items())
        ],
        marks=((0.5, "chance"),),
        width=440.0,
        height=280.0,
    )
