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
from torch import Tensor
from tqdm import tqdm

from seedpo.data.image_list import size_of
from seedpo.data.images.pixels import to_pil
from seedpo.data.prompts.reading import load_prompts
from seedpo.errors import ConfigError, DataError
from seedpo.evaluation.controls import SamplingControl
from seedpo.evaluation.drawing import choice_by, controlled, draw_best, picking_reward, warn_of_cut_prompts
from seedpo.evaluation.folder import EvaluationFolder, Grid, Plan
from seedpo.evaluation.measuring import measure_missing, measure_sets, score_missing
from seedpo.evaluation.score import Scoring
from seedpo.evaluation.settings import Drawing, Key
from seedpo.evaluation.sheets import Sheets, cut_missing, find_sheets
from seedpo.evaluation.summary import Measured, Summary, summarise, write_summary
from seedpo.evaluation.tables import COLUMNS, Place
from seedpo.evaluation.targets import ModelOptions, Target, load_target, parse_targets, with_controls
from seedpo.files import exists
from seedpo.metrics.catalogue import metric_entry
from seedpo.metrics.named import build_metric
from seedpo.metrics.records import Metric, SetMetric
from seedpo.models.catalogue import warn_of_unknown_words
from seedpo.models.denoiser import PipelineDenoiser
from seedpo.processes import on_every_process, on_main_process, require_shared
from seedpo.protocols import Reward
from seedpo.rewards.catalogue import REWARDS
from seedpo.rewards.named import server_versions
from seedpo.rewards.names import check_definitions, check_name

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Measures:
    """What is measured.

    Attributes:
        rewards: names, as users write them.
        metrics: names, as users write them.
        scoring: how rewards score.
        tie_widths: of rewards by name; ``""`` is that of all others. By default it follows from the scores, see
            :func:`seedpo.core.stats.bootstrap.tie_width`.
        reference: what metrics of all images are measured against: a target's label, or a folder of images.
    """

    rewards: Sequence[str] = ()
    metrics: Sequence[str] = ()
    scoring: Scoring = field(default_factory=Scoring)
    tie_widths: Mapping[str, float] = field(default_factory=dict)
    reference: str | None = None


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
    controls: Sequence[SamplingControl] = (),
    best_by: str | None = None,
    accelerator: Accelerator | None = None,
) -> Summary | None:
    """Draws, scores and compares models; what is finished in ``out`` is kept.

    Args:
        targets: see :func:`seedpo.evaluation.targets.parse_targets`.
        out: the evaluation's folder.
        prompts: a registered set, ``name@place`` or a file.
        num_prompts: taken from the head of the set; `None` for all.
        prompts_seed: of sets that are drawn.
        drawing: how images are drawn.
        measures: what is measured.
        options: of targets that are not runs.
        controls: of sampling, each of which adds targets; see :func:`seedpo.evaluation.targets.with_controls`.
        best_by: the reward that picks, of controls that draw several images for each; ``None``: the first of those
            that are measured.
        accelerator: of this process if several draw together; `None` if this one draws alone.

    Returns:
        The summary; `None` on processes other than the first.

    Raises:
        SeedpoError: any problem the user can fix, in one line.
    """
    metrics = _checked_metrics(measures, images=drawing.images)
    picks = best_by or next(iter(measures.rewards), None)
    if best_by is not None:
        check_name(best_by, measures.scoring.definitions)
        if not any(control.best_of > 1 for control in controls):
            raise ConfigError(f"--best-by {best_by} has nothing to pick from; give --best-of, or leave it out")
    folder = EvaluationFolder(Path(out))

    def begin() -> tuple[list[str], list[Target], dict[str, Any]]:
        models = with_controls(parse_targets(targets, options or ModelOptions()), controls, best_by=picks)
        _check_reference(measures, [model.label for model in models])
        texts = load_prompts(prompts, count=num_prompts, seed=prompts_seed)
        for name in dict.fromkeys(model.settings.model for model in models):
            warn_of_unknown_words(name, texts)
        settings = {"kind": "images", "prompts": prompts, **_prompt_settings(texts), **asdict(drawing)}
        records = {model.label: model.record() for model in models}
        folder.begin(Plan(settings=settings, targets=records, rewards=_reward_records(measures, best_by)), texts)
        return texts, models, settings

    require_shared(accelerator, out)
    texts, models, settings = on_main_process(accelerator, begin)
    task = _Task(folder=folder, prompts=texts, drawing=drawing, scoring=measures.scoring, accelerator=accelerator)
    loads: dict[tuple[str, bool], list[Target]] = {}
    for model in models:
        loads.setdefault((model.place, model.control.needs_training), []).append(model)
    for points in loads.values():
        _draw_missing(task, points)
    if accelerator is not None and not accelerator.is_main_process:
        return None
    places = [(model.label, None) for model in models]
    grid = Grid(folder=folder, places=places, prompts=texts, images=drawing.images)
    return _measure(grid, measures, metrics, settings)


