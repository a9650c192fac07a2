"""How many rows go through which network: the run's own source, objective and evaluation, on stand-ins that count.

Only model, judge, prompts and pairs are stand-ins (:mod:`seedpo.planning.stand_ins`); everything else is the code that
trains. A few roll-outs are run, which takes a fraction of a second, and longer runs are extrapolated from them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from seedpo.core.draws import StratifiedDraws
from seedpo.core.processes import Process
from seedpo.core.types import LossOutput
from seedpo.data.cache.pairs import EncodedPairs
from seedpo.data.pairs.changes import ChangedPairs, with_gap
from seedpo.evaluation.image_evaluation import ImageEvaluation
from seedpo.evaluation.pair_validation import PairValidation
from seedpo.methods.presets import METHODS
from seedpo.methods.sources.data_anchor import with_data
from seedpo.methods.sources.rollouts import Drawn, Rollout
from seedpo.methods.sources.supplies import Supplies
from seedpo.planning.stand_ins import (
    BlankPairs,
    BlankPrompts,
    Key,
    Recorder,
    StandInFeatures,
    StandInJudge,
    StandInLatentJudge,
    StandInOpinion,
    StandInPolicy,
    blank_images,
)
from seedpo.protocols import Images, PreferencePairs
from seedpo.rewards.names import latent_leaves, source_of
from seedpo.training.run import build_method
from seedpo.training.settings import RunConfig, TrainingConfig, reward_of

ROLLOUTS = 20
"""Steady roll-outs that are run if chance decides which pairs are kept, or at which steps they are trained on."""

LOSSES = 400
"""Batches whose loss is computed; later ones are assumed to be like them."""


@dataclass(frozen=True, kw_only=True)
class Guesses:
    """What a configuration does not say.

    Attributes:
        kept: share of the pairs of a roll-out that are kept, above 0 and at most 1.
        pairs: pairs in the preference set; `None` if no pair is met twice.
        cached: whether the cache folder is filled.
    """

    kept: float = 1.0
    pairs: int | None = None
    cached: bool = False


NO_GUESSES = Guesses()
"""All pairs are kept, none is met twice, and no cache is filled."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What one process does in a run.

    Attributes:
        unit: what ``batch_size`` counts.
        units: units in the run.
        pairs_per_unit: pairs of one unit, whose losses are added up.
        rollouts: roll-outs in the run; `None` for a fixed set of pairs.
        rows: rows in the run.
        rows_per_unit: rows of one unit in the long run, with its share of a roll-out.
        evaluations: rows of all evaluations of the run by part, of all processes.
        validation: the same of the validation pairs.
        rows_at_once: rows of the largest call by part, evaluations included; ``policy`` is a micro-batch.
    """

    unit: str
    units: int
    pairs_per_unit: Fraction
    rollouts: int | None = None
    rows: Mapping[Key, Fraction]
    rows_per_unit: Mapping[Key, Fraction]
    evaluations: Mapping[str, Fraction] = field(default_factory=dict)
    validation: Mapping[str, Fraction] = field(default_factory=dict)
    rows_at_once: Mapping[str, int]


def dry_run(config: RunConfig, process: Process, guesses: Guesses, *, gpus: int = 1, validation: int = 0) -> Workload:
    """Runs the source, the objective and an evaluation of a run on stand-ins.

    Args:
        config: the run's settings.
        process: of the run's model.
        guesses: what the settings do not say.
        gpus: processes of the run, among which a preference set is divided.
        validation: labelled pairs that every evaluation measures.

    Raises:
        SeedpoError: if the share of pairs kept is so low that a run would give up.
    """
    if METHODS[config.method].source.fixed_pairs:
        training = _from_pairs(config, process, guesses, gpus)
    else:
        training = _from_rollouts(config, process, Fraction(guesses.kept).limit_denominator(10_000))
    evaluations, drawn_at_once = _evaluations(config, process)
    held_out, measured_at_once = _validation(config, process, guesses, validation) if validation else ({}, {})
    calls = (training.rows_at_once, drawn_at_once, measured_at_once)
    most = {part: max(rows.get(part, 0) for rows in calls) for rows in calls for part in rows}
    return replace(training, evaluations=evaluations, validation=held_out, rows_at_once=most)


def evaluation_count(config: TrainingConfig) -> int:
    """A run is evaluated before its first step, after its last, and as set between."""
    every = config.evaluate_every
    return 2 + ((config.max_steps - 1) // every if every else 0)


def _validation(
    config: RunConfig, process: Process, guesses: Guesses, count: int
) -> tuple[dict[str, Fraction], dict[str, int]]:
    """Rows of the validation pairs in all evaluations by part, and those of the largest call.

    What is encoded once is kept; the passes of policy and reference come again at every evaluation.
    """
    recorder, some = Recorder(), min(count, config.batch_size)
    policy, pairs = StandInPolicy(process, recorder), BlankPairs(some)
    draws = config.pairs.validation_draws
    method = METHODS[config.method].build_objective(config, draws=StratifiedDraws(seed=0, strata=draws))
    prompts = [f"prompt {row}" for row in range(some)]
    measured = PairValidation(
        EncodedPairs(pairs, policy),
        lambda rows: [prompts[row] for row in rows],
        method,
        rows=range(some),
        draws=draws,
        batch_size=some,
    )
    counts: list[Counter[Key]] = []
    for _ in range(2):
        with recorder.separately() as counted:
            measured.draw(policy, rank=0, world=1)
        counts.append(counted)
    whole = sum_of(scaled(counts[0], Fraction(1)), scaled(counts[1], Fraction(evaluation_count(config) - 1)))
    cached = _cached_parts(config, guesses) - {"reference"}
    names = {part: "validation" if part == "sampling" else part for part in recorder.rows_at_once if part not in cached}
    rows = {names[part]: number * Fraction(count, some) for (_, part), number in whole.items() if part in names}
    return rows, {names[part]: number for part, number in recorder.rows_at_once.items() if part in names}


def _cached_parts(config: RunConfig, guesses: Guesses) -> set[str]:
    """Parts that a filled cache replaces."""
    filled = guesses.cached and config.cache.folder is not None
    return {part for key, parts in _CACHED.items() if filled and getattr(config.cache, key) for part in parts}


def _blank_scores(images: Images, prompts: Sequence[str]) -> Tensor:
    return torch.zeros(len(prompts))


def _evaluations(config: RunConfig, process: Process) -> tuple[dict[str, Fraction], dict[str, int]]:
    """Rows of all evaluations by part, and those of the largest call.

    A scorer embeds each prompt once. Of several images the first scorer picks one, before it scores that again.
    """
    recorder, settings = Recorder(), config.evaluation
    prompts = [f"prompt {number}" for number in range(settings.num_prompts)]
    with torch.no_grad():
        evaluation = ImageEvaluation(prompts, config=settings, rewards={"picks": _blank_scores}, metrics={})
        evaluation.draw(StandInPolicy(process, recorder), rank=0, world=1)
    times = evaluation_count(config)
    rows = {part: Fraction(times * count) for (_, part), count in recorder.rows.items()}
    images = settings.num_prompts * settings.images_per_prompt
    for name in settings.rewards:
        texts = len(prompts) + len(latent_leaves(name, config.rewards))  # which read the empty prompt, too
        picked = settings.best_of if settings.best_of > 1 and name == settings.rewards[0] else 0
        scored = Fraction(times * images * (1 + picked))
        rows |= {f"scorer_image:{name}": scored, f"scorer_text:{name}": Fraction(texts)}
        recorder.rows_at_once |= {f"scorer_image:{name}": images, f"scorer_text:{name}": texts}
    return rows, recorder.rows_at_once


class _CountedRollout:
    """A roll-out that records its rows and its units."""

    def __init__(self, rollout: Rollout[Drawn], recorder: Recorder) -> None:
        self.rollout = rollout
        self.recorder = recorder
        self.rows: list[Counter[Key]] = []
        self.units: list[int] = []

    def __call__(
        self, prompts: Sequence[str], *, generator: torch.Generator, number: int
    ) -> tuple[Drawn | None, Mapping[str, float]]:
        with self.recorder.separately() as rows:
            drawn, observed = self.rollout(prompts, generator=generator, number=number)
        self.rows.append(rows)
        self.units.append(0 if drawn is None else drawn.units())
        return drawn, observed


def _from_rollouts(config: RunConfig, process: Process, kept: Fraction) -> Workload:
    """Runs roll-outs and the losses of their pairs, until all pairs of the last roll-out are used."""
    kind, recorder = METHODS[config.method].source, Recorder()
    passes = kind.settings(config).updates_per_rollout
    # The first roll-outs differ: the negative prompt is embedded, and previews are checked.
    first = max(1, config.steps.preview_checks if kind.judged == "previews" and config.preview_vae else 1)
    by_chance = kept < 1 or _draws_its_steps(config)
    enough = first + (ROLLOUTS if by_chance else 1)
    policy = StandInPolicy(process, recorder, checks=kind.judged == "previews")
    drawing = _rollout_source(config, policy, kept)
    rollout = drawing.rollout = _CountedRollout(drawing.rollout, recorder)
    source = _with_anchor_data(drawing, config, policy)
    method, generator = build_method(config), torch.Generator().manual_seed(0)
    length = config.max_steps * config.gradient_accumulation_steps
    batches = trained = pairs = waiting = 0
    whole_run: Counter[Key] | None = None
    while len(rollout.rows) < enough or (waiting and batches < LOSSES):
        batch = (source if batches < LOSSES else drawing).next_batch()
        batches += 1
        if batches <= LOSSES:
            pairs += len(_loss(method, policy, batch, generator).losses)
            trained += config.batch_size
        if batches == length <= LOSSES:
            whole_run = sum(rollout.rows, Counter(recorder.rows))
        waiting = sum(rollout.units) * passes - batches * config.batch_size
    units, steady_rollouts = length * config.batch_size, len(rollout.rows) - first
    steady = scaled(sum(rollout.rows[first:], Counter()), Fraction(1, steady_rollouts))
    units_per_rollout = Fraction(sum(rollout.units[first:]) * passes, steady_rollouts)
    training = scaled(recorder.rows, Fraction(1, trained))
    rollouts = _rollouts(units, [count * passes for count in rollout.units], units_per_rollout)
    rows = whole_run or sum_of(
        sum(rollout.rows[:rollouts], Counter()),
        scaled(steady, Fraction(max(rollouts - len(rollout.rows), 0))),
        scaled(training, Fraction(units)),
    )
    return Workload(
        unit=_UNITS[kind.gives][pairs > trained],
        units=units,
        pairs_per_unit=Fraction(pairs, trained),
        rollouts=rollouts,
        rows=scaled(rows, Fraction(1)),
        rows_per_unit=sum_of(scaled(steady, 1 / units_per_rollout), training),
        rows_at_once=recorder.rows_at_once,
    )


_UNITS = {
    "pairs": ("pair of images", "pair of images"),
    "groups": ("group of images", "group of images"),
    "steps": ("pair of steps", "group of pairs at one step"),
    "step-groups": ("step", "step of a group"),
}
"""What ``batch_size`` counts, by what a source gives: units with one loss, and units with several."""


def _draws_its_steps(config: RunConfig) -> bool:
    """Whether chance decides at which steps is trained, and so what runs through the network."""
    if METHODS[config.method].source.gives == "step-groups":
        return config.step_groups.window == "random"
    return config.trajectories.steps_per_pair is not None


def _rollout_source(config: RunConfig, policy: StandInPolicy, kept: Fraction) -> Any:
    """The run's source of pairs, with stand-ins. Which pairs are kept is a guess, so that the gap plays no part."""
    kind, recorder = METHODS[config.method].source, policy.recorder
    changes: dict[str, Any] = {"min_gap": 0.0}
    if kind.judged == "previews" and config.preview_vae is None:
        changes["preview_checks"] = 0

    def decode_previews(latents: Tensor) -> Tensor:
        recorder.scoring = "reward"
        recorder.add("previews", "preview_decode" if config.preview_vae else "vae_decode", len(latents))
        return blank_images(len(latents))

    if kind.section == "steps":
        changes["min_gap_noisiest"] = None
    settings = config.model_copy(update={str(kind.section): kind.settings(config).model_copy(update=changes)})
    judge = StandInJudge(recorder, kept=kept, scores=config.feedback.study is None)
    latent = latent_leaves(reward_of(config), config.rewards) if kind.judged == "previews" else []
    guided = any(source_of(leaf, config.rewards).is_guided for leaf in latent)
    supplies = Supplies(
        policy=policy,
        prompts=BlankPrompts,
        judge=lambda: StandInLatentJudge(judge, guided=guided) if latent else judge,
        preview_decode=lambda: decode_previews,
        features=lambda name: StandInFeatures(),
        opinion=lambda name: StandInOpinion(recorder, name=name),
    )
    return kind.build(settings, supplies)


