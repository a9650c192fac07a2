"""``seedpo evaluate``: images, scores, metrics and a summary of several models on the same prompts and latents."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from seedpo.data.image_list import size_of
from seedpo.errors import ConfigError
from seedpo.evaluation.drawing import Drawing, batches, draw_missing, lacking_batches
from seedpo.evaluation.folder import EvaluationFolder, Plan
from seedpo.evaluation.measuring import measure_missing, score_missing
from seedpo.evaluation.prompts import evaluation_prompts
from seedpo.evaluation.sets import measure_sets
from seedpo.evaluation.sheets import Sheets, cut_missing, find_sheets
from seedpo.evaluation.summary import Measured, Summary, summarise, write_summary
from seedpo.evaluation.tables import COLUMNS, Item
from seedpo.evaluation.targets import ModelOptions, Target, parse_targets
from seedpo.metrics.catalogue import metric_entry
from seedpo.metrics.named import build_metric
from seedpo.metrics.records import Metric, SetMetric
from seedpo.processes import on_every_process, on_main_process
from seedpo.rewards.catalogue import REWARDS
from seedpo.rewards.named import Definitions, check_definitions, check_name
from seedpo.scenes.shipped import warn_of_unknown_words
from seedpo.settings import Precision

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Measures:
    """What is measured.

    Attributes:
        rewards: names, as users write them.
        metrics: names, as users write them.
        definitions: weighted sums by their names.
        precision: in which networks of rewards compute.
        batch_size: images scored at a time.
        tie_widths: of rewards by name; ``""`` is that of all others.
        reference: what metrics of all images are measured against: a target's label, or a folder of images.
    """

    rewards: Sequence[str] = ()
    metrics: Sequence[str] = ()
    definitions: Definitions = field(default_factory=dict)
    precision: Precision = "no"
    batch_size: int = 32
    tie_widths: Mapping[str, float] = field(default_factory=dict)
    reference: str | None = None


Metrics = Mapping[str, Metric | SetMetric]
"""Metrics by the names that users write."""


def evaluate(
    targets: Sequence[str],
    out: Path,
    *,
    prompts: str,
    num_prompts: int | None = None,
    prompts_seed: int = 0,
    drawing: Drawing,
    measures: Measures,
    options: ModelOptions | None = None,
    accelerator: Accelerator | None = None,
    progress: bool = True,
) -> Summary | None:
    """Draws, scores and compares models; what is finished in ``out`` is kept.

    Args:
        targets: see :func:`seedpo.evaluation.targets.parse_targets`.
        out: the evaluation's folder.
        prompts: a registered set, ``name@place`` or a file.
        num_prompts: taken from the head of the set; none: all.
        prompts_seed: of sets that are drawn.
        drawing: how images are drawn.
        measures: what is measured.
        options: of targets that are not runs.
        accelerator: of this process if several draw together; `None` if this one draws alone.
        progress: whether to show progress bars.

    Returns:
        The summary; `None` on processes other than the first.

    Raises:
        SeedpoError: whatever the user can mend, in one line.
    """
    metrics = check_measures(measures, images=drawing.images)
    folder = EvaluationFolder(Path(out))
    if accelerator is None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        texts, found = _begun(folder, targets, prompts, num_prompts, prompts_seed, drawing, measures, options)
        for target in found:
            lacking = lacking_batches(folder, target, len(texts), drawing)
            draw_missing(folder, target, texts, drawing, lacking, device=device, progress=progress)
    else:
        device, rank, world = accelerator.device, accelerator.process_index, accelerator.num_processes

        def begin() -> None:
            _begun(folder, targets, prompts, num_prompts, prompts_seed, drawing, measures, options)

        on_main_process(accelerator, begin)
        texts = on_every_process(accelerator, lambda: evaluation_prompts(prompts, count=num_prompts, seed=prompts_seed))
        found = on_every_process(accelerator, lambda: parse_targets(targets, options or ModelOptions()))
        for target in found:
            _drawn_together(folder, target, texts, drawing, accelerator, rank, world, progress=progress)
        if rank > 0:
            return None
    items = [
        Item(key=(target.label, None, *key), prompt=texts[key[0]], file=_relative(folder, target.label, *key))
        for target in found
        for batch in batches(len(texts), drawing)
        for key in batch
    ]
    return _measured(
        folder,
        items,
        measures,
        metrics,
        settings=_settings(prompts, texts, drawing),
        device=device,
        progress=progress,
    )


def _drawn_together(
    folder: EvaluationFolder,
    target: Target,
    texts: Sequence[str],
    drawing: Drawing,
    accelerator: Accelerator,
    rank: int,
    world: int,
    *,
    progress: bool,
) -> None:
    """One target by all processes: each draws its share of the batches that the first one finds lacking."""
    lacking = on_main_process(accelerator, lambda: lacking_batches(folder, target, len(texts), drawing))
    on_every_process(
        accelerator,
        lambda: draw_missing(
            folder,
            target,
            texts,
            drawing,
            lacking[rank::world],
            device=accelerator.device,
            progress=progress and rank == 0,
        ),
    )


def _begun(
    folder: EvaluationFolder,
    targets: Sequence[str],
    prompts: str,
    num_prompts: int | None,
    prompts_seed: int,
    drawing: Drawing,
    measures: Measures,
    options: ModelOptions | None,
) -> tuple[list[str], list[Target]]:
    """Prompts and targets, once the folder is seen to fit them."""
    found = parse_targets(targets, options or ModelOptions())
    texts = evaluation_prompts(prompts, count=num_prompts, seed=prompts_seed)
    if any(target.embedded for target in found):
        warn_of_unknown_words(texts)
    settings = _settings(prompts, texts, drawing)
    records = {target.label: target.record() for target in found}
    folder.begin(Plan(settings=settings, targets=records, rewards=_of_rewards(measures)), texts)
    return texts, found


def evaluate_over_training(runs: Sequence[str], out: Path, *, measures: Measures, progress: bool = True) -> Summary:
    """Scores the images that runs wrote at their evaluations: curves over training, and each step against the first.

    No model is loaded. Intervals are those of the run: the same prompts, the same seed of the resampling.

    Args:
        runs: ``[LABEL=]RUN``; all were evaluated on the same prompts.
        out: the evaluation's folder.
        measures: what is measured.
        progress: whether to show progress bars.

    Raises:
        SeedpoError: whatever the user can mend, in one line.
    """
    found = parse_runs(runs)
    first = found[0]
    for sheets in found[1:]:
        if (sheets.prompts, sheets.columns, sheets.seed) != (first.prompts, first.columns, first.seed):
            raise ConfigError(
                f"{sheets.label} and {first.label} were not evaluated on the same prompts and latents; evaluate them "
                "into different --out folders"
            )
    metrics = check_measures(measures, images=first.columns)
    folder = EvaluationFolder(Path(out))
    settings = {"kind": "over-training", **_of_prompts(first.prompts), "images": first.columns, "seed": first.seed}
    records = {sheets.label: {"run": str(sheets.folder.parent), "kind": "run"} for sheets in found}
    folder.begin(Plan(settings=settings, targets=records, rewards=_of_rewards(measures)), first.prompts)
    items = []
    for sheets in found:
        cut_missing(folder, sheets, progress=progress)
        items += [
            Item(
                key=(sheets.label, step, prompt, image),
                prompt=text,
                file=_relative(folder, sheets.label, prompt, image, step=step),
            )
            for step in sheets.steps
            for prompt, text in enumerate(sheets.prompts)
            for image in range(sheets.columns)
        ]
    return _measured(
        folder,
        items,
        measures,
        metrics,
        settings=settings,
        device="cuda" if torch.cuda.is_available() else "cpu",
        progress=progress,
    )


def parse_runs(runs: Sequence[str]) -> list[Sheets]:
    """Runs whose sheets are scored, each under a label.

    Raises:
        ConfigError: if none is given, or two have one label.
        RunFolderError: if one is no run folder.
        DataError: if one was not evaluated.
    """
    if not runs:
        raise ConfigError("there is nothing to evaluate; name a run folder")
    found: dict[str, Sheets] = {}
    for text in runs:
        label, equals, place = text.partition("=")
        if not equals or Path(text).exists():
            label, place = "", text
        sheets = find_sheets(label or Path(place).resolve().name, Path(place))
        if sheets.label in found:
            raise ConfigError(f"two runs have the label {sheets.label}; give one another with NAME={place}")
        found[sheets.label] = sheets
    return list(found.values())


def check_measures(measures: Measures, *, images: int) -> dict[str, Metric | SetMetric]:
    """The metrics; sees that all names are known before anything is drawn.

    Raises:
        ConfigError: if a name is unknown, or a metric needs more images of each prompt.
    """
    check_definitions(measures.definitions)
    for name in measures.rewards:
        check_name(name, measures.definitions)
    taken = [name for name in (*measures.rewards, *measures.metrics) if name in COLUMNS]
    if taken:
        raise ConfigError(f"{taken[0]} is the name of a column of the tables already; give the sum another name")
    unused = [name for name in measures.tie_widths if name and name not in measures.rewards]
    if unused:
        raise ConfigError(f"--tie-width names {', '.join(unused)}, which --rewards does not")
    metrics: dict[str, Metric | SetMetric] = {}
    for name in measures.metrics:
        metrics[name] = metric = build_metric(name)
        if isinstance(metric, SetMetric):
            if measures.reference is None:
                raise ConfigError(
                    f"metric {name} compares all images with a reference set; name a folder of images, or the label of "
                    "a target, with --reference"
                )
        elif metric.facts.least_images > images:
            raise ConfigError(
                f"metric {name} needs at least {metric.facts.least_images} images of each prompt, not {images}; ask "
                "for more with --images, or leave it out"
            )
    return metrics


def _measured(
    folder: EvaluationFolder,
    items: Sequence[Item],
    measures: Measures,
    metrics: Metrics,
    *,
    settings: Mapping[str, Any],
    device: torch.device | str,
    progress: bool,
) -> Summary:
    """Scores and metrics of all that was not measured yet, and the summary of all that is known."""
    scores = score_missing(
        folder,
        items,
        measures.rewards,
        definitions=measures.definitions,
        precision=measures.precision,
        batch_size=measures.batch_size,
        device=device,
        progress=progress,
    )
    _check_sizes(folder, items, metrics)
    of_prompts = {name: metric for name, metric in metrics.items() if isinstance(metric, Metric)}
    of_sets = {name: metric for name, metric in metrics.items() if isinstance(metric, SetMetric)}
    values = measure_missing(folder, items, of_prompts, progress=progress)
    sets = measure_sets(
        folder, items, of_sets, measures.reference, seed=settings["seed"], device=device, progress=progress
    )
    summary = summarise(
        [
            (scores, [_reward(name, measures) for name in scores.values]),
            (values, [_metric(name) for name in values.values]),
        ],
        settings=settings,
        prompts=settings["num_prompts"],
        images=settings["images"],
        seed=settings["seed"],
        more=sets,
    )
    write_summary(folder, summary)
    return summary


def _check_sizes(folder: EvaluationFolder, items: Sequence[Item], metrics: Metrics) -> None:
    needed = {name: metric.facts.image_size for name, metric in metrics.items()}
    first = {item.key[0]: item for item in items}
    for name, side in needed.items():
        for target, item in first.items():
            if side is not None and (size := size_of(folder.path / item.file)) != (side, side):
                raise ConfigError(
                    f"metric {name} reads images of {side} x {side} pixels only; those of {target} have {size[0]} x "
                    f"{size[1]}: leave it out"
                )


def _reward(name: str, measures: Measures) -> Measured:
    head = name.partition("@")[0]
    registered = head in REWARDS and name not in measures.definitions
    unit = REWARDS[head].scale if registered else ""
    width = measures.tie_widths.get(name, measures.tie_widths.get("", 0.0))
    return Measured(name=name, kind="reward", unit=unit, direction="higher", tie_width=width)


def _metric(name: str) -> Measured:
    facts, _ = metric_entry(name)
    return Measured(name=name, kind="metric", unit=facts.unit, direction=facts.direction, finish=facts.finish)


def _settings(prompts: str, texts: Sequence[str], drawing: Drawing) -> dict[str, Any]:
    return {"kind": "images", "prompts": prompts, **_of_prompts(texts), **asdict(drawing)}


def _of_prompts(texts: Sequence[str]) -> dict[str, Any]:
    return {"num_prompts": len(texts), "prompts_sha256": hashlib.sha256("\n".join(texts).encode()).hexdigest()}


def _of_rewards(measures: Measures) -> dict[str, dict[str, Any]]:
    definitions = measures.definitions
    return {
        name: {
            "precision": measures.precision,
            "definition": definitions[name].model_dump(mode="json") if name in definitions else None,
        }
        for name in measures.rewards
    }


def _relative(folder: EvaluationFolder, label: str, prompt: int, image: int, *, step: int | None = None) -> str:
    return folder.image(label, prompt, image, step=step).relative_to(folder.path).as_posix()


def tie_widths(text: str | None) -> dict[str, float]:
    """``--tie-width``: one number for all rewards, or ``NAME=NUMBER`` with commas between them.

    Raises:
        ConfigError: if it is neither.
    """
    widths: dict[str, float] = {}
    for part in (text or "").split(","):
        if not part.strip():
            continue
        name, equals, number = part.rpartition("=")
        try:
            widths[name.strip() if equals else ""] = width = float(number)
        except ValueError:
            width = -1.0
        if not 0.0 <= width < float("inf"):
            raise ConfigError(f"--tie-width {part.strip()}: write a number of at least 0, or NAME=NUMBER,...")
    return widths
