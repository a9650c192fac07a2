"""A run's plan: forward passes, FLOPs, memory and hours, from its configuration and a model's configuration files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from seedpo.errors import ConfigError
from seedpo.methods.presets import METHODS
from seedpo.planning.advice import advise
from seedpo.planning.configurations import model_configuration
from seedpo.planning.costs import Cost, Networks, measure
from seedpo.planning.dry_run import Assumptions, Workload, dry_run, evaluation
from seedpo.planning.gpus import Gpu
from seedpo.planning.memory import Memory, estimate
from seedpo.planning.networks import build_policy, build_preview
from seedpo.planning.people import People, people_asked
from seedpo.planning.scorers import Scorer, build_scorer
from seedpo.training.feedback.wiring import study_settings
from seedpo.training.settings import RunConfig

UTILISATION = 0.35
"""Share of the peak that a run is assumed to reach."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One activity of a run.

    Attributes:
        name: what it is.
        forwards: rows through its network per pair, sampling's share of a roll-out included.
        flops: per pair.
        share: of the run's FLOPs.
        hours: of the run.
    """

    name: str
    forwards: float
    flops: float
    share: float
    hours: float


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run would cost.

    Attributes:
        config: its settings.
        model: where the model's configuration comes from.
        scorer: what the reward's network was taken for; empty where there is none.
        people: what they are asked, where they judge in place of a reward.
        gpu: planned for.
        gpus: how many of them.
        utilisation: share of the peak that was assumed.
        unit: what ``batch_size`` counts.
        pairs: trained on in the run, by all processes.
        rollouts: of one process.
        lines: by activity; evaluations last, which have no share in a pair.
        flops_per_pair: in the long run, without evaluations.
        flops: of the run, all processes together.
        hours: of the run.
        memory: of one GPU, an estimate.
        warnings: what will not work as planned, and what to change.
        notes: what was assumed.
    """

    config: RunConfig
    model: str
    scorer: str
    people: People | None
    gpu: Gpu
    gpus: int
    utilisation: float
    unit: str
    pairs: float
    rollouts: int
    lines: Sequence[Line]
    flops_per_pair: float
    flops: float
    hours: float
    memory: Memory
    warnings: Sequence[str]
    notes: Sequence[str]

    def as_json(self) -> dict[str, Any]:
        """Everything as JSON values; FLOPs, bytes and hours."""
        return {
            "method": self.config.method,
            "model": self.model,
            "reward": self.scorer,
            "people": None if self.people is None else self.people.as_json(),
            "gpu": self.gpu.name,
            "gpus": self.gpus,
            "utilisation": self.utilisation,
            "unit": self.unit,
            "pairs": self.pairs,
            "rollouts_per_gpu": self.rollouts,
            "activities": {
                line.name: {
                    "forwards_per_pair": line.forwards,
                    "flops_per_pair": line.flops,
                    "share": line.share,
                    "hours": line.hours,
                }
                for line in self.lines
            },
            "flops_per_pair": self.flops_per_pair,
            "flops": self.flops,
            "hours": self.hours,
            "memory": {
                "estimate": True,
                "held": dict(self.memory.held),
                "phases": dict(self.memory.phases),
                "peak": self.memory.peak,
                "gpu": round(self.gpu.memory * 2**30),
            },
            "warnings": list(self.warnings),
            "notes": list(self.notes),
        }


@dataclass(frozen=True, kw_only=True)
class Counted:
    """A run's networks, its work and what a row of each part costs, before any GPU is named."""

    networks: Networks
    workload: Workload
    costs: Mapping[str, Cost]
    model: str


@dataclass(frozen=True, kw_only=True)
class Guesses:
    """What a configuration does not say.

    Attributes:
        kept: share of the pairs of a roll-out that are kept, above 0 and at most 1.
        pairs: in the preference set; none: as many as are trained on.
        cached: whether all that the run looks up in its cache folder is there.
    """

    kept: float = 1.0
    pairs: int | None = None
    cached: bool = False