@dataclass(frozen=True, kw_only=True)
class _Task:
    """What is drawn of every target, and by whom.

    Attributes:
        folder: of the evaluation.
        prompts: all prompts.
        drawing: how images are drawn.
        scoring: how the reward scores that picks the best of several images.
        accelerator: of this process; `None` if it draws alone.
    """

    folder: EvaluationFolder
    prompts: Sequence[str]
    drawing: Drawing
    scoring: Scoring
    accelerator: Accelerator | None

    @property
    def part(self) -> tuple[int, int]:
        """Number of this process, and of all."""
        return (0, 1) if self.accelerator is None else (self.accelerator.process_index, self.accelerator.num_processes)

    def missing(self, target: Target) -> list[list[Key]]:
        """The batches in which an image is missing."""
        return [
            batch
            for batch in self.drawing.batches(len(self.prompts))
            if not all(self.folder.image((target.label, None), *key).is_file() for key in batch)
        ]

    def picking(self, name: str, policy: PipelineDenoiser) -> Reward:
        """The reward that picks."""
        definitions, precision = self.scoring.definitions, self.scoring.precision
        return picking_reward(name, policy, definitions=definitions, precision=precision)


def _draw_missing(task: _Task, points: Sequence[Target]) -> None:
    """Draws the batches in which an image is missing; several processes draw every other one each.

    Args:
        task: what is drawn.
        points: one model under several controls, which is loaded once.

    Raises:
        ConfigError: if the model's schedule has fewer steps, it cannot be guided, or a control does not fit it.
        DataError: if the model cannot be loaded, or draws images that are not finite.
        RunFolderError: if an image cannot be written.
    """
    rank, world = task.part
    everything = on_main_process(task.accelerator, lambda: [(row, task.missing(row)) for row in points])
    missing = [(target, batches[rank::world]) for target, batches in everything]

    @torch.no_grad()
    def draw() -> None:
        if not any(batches for _, batches in missing):
            return
        policy = load_target(points[0])
        _require_drawable(policy, points[0], task.drawing)
        warn_of_cut_prompts(policy, task.prompts)
        policy.to(_device() if task.accelerator is None else task.accelerator.device)
        for target, batches in missing:
            if batches:
                _draw_batches(task, policy, target, batches)

    on_every_process(task.accelerator, draw)


def _draw_batches(task: _Task, policy: PipelineDenoiser, target: Target, batches: Sequence[Sequence[Key]]) -> None:
    """Draws some batches of a target with its loaded model, and writes images that are not there."""
    place: Place = (target.label, None)
    choice = None if target.best_by is None else choice_by(task.picking(target.best_by, policy), target.control)
    total, shown = sum(map(len, batches)), task.scoring.progress and task.part[0] == 0
    with (
        controlled(policy, target.control) as denoiser,
        tqdm(total=total, desc=f"drawing {target.label}", unit="image", disable=not shown) as bar,
    ):
        for batch in batches:
            images = draw_best(denoiser, task.prompts, batch, task.drawing, choice)
            _require_finite(images, batch, task.prompts, target)
            for key, image in zip(batch, images, strict=True):
                if not task.folder.image(place, *key).is_file():
                    task.folder.save_image(to_pil(image), place, *key)
            bar.update(len(batch))


def _require_drawable(policy: PipelineDenoiser, target: Target, drawing: Drawing) -> None:
    policy.require_guidance(drawing.guidance_scale, key=f"target {target.label}: --guidance")
    try:
        policy.process.timesteps(drawing.num_inference_steps)
    except ValueError as error:
        raise ConfigError(f"target {target.label}: --steps: {error}") from error


def _require_finite(images: Tensor, batch: Sequence[Key], prompts: Sequence[str], target: Target) -> None:
    bad = (~torch.isfinite(images).flatten(1).all(1)).nonzero()
    if len(bad):
        prompt, image = batch[int(bad[0])]
        raise DataError(
            f"target {target.label} draws an image that is not finite (image {image} of prompt {prompt}, "
            f"{prompts[prompt]!r}): its weights have diverged, or it needs --mixed-precision bf16 or no"
        )


def evaluate_over_training(runs: Sequence[str], out: Path, *, measures: Measures) -> Summary:
    """Scores the images that runs stored at their evaluations: curves over training, and each step against the first.

    No model is loaded. Intervals are those of the run: the same prompts, the same seed of the resampling.

    Args:
        runs: ``[LABEL=]RUN``; all were evaluated on the same prompts.
        out: the evaluation's folder.
        measures: what is measured.

    Raises:
        SeedpoError: any problem the user can fix, in one line.
    """
    evaluated = parse_runs(runs)
    first = evaluated[0]
    for sheets in evaluated[1:]:
        if (sheets.prompts, sheets.columns, sheets.seed) != (first.prompts, first.columns, first.seed):
            raise ConfigError(
                f"{sheets.label} and {first.label} were not evaluated on the same prompts and latents; evaluate them "
                "into different --out folders"
            )
    metrics = _checked_metrics(measures, images=first.columns)
    _check_reference(measures, [])
    folder = EvaluationFolder(Path(out))
    settings = {
        "kind": "over-training",
        **_prompt_settings(first.prompts),
        "images": first.columns,
        "seed": first.seed,
    }
    records = {sheets.label: {"run": str(sheets.run.path), "kind": "run"} for sheets in evaluated}
    folder.begin(Plan(settings=settings, targets=records, rewards=_reward_records(measures)), first.prompts)
    for sheets in evaluated:
        cut_missing(folder, sheets, progress=measures.scoring.progress)
    places = [(sheets.label, step) for sheets in evaluated for step in sheets.steps]
    grid = Grid(folder=folder, places=places, prompts=first.prompts, images=first.columns)
    return _measure(grid, measures, metrics, settings)


