"""Evaluation folders (``seedpo evaluate``) as they lie on disk: scores of every image, figures of every prompt."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seedpo.core.stats.bootstrap import Interval, WinRate, mean_interval, paired_difference, prompt_means, win_rate
from seedpo.errors import RunFolderError
from seedpo.reports.curves import Point

Values = NDArray[np.float64]

IMAGE_COLUMNS = ("target", "step", "prompt_index", "image_index", "prompt", "file")
METRIC_COLUMNS = ("target", "step", "prompt_index", "prompt")
FIX = "run the same `seedpo evaluate` command again: what is finished is kept"


@dataclass(frozen=True, kw_only=True, order=True)
class Target:
    """One model, at one training step where it was evaluated over its training.

    Attributes:
        label: name of the model.
        step: optimiser steps; -1 where it is not a step of a training.
    """

    label: str
    step: int = -1

    @property
    def name(self) -> str:
        """Label and step."""
        return self.label if self.step < 0 else f"{self.label}, step {self.step}"


Pair = tuple[Target, Target, str]
"""Two models and the figure by which they are compared."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The figures and pairs of a summary.

    Attributes:
        points: figures with their intervals.
        directions: ``higher``, ``lower`` or ``neither``, by figure.
        differences: paired differences, the first model less the second.
        wins: win rates of the first model.
        tie_widths: by reward, the size up to which differences are ties.
    """

    points: Mapping[tuple[Target, str], Point] = field(default_factory=dict)
    directions: Mapping[str, str] = field(default_factory=dict)
    differences: Mapping[Pair, Interval] = field(default_factory=dict)
    wins: Mapping[Pair, WinRate] = field(default_factory=dict)
    tie_widths: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One evaluation folder.

    Attributes:
        folder: where it lies.
        name: what the page calls it.
        prompts: what was drawn, by prompt index.
        images: images per prompt.
        targets: what was evaluated, in the order of the scores.
        scores: by target and reward, (P, K); NaN where an image has none.
        metrics: by target and metric, one value for each prompt, (P,).
        files: by target, the file of each image, (P, K), empty where there is none.
        summary: what the evaluation says of itself; empty while it is not finished.
        notes: what is missing, one sentence each.
    """

    folder: Path
    name: str
    prompts: tuple[str, ...]
    images: int
    targets: tuple[Target, ...]
    scores: Mapping[Target, Mapping[str, Values]]
    metrics: Mapping[Target, Mapping[str, Values]]
    files: Mapping[Target, Sequence[Sequence[str]]]
    summary: Summary
    notes: tuple[str, ...]

    @property
    def rewards(self) -> tuple[str, ...]:
        """Names of the rewards."""
        return tuple(dict.fromkeys(name for scores in self.scores.values() for name in scores))

    @property
    def figures(self) -> tuple[str, ...]:
        """Rewards, then metrics, then what was measured on all images together."""
        metrics = [name for metrics in self.metrics.values() for name in metrics]
        summarised = [name for _, name in self.summary.points]
        return tuple(dict.fromkeys((*self.rewards, *metrics, *summarised)))

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of the models."""
        return tuple(dict.fromkeys(target.label for target in self.targets))

    @property
    def finals(self) -> tuple[Target, ...]:
        """Every model once: as such, or at its last step."""
        return tuple(
            next(
                (one for one in self.targets if one.label == label and one.step < 0),
                max(one for one in self.targets if one.label == label),
            )
            for label in self.labels
        )

    def values(self, target: Target, figure: str) -> Values | None:
        """A figure by prompt, (P,): a reward's mean over the images of a prompt, or a metric."""
        if figure in self.scores.get(target, {}):
            return prompt_means(self.scores[target][figure])
        return self.metrics.get(target, {}).get(figure)

    def point(self, target: Target, figure: str) -> Point | None:
        """A figure with its 95 % bootstrap interval over prompts; nothing where it was not measured.

        As the summary has it, or else computed from the scores.
        """
        if (target, figure) in self.summary.points:
            return self.summary.points[target, figure]
        values = self.values(target, figure)
        if values is None or np.isnan(values).all():
            return None
        found = mean_interval(values)
        return Point(value=found.mean, low=found.low, high=found.high)

    def difference(self, left: Target, right: Target, figure: str) -> Interval | None:
        """Left less right over the same prompts."""
        if (left, right, figure) in self.summary.differences:
            return self.summary.differences[left, right, figure]
        one, other = self.values(left, figure), self.values(right, figure)
        found = None if one is None or other is None else paired_difference(one, other)
        return found if found is not None and found.count else None

    def wins(self, left: Target, right: Target, reward: str) -> WinRate | None:
        """How often left has the higher reward for the same prompt and latents."""
        if (left, right, reward) in self.summary.wins:
            return self.summary.wins[left, right, reward]
        one, other = self.scores[left].get(reward), self.scores[right].get(reward)
        width = self.summary.tie_widths.get(reward, 0.0)
        found = None if one is None or other is None else win_rate(one, other, tie_width=width)
        return found if found is not None and found.count else None


