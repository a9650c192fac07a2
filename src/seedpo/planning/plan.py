"""A run's plan: forward passes, FLOPs, memory and hours, from its configuration and a model's configuration files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from seedpo.errors import ConfigError
from seedpo.methods.presets import METHODS
from seedpo.planning.advice import advise
from seedpo.planning.configurations import model_configuration
from seedpo.planning.costs import Cost, Networks, measure
from seedpo.planning.dry_run import NO_GUESSES, Guesses, Workload, dry_run
from seedpo.planning.gpus import Gpu
from seedpo.planning.memory import Memory, estimate
from seedpo.planning.networks import build_policy, build_preview
from seedpo.planning.pair_sets import PairSets, pair_sets
from seedpo.planning.people import People, questions_to_people
from seedpo.planning.scorers import Scorer, build_scorer
from seedpo.training.checks import absent_data, check_guidance, check_run
from seedpo.training.feedback.wiring import study_settings
from seedpo.training.reference import has_weights
from seedpo.training.run import process_of
from seedpo.training.scopes import warnings_of_idle_keys
from seedpo.training.settings import RewardRunConfig, RunConfig, reward_of

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
        method: by which it trains.
        noun: what a loss is of.
        model: origin of the model's configuration.
        scorer: origin of the reward's network; empty without a reward.
        people: the questions to people, if they judge in place of a reward.
        gpu: planned for.
        gpus: how many of them.
        utilisation: share of the peak that was assumed.
        unit: what ``batch_size`` counts.
        pairs: trained on in the run, by all processes.
        rollouts: of one process.
        lines: by activity; evaluations and validation pairs last, which have no share in a pair.
        flops: of the run, all processes together.
        memory: of one GPU, an estimate.
        warnings: what will not work, and which key to change.
        notes: assumptions.
    """

    config: RunConfig | RewardRunConfig
    method: str
    noun: str
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
    flops: float
    memory: Memory
    warnings: Sequence[str]
    notes: Sequence[str]

    @property
    def flops_per_pair(self) -> float:
        """In the long run, without evaluations."""
        return sum(line.flops for line in self.lines)

    @property
    def hours(self) -> float:
        """Of the run."""
        return sum(line.hours for line in self.lines)

    def as_json(self) -> dict[str, Any]:
        """Everything as JSON values; FLOPs, bytes and hours."""
        return {
            "method": self.method,
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
    pairs: PairSets

    def flops(self) -> Fraction:
        """FLOPs of one process's training in the run."""
        rows = self.workload.rows
        return sum((self.costs[part].flops.total * count for (_, part), count in rows.items()), Fraction(0))


def count(
    config: RunConfig,
    *,
    guesses: Guesses = NO_GUESSES,
    gpus: int = 1,
    progress: Callable[[str], object] = lambda part: None,
) -> Counted:
    """Builds a run on the meta device and counts.

    Args:
        config: the run's settings.
        guesses: what the settings do not say.
        gpus: of the run.
        progress: receives the name of each part before it is measured.

    Raises:
        ConfigError: if a guess is out of range, or the configuration of the model is unknown.
        DataError: if a configuration file cannot be used.
    """
    if not 0 < guesses.kept <= 1:
        raise ConfigError(
            f"--kept {guesses.kept} must be above 0 and at most 1: the share of a roll-out's pairs that are kept"
        )
    check_set(guesses, config.cache.folder)
    model = model_configuration(config)
    policy = build_policy(config, model)
    policy.process = process_of(config, policy)
    if has_weights(config):
        policy.move_reference()
    check_run(config, policy.process, policy.image_size)
    check_guidance(config, policy)
    scorers = {name: _scorer(config, name) for name in config.evaluation.rewards}
    if METHODS[config.method].source.fixed_pairs:
        scorers |= {} if config.pairs.gap_reward is None else {"": _scorer(config, config.pairs.gap_reward)}
    elif config.feedback.study is None:
        scorers[""] = _scorer(config, reward_of(config))
        scorers |= {name: _scorer(config, name) for name in config.weighting.second_opinion}
    networks = Networks(policy=policy, preview=build_preview(config), scorers=scorers)
    try:
        policy.process.timesteps(config.sampling.num_inference_steps)
    except ValueError as error:
        raise ConfigError(f"sampling.{error}") from error
    pairs = pair_sets(config, guesses.pairs)
    guesses = replace(guesses, pairs=pairs.training)
    workload = dry_run(config, policy.process, guesses, gpus=gpus, validation=pairs.validation or 0)
    costs = measure(
        networks,
        workload.rows_at_once,
        mixed_precision=config.mixed_precision,
        with_gradients=config.gradient_accumulation_steps > 1,
        shapes=pairs.shapes,
        progress=progress,
    )
    return Counted(networks=networks, workload=workload, costs=costs, model=model.origin, pairs=pairs)


def _scorer(config: RunConfig, name: str) -> Scorer:
    return build_scorer(name, definitions=config.rewards, precision=config.reward_precision)


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What rows cost on a GPU.

    Attributes:
        costs: of a row of each part.
        gpu: the kind of GPU.
        utilisation: share of its peak that is reached.
    """

    costs: Mapping[str, Cost]
    gpu: Gpu
    utilisation: float

    def flops(self, rows: Mapping[str, Fraction]) -> Fraction:
        """FLOPs of rows by part."""
        return sum((self.costs[part].flops.total * count for part, count in rows.items()), Fraction(0))

    def hours(self, rows: Mapping[str, Fraction]) -> float:
        """Hours of rows by part."""
        return sum(self._seconds(part) * float(count) for part, count in rows.items()) / self.utilisation / 3600

    def _seconds(self, part: str) -> float:
        """Time of one row at the full peak."""
        cost = self.costs[part]
        if cost.half:
            return float(cost.flops.total) / (self.gpu.half * 1e12)
        return (float(cost.flops.convolution) / self.gpu.tf32 + float(cost.flops.product) / self.gpu.float32) / 1e12


def plan_run(
    config: RunConfig,
    *,
    gpu: Gpu,
    gpus: int = 1,
    utilisation: float = UTILISATION,
    guesses: Guesses = NO_GUESSES,
    progress: Callable[[str], object] = lambda part: None,
) -> Plan:
    """What a run would cost on GPUs of one kind.

    Args:
        config: the run's settings.
        gpu: the kind of GPU.
        gpus: how many, at least 1; ``batch_size`` is per GPU.
        utilisation: share of the peak that is reached, above 0 and at most 1.
        guesses: what the settings do not say.
        progress: receives the name of each part before it is measured.

    Raises:
        ConfigError: if an argument is out of range, or the configuration of the model is unknown.
        DataError: if a configuration file cannot be used.
    """
    check_hardware(gpus, utilisation)
    study = study_settings(config)  # reports an unreadable study before the expensive part
    counted = count(config, guesses=guesses, gpus=gpus, progress=progress)
    workload, costs = counted.workload, counted.costs
    rates = Rates(costs=costs, gpu=gpu, utilisation=utilisation)
    flops = gpus * counted.flops() + rates.flops(workload.evaluations) + rates.flops(workload.validation)
    lines = [*training_lines(workload, rates, gpus=gpus, total=flops)]
    drawn = len(config.evaluation.drawing.batches(config.evaluation.num_prompts))
    lines.append(evaluation_line("evaluations", workload.evaluations, drawn, rates, gpus=gpus, total=flops))
    if held_out := counted.pairs.validation:
        batches = -(-held_out // config.batch_size)
        lines.append(evaluation_line("validation pairs", workload.validation, batches, rates, gpus=gpus, total=flops))
    memory = estimate(config, counted.networks, costs, gpus=gpus, cached=guesses.cached)
    scorer, rollouts = counted.networks.scorers.get(""), workload.rollouts or 0
    return Plan(
        config=config,
        method=config.method,
        noun=METHODS[config.method].source.noun,
        model=counted.model,
        scorer="" if scorer is None else scorer.origin,
        people=questions_to_people(config, study, rounds=rollouts, gpus=gpus),
        gpu=gpu,
        gpus=gpus,
        utilisation=utilisation,
        unit=workload.unit,
        pairs=float(workload.units * workload.pairs_per_unit * gpus),
        rollouts=rollouts,
        lines=lines,
        flops=float(flops),
        memory=memory,
        warnings=[
            *absent_data(config),
            *warnings_of_idle_keys(config),
            *advise(config, gpu, memory, previews=sum(line.share for line in lines if line.name == "previews")),
        ],
        notes=_notes(config, counted, guesses),
    )


def check_set(guesses: Guesses, cache: str | None) -> None:
    """Checks what is said of a preference set, and of the cache folder.

    Raises:
        ConfigError: if it cannot be.
    """
    if guesses.pairs is not None and guesses.pairs < 1:
        raise ConfigError(f"--pairs {guesses.pairs} must be at least 1: the pairs of the preference set")
    if guesses.cached and cache is None:
        raise ConfigError("--cached needs a folder in which things are kept; add --set cache.folder=FOLDER")


def check_hardware(gpus: int, utilisation: float) -> None:
    """Checks the number of GPUs, and the share of their peak.

    Raises:
        ConfigError: if either is out of range.
    """
    if gpus < 1:
        raise ConfigError(f"--gpus {gpus} must be at least 1")
    if not 0 < utilisation <= 1:
        raise ConfigError(f"--utilisation {utilisation} must be above 0 and at most 1: a share of the peak")


def training_lines(workload: Workload, rates: Rates, *, gpus: int, total: Fraction) -> Iterator[Line]:
    """The activities of a training, of ``total`` FLOPs of the run."""
    for name in dict.fromkeys(name for name, _ in workload.rows):
        rows = {part: count for (activity, part), count in workload.rows.items() if activity == name}
        each = {part: workload.rows_per_unit.get((name, part), Fraction(0)) / workload.pairs_per_unit for part in rows}
        yield Line(
            name=name,
            forwards=float(sum(each.values())),
            flops=float(rates.flops(each)),
            share=float(gpus * rates.flops(rows) / total),
            hours=rates.hours(rows),
        )


def evaluation_line(
    name: str, rows: Mapping[str, Fraction], batches: int, rates: Rates, *, gpus: int, total: Fraction
) -> Line:
    """All evaluations: batches are divided among the processes, and scored by the first."""
    share = Fraction(-(-batches // gpus), batches)
    own = {part: count if part.startswith("scorer_") else count * share for part, count in rows.items()}
    return Line(name=name, forwards=0.0, flops=0.0, share=float(rates.flops(rows) / total), hours=rates.hours(own))


def _notes(config: RunConfig, counted: Counted, guesses: Guesses) -> list[str]:
    notes, workload, scorers = [], counted.workload, counted.networks.scorers
    thing = METHODS[config.method].source.noun
    if counted.pairs.validation is None:
        notes.append("validation pairs are not counted; --pairs N says how many pairs there are")
    elif isinstance(config.pairs.validation, str) and counted.pairs.validation == config.pairs.validation_limit:
        notes.append(f"{counted.pairs.validation} validation pairs are assumed, pairs.validation_limit")
    if config.pairs.buckets and not counted.pairs.shapes:
        notes.append("all pairs are counted in the square, the largest bucket: the data are not here to be looked at")
    if workload.rollouts is not None and guesses.kept == 1:
        notes.append(f"all {thing}s of a roll-out are assumed to be kept; --kept 0.5 means twice as many roll-outs")
    if workload.rollouts is None and guesses.pairs is None:
        notes.append(f"no {thing} is assumed to be met twice; --pairs N says how many there are")
    if workload.rollouts is None and config.cache.folder is not None and not guesses.cached:
        notes.append("the cache folder is assumed to be empty; --cached says that it is filled")
    if config.weighting.asks_features:
        notes.append(
            f"the network behind weighting.features = {config.weighting.features} is not counted: one forward pass of "
            "each image or preview that is scored"
        )
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
