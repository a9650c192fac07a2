"""Measuring the images of an evaluation folder; what was measured before is not measured again."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from seedpo.core.stats.bootstrap import Interval, mean_interval
from seedpo.data.image_list import ListedImage, find_images, pixels_of
from seedpo.data.images.pixels import to_tensor
from seedpo.documents import UNREADABLE, read_json
from seedpo.errors import ConfigError, DataError
from seedpo.evaluation.drawing import as_samples
from seedpo.evaluation.folder import Grid
from seedpo.evaluation.score import Scoring, score_images
from seedpo.evaluation.summary import Figure, Measured, figure_of, without_nan
from seedpo.evaluation.tables import FIX, Table
from seedpo.files import write_text, writing
from seedpo.metrics.catalogue import metric_entry
from seedpo.metrics.named import build_features
from seedpo.metrics.records import Metric, Samples, SetMetric
from seedpo.rewards.named import combined
from seedpo.rewards.names import leaves

NUMBERS_AT_A_TIME = 2**26
"""Bound on the pixel values that metrics look at together, times three colours: 256 MiB."""

SET_METRICS = "set_metrics.json"
"""What was measured against which reference set."""

IMAGES_AT_A_TIME = 32
"""Images from which features are computed together."""


def score_missing(grid: Grid, rewards: Sequence[str], scoring: Scoring) -> Table:
    """Scores images with rewards, one model after another; the table is written after each.

    Args:
        grid: the images.
        rewards: names, as users write them.
        scoring: how they score.

    Raises:
        SeedpoError: as :func:`seedpo.evaluation.score.score_images`; what was finished before is kept.
    """
    table, definitions = grid.folder.scores(grid.prompts, grid.images), scoring.definitions
    table.places.update(dict.fromkeys(grid.places))
    # Sums last: their terms may then be known already.
    for name in sorted(rewards, key=lambda name: name in definitions):
        missing = table.missing(name, grid.places)
        if not missing:
            continue
        parts = leaves(name, definitions)
        if parts != [name] and not any(table.missing(part, missing) for part in parts):
            known = {part: np.stack([table.values[part][place] for place in missing]) for part in parts}
            tensors = {part: torch.from_numpy(values).float() for part, values in known.items()}
            scores = combined(name, definitions, tensors)
        else:
            prompts = [prompt for prompt in grid.prompts for _ in range(grid.images)]
            images = [
                ListedImage(path=path, prompt=prompt)
                for place in missing
                for path, prompt in zip(grid.files(place), prompts, strict=True)
            ]
            scores = score_images(images, [name], scoring).scores[name]
        table.put(name, dict(zip(missing, scores.double().view(-1, *table.shape).numpy(), strict=True)))
        table.write()
    if grid.places and not table.path.is_file():
        table.write()
    return table


def measure_missing(grid: Grid, metrics: Mapping[str, Metric], *, progress: bool = True) -> Table:
    """Measures metrics, a few prompts at a time; the table is written after each target and step.

    Args:
        grid: the images.
        metrics: by name.
        progress: whether to show progress bars.

    Raises:
        DataError: if an image cannot be read, or images of one target differ in size.
        RunFolderError: if the table cannot be written.
    """
    table = grid.folder.metrics(grid.prompts)
    for place in grid.places:
        missing = {name: metric for name, metric in metrics.items() if table.missing(name, [place])}
        if not missing:
            continue
        files, count = grid.files(place), len(grid.prompts)
        numbers = grid.images * to_tensor(pixels_of(files[0])).numel()
        size = max(1, NUMBERS_AT_A_TIME // max(1, numbers))
        parts: dict[str, list[Tensor]] = {name: [] for name in missing}
        label, step = place
        title = f"metrics of {label}" if step is None else f"metrics of {label} at step {step}"
        for start in tqdm(range(0, count, size), desc=title, disable=not progress, leave=False):
            end = min(start + size, count)
            samples = _samples(files[start * grid.images : end * grid.images], grid.prompts[start:end], label)
            for name, metric in missing.items():
                parts[name].append(metric.per_prompt(samples).double().cpu())
        for name, values in parts.items():
            table.put(name, {place: torch.cat(values)[:, None].numpy()})
        table.write()
    return table


def _samples(files: Sequence[Path], prompts: Sequence[str], label: str) -> Samples:
    pixels = [to_tensor(pixels_of(path)) for path in files]
    for path, image in zip(files, pixels, strict=True):
        if image.shape != pixels[0].shape:
            raise DataError(
                f"{path} has another size than the other images of {label}; delete it and run the same command again"
            )
    return as_samples(torch.stack(pixels), prompts)


def measure_sets(
    grid: Grid,
    metrics: Mapping[str, SetMetric],
    reference: str | None,
    *,
    seed: int,
    device: torch.device,
    progress: bool = True,
) -> list[Figure]:
    """Measures all images of a target together; figures from before against the same reference set are kept.

    A value that is a mean over images has the 95 % bootstrap interval over prompts, for this reference set. Other
    values have none.

    Args:
        grid: the images.
        metrics: by the names that the user wrote.
        reference: label of a target, or a folder of images; `None` if nothing new is measured.
        seed: of the resampling.
        device: of the networks.
        progress: whether to show progress bars.

    Raises:
        ConfigError: if a set has too few images.
        DataError: if there is no such reference set, or an image or the weights of features cannot be read.
    """
    path = grid.folder.path / SET_METRICS
    before, figures = _read_sets(path)
    if reference is None or not metrics:
        return figures
    if before != reference:
        figures = []
    if (reference, None) in grid.places:
        reference_files = grid.files((reference, None))
    else:
        reference_files = [image.path for image in find_images([reference])]
    features: dict[tuple[str, str], Tensor] = {}

    def features_of(name: str, label: str, files: Sequence[Path]) -> Tensor:
        """Features (N, D), computed once for all metrics that look at them."""
        entry, place = metric_entry(name)
        key = (f"{entry.features}@{place}", label)
        if key not in features:
            features[key] = _features(name, label, files, device=device, progress=progress)
        return features[key]

    for name, metric in metrics.items():
        known = {(figure.target, figure.step) for figure in figures if figure.figure == name}
        facts = metric.facts
        measured = Measured(name=name, kind="set metric", unit=facts.unit, direction=facts.direction)
        for place in grid.places:
            if place in known or place == (reference, None):
                continue
            files = grid.files(place)
            for what, count in ((f"target {place[0]}", len(files)), (f"--reference {reference}", len(reference_files))):
                if count < (least := facts.least_images):
                    raise ConfigError(f"metric {name} needs at least {least} images; {what} has {count}")
            own, others = (
                features_of(name, f"{place[0]} {place[1]}", files),
                features_of(name, "reference", reference_files),
            )
            figures.append(figure_of(place, measured, _set_interval(grid, metric, own, others, seed=seed)))
        with writing(SET_METRICS, path.parent, fix=FIX):
            rows = [without_nan(asdict(figure)) for figure in figures]
            write_text(path, json.dumps({"reference": reference, "figures": rows}, indent=1) + "\n")
    return figures


@torch.no_grad()
def _features(metric: str, label: str, files: Sequence[Path], *, device: torch.device, progress: bool) -> Tensor:
    extractor = build_features(metric, device=device)
    assert extractor is not None  # every metric of a set looks at features
    starts = range(0, len(files), IMAGES_AT_A_TIME)
    bar = tqdm(starts, desc=f"features of {label}", disable=not progress, leave=False)
    return torch.cat(
        [extractor([pixels_of(path) for path in files[start : start + IMAGES_AT_A_TIME]]) for start in bar]
    )


def _set_interval(grid: Grid, metric: SetMetric, images: Tensor, reference: Tensor, *, seed: int) -> Interval:
    value, count = float(metric.of_features(images, reference)), len(grid.prompts)
    if metric.per_image is None:
        return Interval(mean=value, low=math.nan, high=math.nan, count=count)
    per_image = metric.per_image(images, reference).double().numpy().reshape(count, grid.images)
    return replace(mean_interval(per_image.mean(1), seed=seed), mean=value)


def _read_sets(path: Path) -> tuple[str | None, list[Figure]]:
    """Reference set and figures of an earlier command; none if they cannot be read, so that all is measured."""
    try:
        content = read_json(path)
        rows = [
            row | {key: math.nan if row[key] is None else row[key] for key in ("mean", "low", "high")}
            for row in content["figures"]
        ]
        return content["reference"], [Figure(**row) for row in rows]
    except UNREADABLE:
        return None, []