def parse_runs(runs: Sequence[str]) -> list[Sheets]:
    """Runs whose sheets are scored, each under a label.

    Raises:
        ConfigError: if none is given, or two have one label.
        RunFolderError: if one is not a run folder.
        DataError: if one was not evaluated.
    """
    if not runs:
        raise ConfigError("there is nothing to evaluate; name a run folder")
    evaluated: dict[str, Sheets] = {}
    for text in runs:
        label, equals, place = text.partition("=")
        if not equals or exists(text):
            label, place = "", text
        sheets = find_sheets(label or Path(place).resolve().name, Path(place))
        if sheets.label in evaluated:
            raise ConfigError(f"two runs have the label {sheets.label}; give one another with NAME={place}")
        evaluated[sheets.label] = sheets
    return list(evaluated.values())


def _checked_metrics(measures: Measures, *, images: int) -> dict[str, Metric | SetMetric]:
    """The metrics; checks that all names are known before anything is drawn.

    Raises:
        ConfigError: if a name is unknown, or a metric needs more images of each prompt.
    """
    definitions = measures.scoring.definitions
    check_definitions(definitions)
    for name in measures.rewards:
        check_name(name, definitions)
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


def _check_reference(measures: Measures, labels: Sequence[str]) -> None:
    reference = measures.reference
    if reference is not None and reference not in labels and not exists(reference):
        raise ConfigError(
            f"--reference {reference} is neither a folder of images nor a target's label ({', '.join(labels)})"
        )


def _measure(
    grid: Grid, measures: Measures, metrics: Mapping[str, Metric | SetMetric], settings: Mapping[str, Any]
) -> Summary:
    """Scores and metrics of all that was not measured yet, and the summary of all that is known."""
    seed, progress = settings["seed"], measures.scoring.progress
    scores = score_missing(grid, measures.rewards, measures.scoring)
    for name, metric in metrics.items():
        side = metric.facts.image_size
        for place in grid.places:
            if side is not None and (size := size_of(grid.folder.image(place, 0, 0))) != (side, side):
                raise ConfigError(
                    f"metric {name} reads images of {side} x {side} pixels only; those of {place[0]} have {size[0]} x "
                    f"{size[1]}: leave it out"
                )
    prompt_metrics = {name: metric for name, metric in metrics.items() if isinstance(metric, Metric)}
    set_metrics = {name: metric for name, metric in metrics.items() if isinstance(metric, SetMetric)}
    values = measure_missing(grid, prompt_metrics, progress=progress)
    figures = measure_sets(grid, set_metrics, measures.reference, seed=seed, device=_device(), progress=progress)
    summary = summarise(
        [
            (scores, [_measured_reward(name, measures) for name in scores.values]),
            (values, [_measured_metric(name) for name in values.values]),
        ],
        settings=settings,
        seed=seed,
        set_figures=figures,
    )
    write_summary(grid.folder, summary)
    return summary


def _measured_reward(name: str, measures: Measures) -> Measured:
    head = name.partition("@")[0]
    registered = head in REWARDS and name not in measures.scoring.definitions
    width = measures.tie_widths.get(name, measures.tie_widths.get(""))
    return Measured(name=name, kind="reward", unit=REWARDS[head].scale if registered else "", tie_width=width)


def _measured_metric(name: str) -> Measured:
    facts, _ = metric_entry(name)
    return Measured(name=name, kind="metric", unit=facts.unit, direction=facts.direction, finish=facts.finish)


def _prompt_settings(texts: Sequence[str]) -> dict[str, Any]:
    return {"num_prompts": len(texts), "prompts_sha256": hashlib.sha256("\n".join(texts).encode()).hexdigest()}


def _reward_records(measures: Measures, *more: str | None) -> dict[str, dict[str, Any]]:
    """How each reward is computed that is measured, and ``more`` that pick images."""
    definitions = measures.scoring.definitions
    return {
        name: {
            "precision": measures.scoring.precision,
            "definition": definitions[name].deciding() if name in definitions else None,
            **({"versions": versions} if (versions := server_versions([name], definitions)) else {}),
        }
        for name in dict.fromkeys([*measures.rewards, *filter(None, more)])
    }


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


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