def read_evaluation(folder: Path) -> Evaluation:
    """Reads one evaluation folder.

    Raises:
        RunFolderError: if its scores are missing or damaged; the message names the file and how to fix it.
    """
    rows = _table(folder / "scores.parquet", ("target", "prompt_index", "image_index"))
    if not rows:
        raise RunFolderError(f"{folder / 'scores.parquet'} holds no image; {FIX}")
    count = 1 + max(int(row["prompt_index"]) for row in rows)
    images = 1 + max(int(row["image_index"]) for row in rows)
    prompts = {int(row["prompt_index"]): str(row.get("prompt", "")) for row in rows}
    targets = tuple(dict.fromkeys(_target(row) for row in rows))
    names = [key for key in rows[0] if key not in IMAGE_COLUMNS]
    scores: dict[Target, dict[str, Values]] = {
        target: {name: np.full((count, images), math.nan) for name in names} for target in targets
    }
    files = {target: [[""] * images for _ in range(count)] for target in targets}
    for row in rows:
        target, place = _target(row), (int(row["prompt_index"]), int(row["image_index"]))
        files[target][place[0]][place[1]] = str(row.get("file") or "")
        for name in names:
            scores[target][name][place] = number(row[name])
    notes: list[str] = []
    metrics = _metrics(folder / "metrics.parquet", targets, count, notes)
    summary = read_summary(folder / "summary.json")
    if summary is None:
        notes.append("summary.json is missing or damaged: the figures here are computed from the scores alone.")
    return Evaluation(
        folder=folder,
        name=folder.resolve().name,
        prompts=tuple(prompts.get(index, "") for index in range(count)),
        images=images,
        targets=targets,
        scores={target: {k: v for k, v in own.items() if not np.isnan(v).all()} for target, own in scores.items()},
        metrics=metrics,
        files=files,
        summary=summary or Summary(),
        notes=tuple(notes),
    )


def _table(path: Path, required: Sequence[str]) -> list[dict[str, Any]]:
    import pyarrow.parquet as parquet
    from pyarrow import ArrowException

    if not path.is_file():
        raise RunFolderError(f"{path.parent} holds no {path.name}: the evaluation is not finished; {FIX}")
    try:
        table = parquet.read_table(path)
    except (ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise RunFolderError(f"{path} cannot be read ({reason}); remove it, and {FIX}") from error
    missing = [name for name in required if name not in table.column_names]
    if missing:
        raise RunFolderError(f"{path} has no column {missing[0]!r}; remove it, and {FIX}")
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def _target(row: Mapping[str, Any], name: str = "target", step: str = "step") -> Target:
    return Target(label=str(row[name]), step=-1 if row.get(step) is None else int(row[step]))


def _metrics(
    path: Path, targets: Sequence[Target], count: int, notes: list[str]
) -> Mapping[Target, Mapping[str, Values]]:
    if not path.is_file():
        notes.append("It holds no metrics.parquet: diversity and other metrics were not measured.")
        return {}
    rows = _table(path, ("target", "prompt_index"))
    found: dict[Target, dict[str, Values]] = {target: {} for target in targets}
    for row in rows:
        target, index = _target(row), int(row["prompt_index"])
        if target not in found or index >= count:
            continue
        for name, value in row.items():
            if name not in METRIC_COLUMNS and not isinstance(value, str):
                found[target].setdefault(name, np.full(count, math.nan))[index] = number(value)
    return {target: {k: v for k, v in own.items() if not np.isnan(v).all()} for target, own in found.items()}


def read_summary(path: Path) -> Summary | None:
    """Reads a summary; nothing if it is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        figures = [row for row in content["figures"] if row.get("mean") is not None]
        pairs = [row for row in content["pairs"] if row.get("difference") is not None]
        return Summary(
            points={(_target(row), str(row["figure"])): _point(row) for row in figures},
            directions={str(row["figure"]): str(row.get("direction", "higher")) for row in figures},
            differences={_pair(row): _difference(row) for row in pairs},
            wins={_pair(row): _wins(row) for row in pairs if row.get("rate") is not None},
            tie_widths={str(row["figure"]): number(row["tie_width"]) for row in pairs if row.get("tie_width")},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def number(value: Any) -> float:
    """The value if it is a finite number, else NaN."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if usable else math.nan


def _pair(row: Mapping[str, Any]) -> Pair:
    return _target(row), _target(row, "other", "other_step"), str(row["figure"])


def _point(row: Mapping[str, Any]) -> Point:
    return Point(value=number(row["mean"]), low=number(row.get("low")), high=number(row.get("high")))


def _difference(row: Mapping[str, Any]) -> Interval:
    return Interval(
        mean=number(row["difference"]),
        low=number(row["difference_low"]),
        high=number(row["difference_high"]),
        count=int(row["count"]),
    )


def _wins(row: Mapping[str, Any]) -> WinRate:
    shares = {name: number(row[name]) for name in ("win", "tie", "loss", "low", "high")}
    return WinRate(**shares, count=int(row["count"]))