def _with_anchor_data(source: Any, config: RunConfig, policy: StandInPolicy) -> Any:
    """A run's source with the pairs of its anchor `data`, of which none is assumed to be met twice."""
    pairs = BlankPairs(2**16)
    supplies = Supplies(policy=policy, pairs=lambda: (pairs, EncodedPairs(pairs, policy)))
    return with_data(source, config, supplies)


def _loss(method: Any, policy: StandInPolicy, batch: Any, generator: torch.Generator) -> LossOutput:
    """The losses of a micro-batch, all of whose passes with gradient are alive at once."""
    recorder = policy.recorder
    before = recorder.rows["policy", "policy"]
    output: LossOutput = method.loss(policy, batch, generator=generator)
    together = recorder.rows["policy", "policy"] - before
    recorder.rows_at_once["policy"] = max(together, recorder.rows_at_once.get("policy", 0))
    return output


def _rollouts(units: int, made: Sequence[int], steady: Fraction) -> int:
    """Roll-outs until enough units are made: first the known ones, then steady ones."""
    for number, total in enumerate(accumulate(made), start=1):
        if total >= units:
            return number
    return len(made) + math.ceil((units - sum(made)) / steady)


_CACHED = {
    "latents": ("vae_encode", "scorer_image", "scorer_text"),
    "prompts": ("text",),
    "reference": ("reference",),
}
"""The parts that a filled cache replaces, by the key of ``cache`` that switches it on."""


