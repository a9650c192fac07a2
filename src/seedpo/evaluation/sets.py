"""Metrics of all images of a target together, against a reference set: a folder of images or another target."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from seedpo.core.stats.bootstrap import Interval, mean_interval
from seedpo.data.image_list import find_images, pixels_of
from seedpo.errors import ConfigError
from seedpo.evaluation.folder import MEND, EvaluationFolder
from seedpo.evaluation.summary import Figure, Measured, figure_of
from seedpo.evaluation.tables import Item
from seedpo.files import write_text, writing
from seedpo.metrics.catalogue import metric_entry
from seedpo.metrics.named import build_features
from seedpo.metrics.records import SetMetric

FILE = "set_metrics.json"
"""What was measured against which reference set."""

IMAGES_AT_A_TIME = 32
"""Images that are opened together."""


def measure_sets(
    folder: EvaluationFolder,
    items: Sequence[Item],
    metrics: Mapping[str, SetMetric],
    reference: str | None,
    *,
    seed: int,
    device: torch.device | str,
    progress: bool = True,
) -> list[Figure]:
    """Figures of all targets and steps; those that were measured before against the same reference set are kept.

    Where a value is a mean over images its interval is the 95 % bootstrap interval over prompts, the reference set
    staying as it is; other values have none.

    Args:
        folder: of the evaluation.
        items: its images.
        metrics: by the names that the user wrote.
        reference: label of a target, or a folder of images; none: nothing new is measured.
        seed: of the resampling.
        device: of the networks.
        progress: whether to show progress bars.

    Raises:
        ConfigError: if there is no such reference set, or a set has too few images.
        DataError: if an image or the weights of features cannot be read.
    """
    before, kept = _before(folder)
    if reference is None or not metrics:
        return kept
    if before != reference:
        kept = []
    sets: dict[tuple[str, int | None], list[Item]] = {}
    for item in items:
        sets.setdefault((item.key[0], item.key[1]), []).append(item)
    references = reference_files(folder, items, reference)
    features: dict[tuple[str, str], Tensor] = {}
    found = list(kept)
    for name, metric in metrics.items():
        known = {(figure.target, figure.step) for figure in kept if figure.figure == name}
        source = _source(name)
        for place, of in sets.items():
            if place in known or place == (reference, None):
                continue
            for what, count in ((f"target {place[0]}", len(of)), (f"--reference {reference}", len(references))):
                if count < (least := metric.facts.least_images):
                    raise ConfigError(f"metric {name} needs at least {least} images; {what} has {count}")
            files = [folder.path / item.file for item in of]
            one, other = (
                _features(features, name, source, label, paths, device, progress=progress)
                for label, paths in ((f"{place[0]} {place[1]}", files), ("reference", references))
            )
            what_is = Measured(name=name, kind="set metric", unit=metric.facts.unit, direction=metric.facts.direction)
            found.append(figure_of(place, what_is, _interval(metric, one, other, of, seed=seed)))
        _write(folder, reference, found)
    return found


def reference_files(folder: EvaluationFolder, items: Sequence[Item], reference: str) -> list[Path]:
    """The images of a reference set.

    Raises:
        ConfigError: if it is neither a target's label nor a place with images.
    """
    own = [folder.path / item.file for item in items if item.key[:2] == (reference, None)]
    if own:
        return own
    if not Path(reference).exists():
        labels = ", ".join(dict.fromkeys(item.key[0] for item in items))
        raise ConfigError(f"--reference {reference} is neither a folder of images nor a target's label ({labels})")
    return [image.path for image in find_images([reference])]


def _interval(metric: SetMetric, one: Tensor, other: Tensor, items: Sequence[Item], *, seed: int) -> Interval:
    value = float(metric.of_features(one, other))
    prompts = [item.key[2] for item in items]
    nothing = Interval(mean=value, low=math.nan, high=math.nan, count=len(set(prompts)))
    if metric.per_image is None:
        return nothing
    added = metric.per_image(one, other).double().numpy()
    rows = np.array(prompts)
    found = mean_interval([added[rows == prompt].mean() for prompt in sorted(set(prompts))], seed=seed)
    return Interval(mean=value, low=found.low, high=found.high, count=found.count)


def _source(name: str) -> str:
    """What makes the features of a metric: metrics of one source share them."""
    entry, place = metric_entry(name)
    return f"{entry.features}@{place}"


@torch.no_grad()
def _features(
    known: dict[tuple[str, str], Tensor],
    metric: str,
    source: str,
    label: str,
    files: Sequence[Path],
    device: torch.device | str,
    *,
    progress: bool,
) -> Tensor:
    """Features (N, D) of image files, computed once."""
    if (source, label) not in known:
        extractor = build_features(metric, device=device)
        if extractor is None:
            raise ConfigError(f"metric {metric} names no features; leave it out")
        starts = range(0, len(files), IMAGES_AT_A_TIME)
        bar = tqdm(starts, desc=f"features of {label}", disable=not progress, leave=False)
        parts = [extractor([pixels_of(path) for path in files[start : start + IMAGES_AT_A_TIME]]) for start in bar]
        known[source, label] = torch.cat(parts)
    return known[source, label]


def _before(folder: EvaluationFolder) -> tuple[str | None, list[Figure]]:
    """The reference set and the figures of an earlier call; nothing if they cannot be read, so that all is measured."""
    try:
        content = json.loads((folder.path / FILE).read_text(encoding="utf-8"))
        return content["reference"], [_read(row) for row in content["figures"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None, []


def _read(row: Mapping[str, Any]) -> Figure:
    numbers = {key: math.nan if row[key] is None else row[key] for key in ("mean", "low", "high")}
    values: dict[str, Any] = {**row, **numbers}
    return Figure(**values)


def _write(folder: EvaluationFolder, reference: str, figures: Sequence[Figure]) -> None:
    rows = [
        {
            key: None if isinstance(value, float) and math.isnan(value) else value
            for key, value in asdict(figure).items()
        }
        for figure in figures
    ]
    with writing(FILE, folder.path, mend=MEND):
        write_text(folder.path / FILE, json.dumps({"reference": reference, "figures": rows}, indent=1) + "\n")
