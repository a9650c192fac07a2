"""Scoring image files with any rewards: one column for each, and a short summary."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import yaml
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from seedpo.core.stats.bootstrap import grouped_mean_ends
from seedpo.data.image_list import ListedImage, Picture, find_images, with_prompts
from seedpo.data.tables.kept_scores import KeptBatch, KeptScores
from seedpo.data.tables.score_table import Scored, ScoreTable
from seedpo.errors import ConfigError, DataError
from seedpo.recipes.reading import read_recipe
from seedpo.rewards.named import CheckedReward, build_reward, combined, forget
from seedpo.rewards.names import Definitions, check_definitions, check_name, image_sizes, leaves, terms_of
from seedpo.rewards.scoring import ScoreNotFiniteError
from seedpo.rewards.settings import RewardDefinitions
from seedpo.rewards.versions import version_of
from seedpo.settings import Precision, build_config

_FIX = "fix or remove it, or leave such files out with --skip-unreadable"


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """How rewards score images.

    Attributes:
        definitions: weighted sums and rewards on servers by their names; each term of sums is scored
            once.
        precision: of the networks.
        batch_size: images read and scored at a time.
        device: of the networks; `None` for the GPU if there is one.
        progress: whether to show progress bars.
    """

    definitions: Definitions = field(default_factory=dict)
    precision: Precision = "no"
    batch_size: int = 32
    device: torch.device | str | None = None
    progress: bool = True

    @property
    def used_device(self) -> torch.device:
        """Of the networks."""
        return torch.device(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))


@dataclass(frozen=True, kw_only=True)
class ScoreSummary:
    """The scores of one reward in short.

    Attributes:
        name: the reward.
        mean: over the images.
        interval: the ends of its 95 % interval; `None` for one image.
        std: standard deviation over the images, with N - 1; `None` for one image.
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
    """The rewards that a recipe, a run's ``config.yaml``, or a file with nothing else defines under ``rewards``.

    Raises:
        ConfigError: if the file or a definition cannot be used.
    """
    if path is None:
        return {}
    definitions = build_config(
        RewardDefinitions, {"rewards": read_recipe(path, RewardDefinitions).get("rewards") or {}}
    ).rewards
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
    missing = next((image.path for image in images if image.prompt is None), None)
    if missing is not None:
        raise DataError(f"{missing} has no prompt; give --prompts FILE, or --prompt TEXT for all images")
    return images


def kept_scores(out: Path, images: Sequence[Picture], scoring: Scoring, *, overwrite: bool = False) -> KeptScores:
    """Scores that an unfinished command kept beside its table, and that this one goes on with.

    Args:
        out: the table.
        images: with prompts, in the order in which they are scored.
        scoring: how they are scored.
        overwrite: whether scores of another command may be thrown away.

    Raises:
        ConfigError: if they are of other images, prompts or batches.
        OSError: if they cannot be read or written.
    """
    facts = hashlib.sha256()
    for image in images:
        facts.update(json.dumps([image.name, image.state(), image.prompt]).encode())
    depends_on = {"images": facts.hexdigest(), "batch_size": scoring.batch_size}
    return KeptScores(out.with_name(f"{out.stem}.partial.jsonl"), depends_on, overwrite=overwrite)


def score_images(
    images: Sequence[Scored],
    names: Sequence[str],
    scoring: Scoring,
    *,
    skip_unreadable: bool = False,
    kept: KeptScores | None = None,
) -> ScoreTable[Scored]:
    """Scores images with rewards, one model in memory at a time and one batch of images.

    Args:
        images: with prompts.
        names: rewards, as users write them.
        scoring: how they score.
        skip_unreadable: whether images that cannot be read are left out; otherwise they are an error.
        kept: batches that an earlier call finished; new ones are added. One that a reward of another version or with
            other settings scored is scored anew.

    Raises:
        ConfigError: if a name is not that of a reward.
        DataError: if a model cannot be loaded, an image cannot be read, or a score is not finite.
    """
    definitions = scoring.definitions
    check_definitions(definitions)
    for name in names:
        check_name(name, definitions)
    files = _Files(skip_unreadable=skip_unreadable)
    images = files.readable(images, names, scoring)
    scores: dict[str, Tensor] = {}
    for leaf in dict.fromkeys(leaf for name in names for leaf in leaves(name, definitions)):
        reward = build_reward(leaf, definitions=definitions, device=scoring.used_device, precision=scoring.precision)
        scores[leaf] = _scores(leaf, reward, images, files, scoring, kept)
        del reward
        forget(leaf, definitions)
    rows = [row for row, image in enumerate(images) if image.name not in files.skipped]
    columns = {name: combined(name, definitions, scores)[rows] for name in names}
    for name, values in columns.items():
        if not torch.isfinite(values).all():
            raise DataError(f"reward {name} has scores that are not finite; nothing was written")
    return ScoreTable(images=[images[row] for row in rows], scores=columns, skipped=files.skipped)


def _version(leaf: str, reward: CheckedReward, scoring: Scoring) -> str:
    """Changes with whatever may change a reward's scores."""
    deciding = scoring.definitions[leaf].deciding() if leaf in scoring.definitions else {}
    return version_of(reward, scoring.used_device.type, scoring.precision, json.dumps(deciding))