def _scored(pairs: BlankPairs, config: RunConfig, recorder: Recorder) -> PreferencePairs:
    """The pairs, scored as in the run."""
    if (name := config.pairs.gap_reward) is None:
        return pairs
    return ChangedPairs(pairs, [with_gap(StandInJudge(recorder, kept=Fraction(1), scores=True), name=name)])


def _from_pairs(config: RunConfig, process: Process, guesses: Guesses, gpus: int) -> Workload:
    """Runs one batch of pairs that are new, and one of pairs that were met before."""
    recorder, batch = Recorder(), config.batch_size
    gives = METHODS[config.method].source.gives
    policy, pairs = StandInPolicy(process, recorder), BlankPairs(batch, images=1 if gives == "likes" else 2)
    scored = _scored(pairs, config, recorder)
    unmirrored = {
        "pairs": config.pairs.model_copy(update={"flip": False}),
        "fidelity": config.fidelity.model_copy(update={"independent_flips": False}),
    }
    encoded = EncodedPairs(scored, policy)
    supplies = Supplies(policy=policy, pairs=lambda: (pairs, encoded), likes=lambda: (pairs, encoded))
    settings = config.model_copy(update=unmirrored)
    source = _with_anchor_data(METHODS[config.method].source.build(settings, supplies), settings, policy)
    method, generator = build_method(config), torch.Generator().manual_seed(0)
    counts: list[Counter[Key]] = []
    for _ in range(2):
        with recorder.separately() as counted:
            _loss(method, policy, source.next_batch(), generator)
        counts.append(counted)
    units = config.max_steps * config.gradient_accumulation_steps * batch
    new = first_visits(units, guesses.pairs, gpus=gpus, directions=2 if config.pairs.flip else 1)
    cached = _cached_parts(config, guesses)
    rows = sum_of(scaled(counts[0], new / batch), scaled(counts[1], (units - new) / batch))
    rows = {(activity, part): count for (activity, part), count in rows.items() if part not in cached}
    return Workload(
        unit="like" if gives == "likes" else "pair",
        units=units,
        pairs_per_unit=Fraction(1),
        rows=rows,
        rows_per_unit=scaled(rows, Fraction(1, units)),
        rows_at_once={part: count for part, count in recorder.rows_at_once.items() if part not in cached},
    )


def first_visits(visits: int, pairs: int | None, *, gpus: int, directions: int) -> Fraction:
    """How many visits of pairs by one process are the first: expectation.

    Each epoch gives every pair to one of the processes.

    Args:
        visits: of this process.
        pairs: in the set; `None` if no pair is met twice.
        gpus: number of processes.
        directions: 2 if a pair is mirrored at half of its visits, which makes two pairs of it, else 1.
    """
    if pairs is None:
        return Fraction(visits)
    epochs, rest = divmod(visits * gpus, pairs)
    chance = Fraction(1, directions * gpus)
    unmet = (1 - chance) ** epochs
    return directions * (pairs * (1 - unmet) + rest * unmet * chance)


def scaled(rows: Mapping[Key, int | Fraction], factor: Fraction) -> dict[Key, Fraction]:
    """Rows times a factor."""
    return {key: count * factor for key, count in rows.items()}


def sum_of(*parts: Mapping[Key, int | Fraction]) -> dict[Key, Fraction]:
    """Rows of several counts together."""
    keys = dict.fromkeys(key for rows in parts for key in rows)
    return {key: sum((Fraction(rows.get(key, 0)) for rows in parts), Fraction(0)) for key in keys}
