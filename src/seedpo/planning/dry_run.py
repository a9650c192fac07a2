"""How many rows go through which network: the run's own source and objective, on a stand-in model that counts.

The stand-in has small latents and predicts zeros, so that a roll-out takes a fraction of a second whatever the
model. Everything else is the code that trains. A few roll-outs are run, from which longer runs are extrapolated.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seedpo.core.processes import Process
from seedpo.data.cache.pairs import EncodedPairs
from seedpo.evaluation.image_evaluation import ImageEvaluation
from seedpo.methods.presets import METHODS
from seedpo.methods.sources.offline import OfflinePairs
from seedpo.methods.sources.rollouts import Rollout, RolloutSource
from seedpo.methods.sources.step_pairs import StepPairs
from seedpo.methods.sources.supplies import Supplies
from seedpo.models.stable_diffusion import TextConditioning
from seedpo.protocols import Images, LabelledPair
from seedpo.training.run import build_method
from seedpo.training.settings import RunConfig

Key = tuple[str, str]
"""An activity, as the table of a plan shows it, and the part that does it; see :mod:`seedpo.planning.costs`."""

ROLLOUTS = 20
"""Steady roll-outs that are run where chance decides which pairs are kept, or at which steps they are trained on."""

LOSSES = 400
"""Batches whose loss is computed; later ones are taken to be like them."""


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
        rows_at_once: rows of the largest call by part, evaluations included; ``policy`` is a micro-batch.
    """

    unit: str
    units: int
    pairs_per_unit: Fraction
    rollouts: int | None = None
    rows: Mapping[Key, Fraction]
    rows_per_unit: Mapping[Key, Fraction]
    evaluations: Mapping[str, Fraction] = field(default_factory=dict)
    rows_at_once: Mapping[str, int]


@dataclass
class Recorder:
    """Counts rows.

    Attributes:
        rows: so far.
        rows_at_once: of the largest call, by part.
        scoring: what the images that were decoded last are scored for.
    """

    rows: Counter[Key] = field(default_factory=Counter)
    rows_at_once: dict[str, int] = field(default_factory=dict)
    scoring: str = "reward"

    def add(self, activity: str, part: str, rows: int) -> None:
        """Counts one call."""
        self.rows[activity, part] += rows
        self.rows_at_once[part] = max(rows, self.rows_at_once.get(part, 0))

    @contextmanager
    def apart(self) -> Iterator[Counter[Key]]:
        """Counts the calls inside by themselves."""
        outside, self.rows = self.rows, Counter()
        try:
            yield self.rows
        finally:
            self.rows = outside