def _scores(
    leaf: str,
    reward: CheckedReward,
    images: Sequence[Picture],
    files: _Files,
    scoring: Scoring,
    kept: KeptScores | None,
) -> Tensor:
    """One score per image, (N,); NaN for those that cannot be read."""
    scores = torch.full((len(images),), math.nan)
    version = _version(leaf, reward, scoring) if kept else ""
    with tqdm(total=len(images), desc=leaf, unit="image", disable=not scoring.progress) as bar:
        for start in range(0, len(images), scoring.batch_size):
            rows = range(start, min(start + scoring.batch_size, len(images)))
            batch = kept.batches.get((leaf, start)) if kept else None
            if batch is None or batch.version != version or (batch.skipped and not files.skip_unreadable):
                pixels = files.pixels(images, rows)
                if pixels:
                    try:
                        values = reward(list(pixels.values()), [images[row].prompt or "" for row in pixels])
                    except ScoreNotFiniteError as error:
                        raise DataError(f"{images[list(pixels)[error.row]].name}: {error}") from error
                    scores[list(pixels)] = values.cpu()
                if kept:
                    skipped = {name: files.skipped[name] for row in rows if (name := images[row].name) in files.skipped}
                    finished = KeptBatch(version=version, scores=scores[list(rows)].tolist(), skipped=skipped)
                    kept.add(leaf, start, finished)
            else:
                scores[list(rows)] = torch.tensor(batch.scores)
                files.skipped.update(batch.skipped)
            bar.update(len(rows))
    return scores


@dataclass(frozen=True, kw_only=True)
class _Files:
    """Reading image files, of which some may be damaged.

    Attributes:
        skip_unreadable: whether damaged files are left out; otherwise they are an error.
        skipped: those that were left out, and why.
    """

    skip_unreadable: bool
    skipped: dict[str, str] = field(default_factory=dict)

    def readable(self, images: Sequence[Scored], names: Sequence[str], scoring: Scoring) -> list[Scored]:
        """Images whose head can be read, and whose size suits all rewards; checked before anything is scored."""
        needed = {leaf: side for name in names for leaf, side in image_sizes(name, scoring.definitions).items()}
        readable = []
        for image in tqdm(images, desc="checking files", disable=not scoring.progress, leave=False):
            try:
                size = image.size()
            except DataError as error:
                self._skip(image.name, error)
                continue
            for leaf, side in needed.items():
                if size != (side, side):
                    raise DataError(
                        f"{image.name} has {size[0]} x {size[1]} pixels; {leaf} reads images of {side} x {side} only"
                    )
            readable.append(image)
        if not readable:
            raise DataError(
                f"none of {len(images)} images can be read; the first: {next(iter(self.skipped.values()), '')}"
            )
        return readable

    def pixels(self, images: Sequence[Picture], rows: range) -> dict[int, Image.Image]:
        """The images of rows that can be decoded."""
        pixels: dict[int, Image.Image] = {}
        for row in rows:
            name = images[row].name
            if name not in self.skipped:
                try:
                    pixels[row] = images[row].pixels()
                except DataError as error:
                    self._skip(name, error)
        return pixels

    def _skip(self, name: str, error: DataError) -> None:
        if not self.skip_unreadable:
            raise DataError(f"{error}; {_FIX}") from error
        self.skipped[name] = str(error)


def summarise_scores(table: ScoreTable[ListedImage], *, seed: int = 0) -> list[ScoreSummary]:
    """Mean with its interval, standard deviation, best and worst of each reward.

    The interval is the 95 % percentile bootstrap over prompts, each with all of its images, since images of one prompt
    resemble each other. If all images have the same prompt, it is the bootstrap over images.
    """
    prompts = [str(image.prompt) for image in table.images]
    groups = prompts if len(set(prompts)) > 1 else range(len(prompts))
    summaries = []
    for name, scores in table.scores.items():
        values = scores.double().numpy()
        best, worst = int(values.argmax()), int(values.argmin())
        summaries.append(
            ScoreSummary(
                name=name,
                mean=float(values.mean()),
                interval=grouped_mean_ends(values, groups, seed=seed) if len(values) > 1 else None,
                std=float(values.std(ddof=1)) if len(values) > 1 else None,
                best=(table.images[best].path, float(values[best])),
                worst=(table.images[worst].path, float(values[worst])),
            )
        )
    return summaries


def as_sum(summaries: Sequence[ScoreSummary], definitions: Definitions | None = None) -> str:
    """YAML of a weighted sum, to be copied, in which every reward counts in its own standard deviations.

    Args:
        summaries: of rewards; sums among them are left out.
        definitions: the sums, and the rewards on servers, which are repeated with the sum.

    Raises:
        DataError: if a standard deviation is unknown or 0.
    """
    definitions, rewards, terms = definitions or {}, {}, {}
    for summary in summaries:
        if terms_of(summary.name, definitions):
            continue
        if not summary.std:
            raise DataError(
                f"reward {summary.name} gives all of these images the same score or there is one image only: no "
                "standard deviation to scale it by; score more images"
            )
        terms[summary.name] = {"weight": 1.0, "mean": _short(summary.mean), "std": _short(summary.std)}
        if summary.name in definitions:
            rewards[summary.name] = definitions[summary.name].model_dump(mode="json", exclude_unset=True)
    return yaml.safe_dump(
        {"rewards": {**rewards, "mix": {"terms": terms}}}, sort_keys=False, default_flow_style=None
    ).rstrip()


def _short(value: float) -> float:
    return float(f"{value:.6g}")