def count(
    config: RunConfig,
    *,
    guesses: Guesses = Guesses(),
    gpus: int = 1,
    progress: Callable[[str], object] = lambda part: None,
) -> Counted:
    """Builds a run on the meta device and counts.

    Args:
        config: the run's settings.
        guesses: what they do not say.
        gpus: of the run.
        progress: called with the name of each part before it is measured.

    Raises:
        ConfigError: if a guess is out of its range, or the configuration of the model is not known.
        DataError: if a configuration file cannot be used.
    """
    if not 0 < guesses.kept <= 1:
        raise ConfigError(
            f"--kept {guesses.kept} must be above 0 and at most 1: the share of a roll-out's pairs that are kept"
        )
    if guesses.pairs is not None and guesses.pairs < 1:
        raise ConfigError(f"--pairs {guesses.pairs} must be at least 1: the pairs of the preference set")
    if guesses.cached and config.cache.folder is None:
        raise ConfigError("--cached needs a folder in which things are kept; add --set cache.folder=FOLDER")
    model = model_configuration(config)
    policy = build_policy(config, model)
    scorers = {name: _scorer(config, name) for name in config.evaluation.rewards}
    if not METHODS[config.method].source.fixed_pairs and config.feedback.study is None:
        scorers[""] = _scorer(config, config.reward)
    networks = Networks(policy=policy, preview=build_preview(config), scorers=scorers)
    assumed = Assumptions(
        kept=Fraction(guesses.kept).limit_denominator(10_000),
        pairs=guesses.pairs,
        gpus=gpus,
        cached=guesses.cached,
    )
    try:
        policy.process.timesteps(config.sampling.num_inference_steps)
    except ValueError as error:
        raise ConfigError(f"sampling.{error}") from error
    workload = dry_run(config, policy.process, assumed)
    costs = measure(
        networks,
        _with_evaluation(config, workload.rows_at_once, networks),
        mixed_precision=config.mixed_precision,
        with_gradients=config.gradient_accumulation_steps > 1,
        progress=progress,
    )
    return Counted(networks=networks, workload=workload, costs=costs, model=model.origin)


def _scorer(config: RunConfig, name: str) -> Scorer:
    return build_scorer(name, definitions=config.rewards, precision=config.reward_precision)


def _with_evaluation(config: RunConfig, rows_at_once: Mapping[str, int], networks: Networks) -> dict[str, int]:
    """Rows of the largest calls, those of evaluations included; rewards without a network are left out."""
    images = config.evaluation.num_prompts * config.evaluation.images_per_prompt
    batch = min(config.evaluation.batch_size, images)
    sampled = batch * (2 if config.evaluation.guidance_scale != 1 else 1)
    joined = dict(rows_at_once)
    for part, rows in (("sampling", sampled), ("vae_decode", batch), ("text", config.evaluation.num_prompts)):
        joined[part] = max(joined.get(part, 0), rows)
    for name in filter(None, networks.scorers):
        joined |= {f"scorer_image:{name}": images, f"scorer_text:{name}": config.evaluation.num_prompts}
    idle = {
        f"scorer_{part}{name and ':'}{name}"
        for name, scorer in networks.scorers.items()
        for part, kind in (("image", "images"), ("text", "prompts"))
        if not scorer.calls(kind)
    }
    return {part: rows for part, rows in joined.items() if part not in idle}


def run_flops(counted: Counted) -> Fraction:
    """FLOPs of one process's training in a run."""
    return sum((_flops(counted.costs, part) * rows for (_, part), rows in counted.workload.rows.items()), Fraction(0))


def _flops(costs: Mapping[str, Cost], part: str) -> Fraction:
    return costs[part].flops.total if part in costs else Fraction(0)


def _seconds(costs: Mapping[str, Cost], part: str, gpu: Gpu) -> float:
    """Time of one row at the full peak."""
    if part not in costs:
        return 0.0
    cost = costs[part]
    if cost.half:
        return float(cost.flops.total) / (gpu.half * 1e12)
    return (float(cost.flops.convolution) / gpu.tf32 + float(cost.flops.product) / gpu.float32) / 1e12


