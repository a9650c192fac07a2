"""Scoring image files with any rewards: one column for each, and what a person wants to know of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from seedpo.data.image_list import ListedImage, find_images, pixels_of, size_of, with_prompts
from seedpo.data.score_table import ScoreTable
from seedpo.errors import ConfigError, DataError, SeedpoError
from seedpo.rewards.named import (
    CheckedReward,
    Definitions,
    build_reward,
    check_definitions,
    check_name,
    combined,
    forget,
    image_sizes,
    leaves,
)
from seedpo.rewards.scoring import ScoreNotFiniteError
from seedpo.rewards.settings import RewardDefinitions
from seedpo.settings import Precision, build_config, read_recipe

RESAMPLES = 1000
"""Bootstrap resamples behind each interval."""

_MEND = "mend or remove it, or pass over such files with --skip-unreadable"


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Scores of one reward in short.

    Attributes:
        name: the reward.
        mean: over the images.
        interval: the ends of its 95 % interval; none: there are too few images.
        std: standard deviation over the images, with N - 1; none: there is one image.
        best: file with the highest score, and the score.
        worst: file with the lowest score, and the score.
    """

    name: str
    mean: float
    interval: tuple[float, float] | None
    std: float | None
    best: tuple[Path, float]
    worst: tuple[Path, float]


def read_definitions(path: Path | None) -> Definitions:
    """The weighted sums that a recipe, a run's ``config.yaml`` or a file with nothing else defines under ``rewards``.

    Raises:
        ConfigError: if the file or a sum cannot be used.
    """
    if path is None:
        return {}
    definitions = build_config(RewardDefinitions, {"rewards": read_recipe(path).get("rewards") or {}}).rewards
    check_definitions(definitions)
    return definitions


def listed_images(places: Sequence[str], *, prompts: Path | None, prompt: str | None) -> list[ListedImage]:
    """The images of some places with their prompts; see :mod:`seedpo.data.image_list`.

    Args:
        places: files, folders, patterns, or folders of `seedpo sample`.
        prompts: a file of prompts.
        prompt: one prompt for all.

    Raises:
        ConfigError: if both are given.
        DataError: if there is no image, or not one prompt for each.
    """
    if prompts is not None and prompt is not None:
        raise ConfigError("--prompts and --prompt exclude each other; give one of them")
    images = find_images(places)
    if prompt is not None:
        return [ListedImage(path=image.path, prompt=prompt) for image in images]
    if prompts is not None:
        return with_prompts(images, prompts)
    lacking = next((image.path for image in images if image.prompt is None), None)
    if lacking is not None:
        raise DataError(f"{lacking} has no prompt; give --prompts FILE, or --prompt TEXT for all images")
    return images


def score_images(
    images: Sequence[ListedImage],
    names: Sequence[str],
    *,
    definitions: Definitions | None = None,
    precision: Precision = "no",
    batch_size: int = 32,
    device: torch.device | str | None = None,
    skip_unreadable: bool = False,
    progress: bool = True,
    keep: Callable[[ScoreTable], object] | None = None,
) -> ScoreTable:
    """Scores images with rewards, one model in memory at a time and one batch of images.

    Args:
        images: with prompts.
        names: rewards, as users write them.
        definitions: weighted sums by their names; each of their terms is scored once.
        precision: in which networks compute.
        batch_size: images read and scored at a time.
        device: of the networks; none: the GPU if there is one.
        skip_unreadable: whether images that cannot be read are left out; otherwise they are an error.
        progress: whether to show progress bars.
        keep: called with what is finished if a later reward fails.

    Raises:
        ConfigError: if a name is none of a reward.
        DataError: if a model cannot be loaded, an image cannot be read, or a score is not finite.
    """
    definitions = definitions or {}
    check_definitions(definitions)
    for name in names:
        check_name(name, definitions)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    skipped: dict[Path, str] = {}
    images = _readable(images, names, definitions, skipped, skip_unreadable, progress=progress)
    batches = [range(start, min(start + batch_size, len(images))) for start in range(0, len(images), batch_size)]
    scores: dict[str, Tensor] = {}
    for leaf in dict.fromkeys(leaf for name in names for leaf in leaves(name, definitions)):
        try:
            reward = build_reward(leaf, device=device, precision=precision)
            found = torch.full((len(images),), math.nan)
            with tqdm(total=len(images), desc=leaf, unit="image", disable=not progress) as bar:
                for batch in batches:
                    opened = _opened(images, batch, skipped, skip_unreadable)
                    if opened:
                        found[list(opened)] = _scored(reward, opened, images).cpu()
                    bar.update(len(batch))
        except SeedpoError:
            finished = [name for name in names if set(leaves(name, definitions)) <= set(scores)]
            if keep is not None and finished:
                keep(_table(images, finished, definitions, scores, skipped))
            raise
        scores[leaf] = found
        del reward
        forget(leaf)
    return _table(images, names, definitions, scores, skipped)


