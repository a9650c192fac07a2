"""Evaluation folders (``seedpo evaluate``): scores of every image, figures of every prompt, and their summary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from seedpo.core.stats.bootstrap import (
    Interval,
    WinRate,
    mean_interval,
    paired_difference,
    prompt_means,
    tie_width,
    win_rate,
)
from seedpo.data.tables.parquet import require_rows
from seedpo.documents import UNREADABLE, parse_json
from seedpo.errors import RunFolderError
from seedpo.evaluation.folder import EvaluationFolder
from seedpo.evaluation.tables import Place, Table, Values
from seedpo.files import read_bytes
from seedpo.reports.curves import Point, as_number
from seedpo.reports.runs import read_mapping

FIX = "run the same `seedpo evaluate` command again: what is finished is kept"

Row = Mapping[str, Any]


def place_name(place: Place) -> str:
    """Label and step of a model."""
    label, step = place
    return label if step is None else f"{label}, step {step}"


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One evaluation folder.

    Attributes:
        folder: where it lies.
        name: what the page calls it.
        scores: of every image, by reward.
        metrics: of every prompt.
        figures_of: rows of the summary by place and figure; empty while the evaluation is not finished.
        pairs: rows of the summary by place, other place and figure.
        notes: what is missing, one sentence each.
    """

    folder: Path
    name: str
    scores: Table
    metrics: Table
    figures_of: Mapping[tuple[Place, str], Row] = field(default_factory=dict)
    pairs: Mapping[tuple[Place, Place, str], Row] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def places(self) -> list[Place]:
        """Models, each by its training steps."""
        return self.scores.ordered()

    @property
    def rewards(self) -> list[str]:
        """Names of the rewards."""
        return list(self.scores.values)

    @property
    def figures(self) -> list[str]:
        """Rewards, then metrics, then what was measured on all images together."""
        summarised = [figure for _, figure in self.figures_of]
        return list(dict.fromkeys((*self.rewards, *self.metrics.values, *summarised)))

    @property
    def labels(self) -> list[str]:
        """Labels of the models."""
        return list(dict.fromkeys(label for label, _ in self.places))

    @property
    def finals(self) -> list[Place]:
        """Every model once: as such, or at its last step."""
        own = {label: [place for place in self.places if place[0] == label] for label in self.labels}
        return [places[0] if places[0][1] is None else places[-1] for places in own.values()]

    def steps(self, label: str) -> list[Place]:
        """A model at its training steps; empty if it was evaluated as such only."""
        return [place for place in self.places if place[0] == label and place[1] is not None]

    def direction(self, figure: str) -> str:
        """Which values of a figure are better, as the summary says; ``higher`` if it does not."""
        return next(
            (str(row.get("direction")) for (_, name), row in self.figures_of.items() if name == figure), "higher"
        )

    def values(self, place: Place, figure: str) -> Values | None:
        """A figure by image (P, K), or by prompt (P, 1)."""
        return (self.scores.values.get(figure) or self.metrics.values.get(figure) or {}).get(place)

    def point(self, place: Place, figure: str) -> Point | None:
        """A figure with its 95 % bootstrap interval over prompts; ``None`` where it was not measured."""
        row = self.figures_of.get((place, figure))
        if row is not None:
            return Point(value=as_number(row["mean"]), low=as_number(row.get("low")), high=as_number(row.get("high")))
        values = self.values(place, figure)
        if values is None or np.isnan(values).all():
            return None
        interval = mean_interval(prompt_means(values))
        return Point(value=interval.mean, low=interval.low, high=interval.high)

    def difference(self, left: Place, right: Place, figure: str) -> Interval | None:
        """Left minus right over the same prompts."""
        row = self.pairs.get((left, right, figure))
        if row is not None:
            mean, low, high = (as_number(row[f"difference{end}"]) for end in ("", "_low", "_high"))
            return Interval(mean=mean, low=low, high=high, count=int(row["count"]))
        first, second = self.values(left, figure), self.values(right, figure)
        interval = (
            None if first is None or second is None else paired_difference(prompt_means(first), prompt_means(second))
        )
        return interval if interval is not None and interval.count else None

    def wins(self, left: Place, right: Place, reward: str) -> WinRate | None:
        """How often left has the higher reward for the same prompt and latents."""
        row = self.pairs.get((left, right, reward))
        if row is not None and row.get("rate") is not None:
            shares = {name: as_number(row[name]) for name in ("win", "tie", "loss", "low", "high")}
            return WinRate(**shares, count=int(row["count"]))
        first, second = self.values(left, reward), self.values(right, reward)
        if first is None or second is None:
            return None
        # One width for all pairs was asked for; else each follows from the scores that are compared against.
        widths = {as_number(row["tie_width"]) for (*_, name), row in self.pairs.items() if name == reward}
        rate = win_rate(first, second, tie_width=widths.pop() if len(widths) == 1 else tie_width(second))
        return rate if rate.count else None


def read_evaluation(folder: Path) -> Evaluation:
    """Reads one evaluation folder.

    Raises:
        RunFolderError: if its prompts or scores are missing or damaged; the message names the file and the fix.
    """
    parts = EvaluationFolder(folder)
    prompts = _prompts(parts.prompts)
    images = _images(folder / "scores.parquet")
    scores = parts.scores(prompts, images)
    metrics = parts.metrics(prompts)
    notes = []
    if not metrics.places:
        notes.append("It holds no metrics.parquet: diversity and other metrics were not measured.")
    summary, _ = read_mapping(folder / "summary.json")
    try:
        figures = {(_place(row), str(row["figure"])): row for row in summary["figures"] if row["mean"] is not None}
        pairs = {
            (_place(row), _place(row, "other"), str(row["figure"])): row
            for row in summary["pairs"]
            if row["difference"] is not None
        }
    except UNREADABLE:
        figures, pairs = {}, {}
        notes.append("summary.json is missing or damaged: the figures here are computed from the scores alone.")
    return Evaluation(
        folder=folder,
        name=folder.resolve().name,
        scores=scores,
        metrics=metrics,
        figures_of=figures,
        pairs=pairs,
        notes=tuple(notes),
    )


def _prompts(path: Path) -> list[str]:
    try:
        return [str(parse_json(line)["prompt"]) for line in read_bytes(path, text=True).decode().splitlines()]
    except UNREADABLE as error:
        raise RunFolderError(f"{path} is missing or damaged: the evaluation is not finished; {FIX}") from error


def _images(path: Path) -> int:
    """Images of each prompt, from the scores."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    if not path.is_file():
        raise RunFolderError(f"{path} does not exist: the evaluation is not finished; {FIX}")
    try:
        require_rows(path)
        return 1 + int(pc.max(pq.read_table(path, columns=["image_index"])["image_index"]).as_py())
    except (pa.ArrowException, *UNREADABLE) as error:
        reason = " ".join(str(error).split())[:120]
        raise RunFolderError(f"{path} cannot be read ({reason}); delete it, and {FIX}") from error


def _place(row: Row, name: str = "target") -> Place:
    step = row["step" if name == "target" else f"{name}_step"]
    return str(row[name]), None if step is None else int(step)
