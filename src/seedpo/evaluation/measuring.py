"""Scores of images and metrics of prompts; what was measured before is not measured again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from seedpo.data.image_list import ListedImage, pixels_of
from seedpo.data.images import to_tensor
from seedpo.errors import DataError
from seedpo.evaluation.folder import EvaluationFolder
from seedpo.evaluation.score import score_images
from seedpo.evaluation.tables import METRICS as METRIC_COLUMNS
from seedpo.evaluation.tables import SCORES, Item, Key, Table, read_table, write_table
from seedpo.metrics.records import Metric, Samples
from seedpo.rewards.named import Definitions, combined, leaves
from seedpo.settings import Precision

NUMBERS_AT_A_TIME = 2**26
"""Bound on the pixel values that metrics look at together, times three colours: 256 MiB."""


def score_missing(
    folder: EvaluationFolder,
    items: Sequence[Item],
    rewards: Sequence[str],
    *,
    definitions: Definitions,
    precision: Precision,
    batch_size: int,
    device: torch.device | str,
    progress: bool = True,
) -> Table:
    """Scores images with rewards, one model after another; the table is written after each.

    Args:
        folder: of the evaluation; its images are there.
        items: the images.
        rewards: names, as users write them.
        definitions: weighted sums by their names.
        precision: in which networks compute.
        batch_size: images at a time.
        device: of the networks.
        progress: whether to show progress bars.

    Raises:
        SeedpoError: as :func:`seedpo.evaluation.score.score_images`; what was finished before is kept.
    """
    table = read_table(folder.scores)
    table.add(items)
    # Sums last: their terms may then be known already.
    for name in sorted(rewards, key=lambda name: name in definitions):
        lacking = table.missing(name, items)
        if not lacking:
            continue
        parts = leaves(name, definitions)
        if name in definitions and all(not table.missing(part, lacking) for part in parts):
            known = {part: torch.tensor([table.values[part][item.key] for item in lacking]) for part in parts}
            scores = combined(name, definitions, known)
        else:
            images = [ListedImage(path=folder.path / item.file, prompt=item.prompt) for item in lacking]
            scored = score_images(
                images,
                [name],
                definitions=definitions,
                precision=precision,
                batch_size=batch_size,
                device=device,
                progress=progress,
            )
            scores = scored.scores[name]
        table.put(name, dict(zip((item.key for item in lacking), scores.tolist(), strict=True)))
        write_table(folder.scores, table, SCORES)
    if items and not folder.scores.is_file():
        write_table(folder.scores, table, SCORES)
    return table


def measure_missing(
    folder: EvaluationFolder, items: Sequence[Item], metrics: Mapping[str, Metric], *, progress: bool = True
) -> Table:
    """Measures metrics for each target, step and prompt, a few prompts at a time.

    Raises:
        DataError: if an image cannot be read, or images of one target differ in size.
        RunFolderError: if the table cannot be written.
    """
    table = read_table(folder.metrics)
    groups: dict[tuple[str, int | None], dict[int, list[Item]]] = {}
    for item in items:
        target, step, prompt, _ = item.key
        groups.setdefault((target, step), {}).setdefault(prompt, []).append(item)
    for (target, step), prompts in groups.items():
        rows = [Item(key=(target, step, prompt, 0), prompt=of[0].prompt, file="") for prompt, of in prompts.items()]
        table.add(rows)
        wanted = {name: metric for name, metric in metrics.items() if table.missing(name, rows)}
        if not wanted:
            continue
        for chunk in tqdm(
            list(_chunks(folder, rows, prompts)),
            desc=f"metrics of {target}" if step is None else f"metrics of {target} at step {step}",
            disable=not progress,
            leave=False,
        ):
            samples = _samples(folder, [prompts[row.key[2]] for row in chunk])
            for name, metric in wanted.items():
                values = metric.per_prompt(samples).double().tolist()
                table.put(name, dict(zip((row.key for row in chunk), values, strict=True)))
        write_table(folder.metrics, table, METRIC_COLUMNS)
    return table


def _chunks(folder: EvaluationFolder, rows: Sequence[Item], prompts: Mapping[int, Sequence[Item]]) -> list[list[Item]]:
    """Prompts whose images fit into memory together."""
    first = prompts[rows[0].key[2]]
    numbers = len(first) * _pixels(folder.path / first[0].file).numel()
    size = max(1, NUMBERS_AT_A_TIME // max(1, numbers))
    return [list(rows[start : start + size]) for start in range(0, len(rows), size)]


def _samples(folder: EvaluationFolder, prompts: Sequence[Sequence[Item]]) -> Samples:
    images = [[_pixels(folder.path / item.file) for item in items] for items in prompts]
    shape = images[0][0].shape
    for items, row in zip(prompts, images, strict=True):
        for item, image in zip(items, row, strict=True):
            if image.shape != shape:
                raise DataError(
                    f"{folder.path / item.file} has another size than the other images of {item.key[0]}; delete it and "
                    "run the same command again"
                )
    return Samples(images=torch.stack([torch.stack(row) for row in images]), prompts=[of[0].prompt for of in prompts])


def _pixels(path: Path) -> Tensor:
    """An image (3, H, W) in [0, 1]."""
    return to_tensor(pixels_of(path))


def scores_by_prompt(
    table: Table, name: str, target: str, step: int | None, *, prompts: int, images: int
) -> NDArray[np.float64]:
    """Values (P, K) of one column for a target; NaN where nothing is known."""
    found = np.full((prompts, images), math.nan)
    known: Mapping[Key, float] = table.values.get(name, {})
    for prompt in range(prompts):
        for image in range(images):
            found[prompt, image] = known.get((target, step, prompt, image), math.nan)
    return found
