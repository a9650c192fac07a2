"""Measuring the images of an evaluation folder; what was measured before is not measured again."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from seedpo.core.stats.bootstrap import Interval, mean_interval
from seedpo.data.image_list import ListedImage, find_images, pixels_of
from seedpo.data.images import to_tensor
from seedpo.errors import ConfigError, DataError
from seedpo.evaluation.drawing import as_samples
from seedpo.evaluation.folder import MEND, EvaluationFolder
from seedpo.evaluation.score import Scoring, score_images
from seedpo.evaluation.summary import Figure, Measured, figure_of, without_nan
from seedpo.evaluation.tables import Place, Table
from seedpo.files import write_text, writing
from seedpo.metrics.catalogue import metric_entry
from seedpo.metrics.named import build_features
from seedpo.metrics.records import Metric, Samples, SetMetric
from seedpo.rewards.named import combined, leaves

NUMBERS_AT_A_TIME = 2**26
"""Bound on the pixel values that metrics look at together, times three colours: 256 MiB."""

SET_METRICS = "set_metrics.json"
"""What was measured against which reference set."""

IMAGES_AT_A_TIME = 32
"""Images from which features are computed together."""


def score_missing(
    folder: EvaluationFolder, table: Table, places: Sequence[Place], rewards: Sequence[str], scoring: Scoring
) -> None:
    """Scores the images of places with rewards, one model after another; the table is written after each.

    Args:
        folder: of the evaluation; its images exist.
        table: of scores.
        places: targets and steps.
        rewards: names, as users write them.
        scoring: how they score.

    Raises:
        SeedpoError: as :func:`seedpo.evaluation.score.score_images`; what was finished before is kept.
    """
    table.places.update(dict.fromkeys(places))
    prompts, images = table.shape
    # Sums last: their terms may then be known already.
    for name in sorted(rewards, key=lambda name: name in scoring.definitions):
        missing = table.missing(name, places)
        if not missing:
            continue
        parts = leaves(name, scoring.definitions)
        if name in scoring.definitions and not any(table.missing(part, missing) for part in parts):
            known = {part: np.stack([table.values[part][place] for place in missing]) for part in parts}
            scores = combined(
                name, scoring.definitions, {part: torch.from_numpy(values).float() for part, values in known.items()}
            )
        else:
            listed = [
                ListedImage(path=folder.image(place, prompt, image), prompt=table.prompts[prompt])
                for place in missing
                for prompt in range(prompts)
                for image in range(images)
            ]
            scores = score_images(listed, [name], scoring).scores[name]
        table.put(name, dict(zip(missing, scores.double().view(len(missing), prompts, images).numpy(), strict=True)))
        table.write()
    if places and not table.path.is_file():
        table.write()


def measure_missing(
    folder: EvaluationFolder,
    table: Table,
    places: Sequence[Place],
    metrics: Mapping[str, Metric],
    *,
    images: int,
    progress: bool = True,
) -> None:
    """Measures metrics of places, a few prompts at a time; the table is written after each place.

    Args:
        folder: of the evaluation; its images exist.
        table: of metrics.
        places: targets and steps.
        metrics: by name.
        images: of each prompt.
        progress: whether to show progress bars.

    Raises:
        DataError: if an image cannot be read, or images of one target differ in size.
        RunFolderError: if the table cannot be written.
    """
    for place in places:
        missing = {name: metric for name, metric in metrics.items() if table.missing(name, [place])}
        if not missing:
            continue
        numbers = images * to_tensor(pixels_of(folder.image(place, 0, 0))).numel()
        size = max(1, NUMBERS_AT_A_TIME // max(1, numbers))
        parts: dict[str, list[Tensor]] = {name: [] for name in missing}
        label, step = place
        title = f"metrics of {label}" if step is None else f"metrics of {label} at step {step}"
        for start in tqdm(range(0, len(table.prompts), size), desc=title, disable=not progress, leave=False):
            rows = range(start, min(start + size, len(table.prompts)))
            samples = _samples(folder, place, {row: table.prompts[row] for row in rows}, images)
            for name, metric in missing.items():
                parts[name].append(metric.per_prompt(samples).double().cpu())
        for name, values in parts.items():
            table.put(name, {place: torch.cat(values)[:, None].numpy()})
        table.write()


def _samples(folder: EvaluationFolder, place: Place, prompts: Mapping[int, str], images: int) -> Samples:
    """The images of some prompts, by their indices."""
    shape: torch.Size | None = None
    pixels = []
    for prompt in prompts:
        for image in range(images):
            path = folder.image(place, prompt, image)
            pixels.append(to_tensor(pixels_of(path)))
            shape = shape or pixels[-1].shape
            if pixels[-1].shape != shape:
                raise DataError(
                    f"{path} has another size than the other images of {place[0]}; delete it and run the same command "
                    "again"
                )
    return as_samples(torch.stack(pixels), list(prompts.values()))


@dataclass(kw_only=True)
class SetMeasurement:
    """Measuring metrics of all images of a target together, against a reference set.

    Attributes:
        folder: of the evaluation.
        grid: prompts and images of each target.
        seed: of the resampling.
        device: of the networks.
        progress: whether to show progress bars.
    """

    folder: EvaluationFolder
    grid: tuple[int, int]
    seed: int
    device: torch.device | str
    progress: bool = True
    _features: dict[tuple[str, str], Tensor] = field(default_factory=dict)

    def figures(self, places: Sequence[Place], metrics: Mapping[str, SetMetric], reference: str | None) -> list[Figure]:
        """Figures of all targets and steps; those measured before against the same reference set are kept.

        A value that is a mean over images has the 95 % bootstrap interval over prompts, for this reference set. Other
        values have none.

        Args:
            places: targets and steps.
            metrics: by the names that the user wrote.
            reference: label of a target, or a folder of images; `None` if nothing new is measured.

        Raises:
            ConfigError: if there is no such reference set, or a set has too few images.
            DataError: if an image or the weights of features cannot be read.
        """
        before, figures = self._before()
        if reference is None or not metrics:
            return figures
        if before != reference:
            figures = []
        files = self.reference_files(places, reference)
        for name, metric in metrics.items():
            known = {(figure.target, figure.step) for figure in figures if figure.figure == name}
            facts = metric.facts
            measured = Measured(name=name, kind="set metric", unit=facts.unit, direction=facts.direction)
            for place in places:
                if place in known or place == (reference, None):
                    continue
                own = self._files(place)
                for what, count in ((f"target {place[0]}", len(own)), (f"--reference {reference}", len(files))):
                    if count < (least := facts.least_images):
                        raise ConfigError(f"metric {name} needs at least {least} images; {what} has {count}")
                images = self._features_of(name, f"{place[0]} {place[1]}", own)
                references = self._features_of(name, "reference", files)
                figures.append(figure_of(place, measured, self._interval(metric, images, references)))
            with writing(SET_METRICS, self.folder.path, mend=MEND):
                rows = [without_nan(asdict(figure)) for figure in figures]
                content = json.dumps({"reference": reference, "figures": rows}, indent=1)
                write_text(self.folder.path / SET_METRICS, content + "\n")
        return figures

    def reference_files(self, places: Sequence[Place], reference: str) -> list[Path]:
        """The images of a reference set.

        Raises:
            ConfigError: if it is neither a target's label nor a place with images.
        """
        if (reference, None) in places:
            return self._files((reference, None))
        if not Path(reference).exists():
            labels = ", ".join(dict.fromkeys(label for label, _ in places))
            raise ConfigError(f"--reference {reference} is neither a folder of images nor a target's label ({labels})")
        return [image.path for image in find_images([reference])]

    def _files(self, place: Place) -> list[Path]:
        prompts, images = self.grid
        return [self.folder.image(place, prompt, image) for prompt in range(prompts) for image in range(images)]

    def _interval(self, metric: SetMetric, images: Tensor, reference: Tensor) -> Interval:
        value, count = float(metric.of_features(images, reference)), self.grid[0]
        if metric.per_image is None:
            return Interval(mean=value, low=math.nan, high=math.nan, count=count)
        per_image = metric.per_image(images, reference).double().numpy().reshape(self.grid)
        interval = mean_interval(per_image.mean(1), seed=self.seed)
        return Interval(mean=value, low=interval.low, high=interval.high, count=interval.count)

    @torch.no_grad()
    def _features_of(self, metric: str, label: str, files: Sequence[Path]) -> Tensor:
        """Features (N, D) of image files, computed once for all metrics that look at them."""
        entry, place = metric_entry(metric)
        key = (f"{entry.features}@{place}", label)
        if key not in self._features:
            extractor = build_features(metric, device=self.device)
            assert extractor is not None  # every metric of a set looks at features
            starts = range(0, len(files), IMAGES_AT_A_TIME)
            bar = tqdm(starts, desc=f"features of {label}", disable=not self.progress, leave=False)
            parts = [extractor([pixels_of(path) for path in files[start : start + IMAGES_AT_A_TIME]]) for start in bar]
            self._features[key] = torch.cat(parts)
        return self._features[key]

    def _before(self) -> tuple[str | None, list[Figure]]:
        """Reference set and figures of an earlier command; none if they cannot be read, so that all is measured."""
        try:
            content = json.loads((self.folder.path / SET_METRICS).read_text(encoding="utf-8"))
            rows = [
                row | {key: math.nan if row[key] is None else row[key] for key in ("mean", "low", "high")}
                for row in content["figures"]
            ]
            return content["reference"], [Figure(**row) for row in rows]
        except (OSError, ValueError, KeyError, TypeError):
            return None, []