class StandIn:
    """A policy that predicts zeros and counts the rows of each call.

    Args:
        process: of the run's model.
        recorder: counts.
        checks: whether images are decoded to check the previews of another autoencoder.
    """

    latent_shape = (4, 4, 4)
    conditioning_type = TextConditioning
    device = torch.device("cpu")
    module: nn.Module = nn.Module()

    def __init__(self, process: Process, recorder: Recorder, *, checks: bool = False) -> None:
        self.process = process
        self.recorder = recorder
        self.checks = checks
        self._on_reference = False

    def encode_prompts(self, prompts: Sequence[str]) -> TextConditioning:
        """Embeds each distinct prompt once, as the policies do."""
        self.recorder.add("encoding prompts", "text", len(set(prompts)))
        return TextConditioning(prompt_embeds=torch.zeros(len(prompts), 1, 1))

    def predict(self, latents: Tensor, timestep: Tensor, conditioning: TextConditioning) -> Tensor:
        """Zeros."""
        if self._on_reference:
            self.recorder.add("reference", "reference", len(latents))
        elif torch.is_grad_enabled():
            self.recorder.add("policy", "policy", len(latents))
        else:
            self.recorder.add("sampling", "sampling", len(latents))
        return torch.zeros_like(latents)

    def encode_images(self, images: Tensor) -> Tensor:
        """Zeros."""
        self.recorder.add("encoding images", "vae_encode", len(images))
        return torch.zeros(len(images), *self.latent_shape)

    def decode(self, latents: Tensor) -> Tensor:
        """Zeros."""
        self.recorder.add("checking previews" if self.checks else "decoding", "vae_decode", len(latents))
        self.recorder.scoring = "checking previews" if self.checks else "reward"
        return torch.zeros(len(latents), 3, 1, 1)

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Within this context :meth:`predict` counts for the reference."""
        self._on_reference = True
        try:
            with torch.no_grad():
                yield
        finally:
            self._on_reference = False

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """None."""
        return {}

    def save(self, folder: Path) -> None:
        """Nothing is saved."""

    def load(self, folder: Path) -> None:
        """Nothing is loaded."""


class StandInJudge:
    """Prefers later images of a prompt, and finds a share of the pairs too close to call.

    Args:
        recorder: counts.
        kept: share of the pairs that are clear.
        scores: whether a reward computes; people do not.
    """

    def __init__(self, recorder: Recorder, *, kept: Fraction, scores: bool) -> None:
        self.recorder = recorder
        self.kept = kept
        self.scores = scores
        self._due = Fraction(0)
        self._prompts: set[str] = set()
        self._generator = torch.Generator().manual_seed(0)

    def __call__(self, images: Images, prompts: Sequence[str], *, timestep: Tensor | None = None) -> Tensor:
        """Scores (B,), equal for the images of a prompt whose pair is not clear."""
        self._count(prompts)
        count = len(dict.fromkeys(prompts))
        ranks = torch.arange(len(prompts) // count, dtype=torch.float32) * 100.0
        return (self._clear(count)[:, None] * ranks).flatten()

    def compare(self, images: Images, prompts: Sequence[str]) -> Tensor:
        """Preferences (P, K, K); 0 for a pair that is not clear."""
        self._count(prompts)
        count = len(dict.fromkeys(prompts))
        size = len(prompts) // count
        first, second = torch.triu_indices(size, size, offset=1)
        preferences = torch.zeros(count, size, size)
        preferences[:, first, second] = self._clear(count * len(first)).view(count, -1)
        return preferences - preferences.transpose(1, 2)

    def _count(self, prompts: Sequence[str]) -> None:
        if self.scores:
            self.recorder.add(self.recorder.scoring, "scorer_image", len(prompts))
            if new := set(prompts) - self._prompts:
                self.recorder.add(self.recorder.scoring, "scorer_text", len(new))
                self._prompts |= new

    def _clear(self, count: int) -> Tensor:
        """Which of so many pairs are clear, (count,): just the share on average, at random places."""
        self._due += count * self.kept
        clear = math.floor(self._due)
        self._due -= clear
        return (torch.randperm(count, generator=self._generator) < clear).float()


class _CountedRollout:
    """A roll-out whose rows and units are kept."""

    def __init__(self, rollout: Rollout, recorder: Recorder) -> None:
        self.rollout = rollout
        self.recorder = recorder
        self.rows: list[Counter[Key]] = []
        self.units: list[int] = []

    def __call__(
        self, prompts: Sequence[str], *, generator: torch.Generator, number: int
    ) -> tuple[StepPairs | None, Mapping[str, float]]:
        with self.recorder.apart() as rows:
            pairs, observed = self.rollout(prompts, generator=generator, number=number)
        self.rows.append(rows)
        self.units.append(0 if pairs is None else pairs.units())
        return pairs, observed


class _Prompts(Sequence[str]):
    """Endless prompts, no two alike."""

    def __len__(self) -> int:
        return 2**16

    def __getitem__(self, index: Any) -> Any:
        return f"prompt {index}"


class _BlankPairs:
    """Labelled pairs of one pixel, no two prompts alike."""

    sequential = False

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def one_pass(self) -> Iterable[int]:
        return range(len(self))

    def __getitem__(self, row: int) -> LabelledPair:
        blank = torch.zeros(3, 1, 1)
        return LabelledPair(prompt=self.prompt(row), chosen=blank, rejected=blank, original_size=(1, 1))

    def prompt(self, row: int) -> str:
        return f"prompt {row}"

    def content(self, row: int) -> str:
        return str(row)


def dry_run(config: RunConfig, process: Process, guesses: Guesses, *, gpus: int = 1) -> Workload:
    """Runs the source, the objective and an evaluation of a run on a stand-in model.

    Args:
        config: the run's settings.
        process: of the run's model.
        guesses: what the settings do not say.
        gpus: processes of the run, among which a preference set is divided.

    Raises:
        SeedpoError: if the share of pairs kept is so low that a run would give up.
    """
    if METHODS[config.method].source.fixed_pairs:
        training = _offline(config, process, guesses, gpus)
    else:
        training = _online(config, process, Fraction(guesses.kept).limit_denominator(10_000))
    rows, rows_at_once = _evaluations(config, process)
    parts = dict.fromkeys((*training.rows_at_once, *rows_at_once))
    most = {part: max(training.rows_at_once.get(part, 0), rows_at_once.get(part, 0)) for part in parts}
    return replace(training, evaluations=rows, rows_at_once=most)


def _evaluations(config: RunConfig, process: Process) -> tuple[dict[str, Fraction], dict[str, int]]:
    """Rows of all evaluations by part, and those of the largest call.

    A run is evaluated before its first step, after its last, and as set between. A scorer embeds each prompt once.
    """
    recorder, settings, every = Recorder(), config.evaluation, config.evaluate_every
    prompts = [f"prompt {number}" for number in range(settings.num_prompts)]
    with torch.no_grad():
        evaluation = ImageEvaluation(prompts, config=settings, rewards={}, metrics={})
        evaluation.draw(StandIn(process, recorder), rank=0, world=1)
    times = 2 + ((config.max_steps - 1) // every if every else 0)
    rows = {part: Fraction(times * count) for (_, part), count in recorder.rows.items()}
    images = settings.num_prompts * settings.images_per_prompt
    for name in settings.rewards:
        rows |= {f"scorer_image:{name}": Fraction(times * images), f"scorer_text:{name}": Fraction(len(prompts))}
        recorder.rows_at_once |= {f"scorer_image:{name}": images, f"scorer_text:{name}": len(prompts)}
    return rows, recorder.rows_at_once


def _online(config: RunConfig, process: Process, kept: Fraction) -> Workload:
    """Roll-outs and the batches made of them, until all pairs of the last roll-out are handed out."""
    passes = _section(config).updates_per_rollout
    recorder = Recorder()
    policy, source, first = _stand_ins(config, process, recorder, kept)
    rollout = source.rollout = _CountedRollout(source.rollout, recorder)
    method, generator = build_method(config), torch.Generator().manual_seed(0)
    by_chance = kept < 1 or config.trajectories.steps_per_pair is not None
    wanted = first + (ROLLOUTS if by_chance else 1)
    length = config.max_steps * config.gradient_accumulation_steps
    batches = trained = pairs = 0
    whole_run: Counter[Key] | None = None
    while True:
        batch = source.next_batch()
        batches += 1
        if batches <= LOSSES:
            pairs += len(method.loss(policy, batch, generator=generator).losses)
            trained += config.batch_size
        if batches == length <= LOSSES:
            whole_run = sum(rollout.rows, Counter(recorder.rows))
        waiting = sum(rollout.units) * passes - batches * config.batch_size
        if len(rollout.rows) >= wanted and (not waiting or batches >= LOSSES):
            break
    units = length * config.batch_size
    steady = _scaled(sum(rollout.rows[first:], Counter()), Fraction(1, len(rollout.rows) - first))
    units_per_rollout = Fraction(sum(rollout.units[first:]) * passes, len(rollout.rows) - first)
    training = _scaled(recorder.rows, Fraction(1, trained))
    rollouts = _rollouts(units, [count * passes for count in rollout.units], units_per_rollout)
    rows = whole_run or _sum(
        sum(rollout.rows[:rollouts], Counter()),
        _scaled(steady, Fraction(max(rollouts - len(rollout.rows), 0))),
        _scaled(training, Fraction(units)),
    )
    return Workload(
        unit="group of pairs at one step" if pairs > trained else "pair of steps",
        units=units,
        pairs_per_unit=Fraction(pairs, trained),
        rollouts=rollouts,
        rows=_scaled(rows, Fraction(1)),
        rows_per_unit=_sum(_scaled(steady, 1 / units_per_rollout), training),
        rows_at_once=recorder.rows_at_once,
    )


def _stand_ins(
    config: RunConfig, process: Process, recorder: Recorder, kept: Fraction
) -> tuple[StandIn, RolloutSource, int]:
    """Model and source of a run, and how many roll-outs differ from the later ones."""
    kind = METHODS[config.method].source
    judge = StandInJudge(recorder, kept=kept, scores=config.feedback.study is None)
    # Which pairs are kept is an assumption, whatever the gap.
    changes: dict[str, Any] = {"min_gap": 0.0}
    previews = kind.judged == "previews"
    checks = 0 if config.preview_vae is None else config.steps.preview_checks
    part = "vae_decode" if config.preview_vae is None else "preview_decode"
    if previews:
        changes["preview_checks"] = checks

    def decode(latents: Tensor) -> Tensor:
        recorder.add("previews", part, len(latents))
        recorder.scoring = "reward"
        return torch.zeros(len(latents), 3, 1, 1)

    policy = StandIn(process, recorder, checks=previews)
    supplies = Supplies(
        policy=policy,
        prompts=_Prompts,
        judge=lambda: judge,
        preview_decode=lambda: decode,
    )
    changed = config.model_copy(update={str(kind.section): _section(config).model_copy(update=changes)})
    return policy, kind.build(changed, supplies), max(1, checks) if previews else 1


def _section(config: RunConfig) -> Any:
    """The section of the run's source."""
    return getattr(config, str(METHODS[config.method].source.section))