def plan_run(
    config: RunConfig,
    *,
    gpu: Gpu,
    gpus: int = 1,
    utilisation: float = UTILISATION,
    guesses: Guesses = Guesses(),
    progress: Callable[[str], object] = lambda part: None,
) -> Plan:
    """What a run would cost on GPUs of one kind.

    Args:
        config: the run's settings.
        gpu: the kind of GPU.
        gpus: how many, at least 1; ``batch_size`` is per GPU.
        utilisation: share of the peak that is reached, above 0 and at most 1.
        guesses: what the settings do not say.
        progress: called with the name of each part before it is measured.

    Raises:
        ConfigError: if an argument is out of its range, or the configuration of the model is not known.
        DataError: if a configuration file cannot be used.
    """
    if gpus < 1:
        raise ConfigError(f"--gpus {gpus} must be at least 1")
    if not 0 < utilisation <= 1:
        raise ConfigError(f"--utilisation {utilisation} must be above 0 and at most 1: a share of the peak")
    study = study_settings(config)  # one that cannot be read is told before anything is counted
    counted = count(config, guesses=guesses, gpus=gpus, progress=progress)
    workload, costs = counted.workload, counted.costs
    drawn = evaluation(config)
    flops = gpus * run_flops(counted) + sum(_flops(costs, part) * rows for part, rows in drawn.items())
    lines = _lines(counted, gpu=gpu, gpus=gpus, utilisation=utilisation, total=flops)
    lines.append(_evaluation_line(costs, drawn, config, gpu=gpu, gpus=gpus, utilisation=utilisation, total=flops))
    memory = estimate(config, counted.networks, costs, gpus=gpus, cached=guesses.cached)
    scorer, rollouts = counted.networks.scorers.get(""), workload.rollouts or 0
    return Plan(
        config=config,
        model=counted.model,
        scorer="" if scorer is None else scorer.origin,
        people=people_asked(config, study, rounds=rollouts, gpus=gpus),
        gpu=gpu,
        gpus=gpus,
        utilisation=utilisation,
        unit=workload.unit,
        pairs=float(workload.units * workload.pairs_per_unit * gpus),
        rollouts=rollouts,
        lines=lines,
        flops_per_pair=sum(line.flops for line in lines),
        flops=float(flops),
        hours=sum(line.hours for line in lines),
        memory=memory,
        warnings=advise(config, gpu, memory, previews=sum(line.share for line in lines if line.name == "previews")),
        notes=_notes(config, counted.networks.scorers, guesses, workload),
    )


def _lines(
    counted: Counted,
    *,
    gpu: Gpu,
    gpus: int,
    utilisation: float,
    total: Fraction,
) -> list[Line]:
    workload, costs = counted.workload, counted.costs
    lines = []
    for name in dict.fromkeys(name for name, _ in workload.rows):
        rows = {part: rows for (activity, part), rows in workload.rows.items() if activity == name}
        each = {part: workload.rows_per_unit.get((name, part), Fraction(0)) / workload.pairs_per_unit for part in rows}
        flops = sum((_flops(costs, part) * number for part, number in rows.items()), Fraction(0))
        lines.append(
            Line(
                name=name,
                forwards=float(sum(each.values())),
                flops=float(sum(_flops(costs, part) * number for part, number in each.items())),
                share=float(gpus * flops / total),
                hours=sum(_seconds(costs, part, gpu) * float(number) for part, number in rows.items())
                / utilisation
                / 3600,
            )
        )
    return lines


def _evaluation_line(
    costs: Mapping[str, Cost],
    rows: Mapping[str, Fraction],
    config: RunConfig,
    *,
    gpu: Gpu,
    gpus: int,
    utilisation: float,
    total: Fraction,
) -> Line:
    """All evaluations: batches of images are dealt out among the processes, and scored by the first."""
    batches = -(-config.evaluation.num_prompts * config.evaluation.images_per_prompt // config.evaluation.batch_size)
    share = -(-batches // gpus) / batches
    seconds = sum(
        _seconds(costs, part, gpu) * float(number) * (1.0 if part.startswith("scorer_") else share)
        for part, number in rows.items()
    )
    return Line(
        name="evaluations",
        forwards=0.0,
        flops=0.0,
        share=float(sum(_flops(costs, part) * number for part, number in rows.items()) / total),
        hours=seconds / utilisation / 3600,
    )


def _notes(config: RunConfig, scorers: Mapping[str, Scorer], guesses: Guesses, workload: Workload) -> list[str]:
    notes = []
    if workload.rollouts is not None and guesses.kept == 1:
        notes.append("every pair of a roll-out is taken to be kept; with --kept 0.5 there are twice as many roll-outs")
    if workload.rollouts is None and guesses.pairs is None:
        notes.append("every pair is taken to be met once; --pairs N says how many there are")
    if workload.rollouts is None and config.cache.folder is not None and not guesses.cached:
        notes.append("the cache folder is taken to be empty at the start; --cached says that it is filled")
    if unknown := sorted({name for scorer in scorers.values() for name in scorer.unknown}):
        notes.append(
            f"rewards whose network is unknown are not counted: {', '.join(unknown)}; a CLIP is known by the "
            "config.json in its folder"
        )
    if config.feedback.study is not None:
        notes.append("hours are those of the GPUs, which wait while people vote")
    if config.compile:
        notes.append("torch.compile changes neither FLOPs nor, in this estimate, memory")
    return notes