def _readable(
    images: Sequence[ListedImage],
    names: Sequence[str],
    definitions: Definitions,
    skipped: dict[Path, str],
    skip_unreadable: bool,
    *,
    progress: bool,
) -> list[ListedImage]:
    """Images whose head can be read, and whose size suits all rewards; looked at before anything is scored."""
    needed = {leaf: side for name in names for leaf, side in image_sizes(name, definitions).items()}
    kept = []
    for image in tqdm(images, desc="checking files", disable=not progress, leave=False):
        try:
            size = size_of(image.path)
        except DataError as error:
            if not skip_unreadable:
                raise DataError(f"{error}; {_MEND}") from error
            skipped[image.path] = str(error)
            continue
        for leaf, side in needed.items():
            if size != (side, side):
                raise DataError(
                    f"{image.path} has {size[0]} x {size[1]} pixels; {leaf} reads images of {side} x {side} only"
                )
        kept.append(image)
    if not kept:
        raise DataError(f"none of {len(images)} images can be read; the first: {next(iter(skipped.values()), '')}")
    return kept


def _opened(
    images: Sequence[ListedImage], rows: range, skipped: dict[Path, str], skip_unreadable: bool
) -> dict[int, Image.Image]:
    """Images that can be decoded, by their rows."""
    opened: dict[int, Image.Image] = {}
    for row in rows:
        path = images[row].path
        if path in skipped:
            continue
        try:
            opened[row] = pixels_of(path)
        except DataError as error:
            if not skip_unreadable:
                raise DataError(f"{error}; {_MEND}") from error
            skipped[path] = str(error)
    return opened


def _scored(reward: CheckedReward, opened: Mapping[int, Image.Image], images: Sequence[ListedImage]) -> Tensor:
    try:
        return reward(list(opened.values()), [images[row].prompt or "" for row in opened])
    except ScoreNotFiniteError as error:
        raise DataError(f"{images[list(opened)[error.row]].path}: {error}") from error


def _table(
    images: Sequence[ListedImage],
    names: Sequence[str],
    definitions: Definitions,
    scores: Mapping[str, Tensor],
    skipped: Mapping[Path, str],
) -> ScoreTable:
    rows = [row for row, image in enumerate(images) if image.path not in skipped]
    found = {name: combined(name, definitions, scores)[rows] for name in names}
    for name, values in found.items():
        if not torch.isfinite(values).all():
            raise DataError(f"reward {name} has scores that are not finite; nothing was written")
    return ScoreTable(images=[images[row] for row in rows], scores=found, skipped=skipped)


def summarise_scores(table: ScoreTable, *, seed: int = 0) -> list[Summary]:
    """Mean with its interval, standard deviation, best and worst of each reward.

    The interval is the 95 % percentile bootstrap over prompts, each with all of its images, since images of one prompt
    resemble each other; over images if all have the same prompt.
    """
    prompts = [image.prompt for image in table.images]
    groups = np.unique(np.array([str(prompt) for prompt in prompts]), return_inverse=True)[1]
    if groups.max(initial=0) == 0:
        groups = np.arange(len(prompts))
    summaries = []
    for name, scores in table.scores.items():
        values = scores.double().numpy()
        best, worst = int(values.argmax()), int(values.argmin())
        summaries.append(
            Summary(
                name=name,
                mean=float(values.mean()),
                interval=_interval(values, groups, seed=seed) if groups.max(initial=0) > 0 else None,
                std=float(values.std(ddof=1)) if len(values) > 1 else None,
                best=(table.images[best].path, float(values[best])),
                worst=(table.images[worst].path, float(values[worst])),
            )
        )
    return summaries


def _interval(values: NDArray[np.float64], groups: NDArray[np.intp], *, seed: int) -> tuple[float, float]:
    totals, counts = np.bincount(groups, weights=values), np.bincount(groups)
    generator = np.random.default_rng(seed)
    means = np.empty(RESAMPLES)
    for number in range(RESAMPLES):
        drawn = generator.integers(len(counts), size=len(counts))
        means[number] = totals[drawn].sum() / counts[drawn].sum()
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def as_sum(summaries: Sequence[Summary], definitions: Definitions | None = None) -> str:
    """YAML of a weighted sum, to be copied, in which every reward counts in its own standard deviations.

    Args:
        summaries: of rewards; sums among them are left out.
        definitions: the sums.

    Raises:
        DataError: if a standard deviation is not known or 0.
    """
    terms = {}
    for summary in summaries:
        if summary.name in (definitions or {}):
            continue
        if not summary.std:
            raise DataError(
                f"reward {summary.name} gives all of these images the same score or there is one image only: no "
                "standard deviation to scale it by; score more images"
            )
        terms[summary.name] = {"weight": 1.0, "mean": _short(summary.mean), "std": _short(summary.std)}
    return yaml.safe_dump({"rewards": {"mix": {"terms": terms}}}, sort_keys=False, default_flow_style=None).rstrip()


def _short(value: float) -> float:
    return float(f"{value:.6g}")