def _rollouts(units: int, made: Sequence[int], steady: Fraction) -> int:
    """Roll-outs after which so many units were made: the known ones, then steady ones."""
    for number, total in enumerate(accumulate(made), start=1):
        if total >= units:
            return number
    return len(made) + math.ceil((units - sum(made)) / steady)


def _scaled(rows: Mapping[Key, int | Fraction], factor: Fraction) -> dict[Key, Fraction]:
    return {key: count * factor for key, count in rows.items()}


def _sum(*parts: Mapping[Key, int | Fraction]) -> dict[Key, Fraction]:
    keys = dict.fromkeys(key for rows in parts for key in rows)
    return {key: sum((Fraction(rows.get(key, 0)) for rows in parts), Fraction(0)) for key in keys}


_CACHED = {"latents": "vae_encode", "prompts": "text", "reference": "reference"}
"""The part that a filled cache replaces, by the key of ``cache`` that switches it on."""


def _offline(config: RunConfig, process: Process, guesses: Guesses, gpus: int) -> Workload:
    """One batch of pairs that are new, and one of pairs that were met before."""
    recorder, batch = Recorder(), config.batch_size
    policy = StandIn(process, recorder)
    source = OfflinePairs(EncodedPairs(_BlankPairs(batch), policy), batch_size=batch, seed=config.seed)
    method, generator = build_method(config), torch.Generator().manual_seed(0)
    counts: list[Counter[Key]] = []
    for _ in range(2):
        with recorder.apart() as counted:
            method.loss(policy, source.next_batch(), generator=generator)
        counts.append(counted)
    units = config.max_steps * config.gradient_accumulation_steps * batch
    new = _first_visits(units, guesses.pairs, gpus=gpus, directions=2 if config.pairs.flip else 1)
    filled = guesses.cached and config.cache.folder is not None
    cached = {part for key, part in _CACHED.items() if filled and getattr(config.cache, key)}
    rows = _sum(_scaled(counts[0], new / batch), _scaled(counts[1], (units - new) / batch))
    rows = {(activity, part): count for (activity, part), count in rows.items() if part not in cached}
    return Workload(
        unit="pair",
        units=units,
        pairs_per_unit=Fraction(1),
        rows=rows,
        rows_per_unit=_scaled(rows, Fraction(1, units)),
        rows_at_once={part: count for part, count in recorder.rows_at_once.items() if part not in cached},
    )


def _first_visits(visits: int, pairs: int | None, *, gpus: int, directions: int) -> Fraction:
    """How many of a process's visits of pairs are the first: expectation.

    Each epoch gives every pair to one of the processes.

    Args:
        visits: of this process.
        pairs: in the set; `None` if no pair is met twice.
        gpus: number of processes.
        directions: 2 where a pair is mirrored at half of its visits, which makes two pairs of it, else 1.
    """
    if pairs is None:
        return Fraction(visits)
    epochs, rest = divmod(visits * gpus, pairs)
    chance = Fraction(1, directions * gpus)
    unmet = (1 - chance) ** epochs
    return directions * (pairs * (1 - unmet) + rest * unmet * chance)
