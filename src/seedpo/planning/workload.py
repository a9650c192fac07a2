"""How many rows go through which network, by source of pairs: the rules of the sources, as numbers.

A run is a number of units (what ``batch_size`` counts), and a roll-out for every so many of them. Each rule below says
what is done once in a run, once per roll-out and once per unit; a test runs each source and compares. What is drawn at
random (which pairs are kept, which steps are trained on) is counted by its expectation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from seedpo.training.settings import RunConfig


@dataclass(frozen=True, kw_only=True)
class Activity:
    """Rows through one network, for one purpose.

    Attributes:
        name: what they are for, as the table shows it.
        part: which network, and whether it is trained: see :mod:`seedpo.planning.costs`.
        rows: how many.
    """

    name: str
    part: str
    rows: Fraction


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What one process does.

    Attributes:
        unit: what ``batch_size`` counts.
        pairs_per_unit: pairs of one unit, whose losses are added up.
        units_per_rollout: units that one roll-out gives, every pass counted; none: there are no roll-outs.
        at_start: once in a run.
        per_rollout: once per roll-out.
        per_unit: once per unit.
        rows_at_once: the most rows that a network sees in one call, by part; ``policy`` of a micro-batch.
    """

    unit: str
    pairs_per_unit: Fraction
    units_per_rollout: Fraction | None = None
    at_start: Sequence[Activity] = ()
    per_rollout: Sequence[Activity] = ()
    per_unit: Sequence[Activity]
    rows_at_once: Mapping[str, int]

    def rollouts(self, units: int) -> int:
        """Roll-outs after which ``units`` units have been handed out."""
        return 0 if self.units_per_rollout is None else math.ceil(units / self.units_per_rollout)

    def rows(self, units: int) -> dict[tuple[str, str], Fraction]:
        """Rows of a run of ``units`` units, by activity and part."""
        total: dict[tuple[str, str], Fraction] = {}
        for activities, times in ((self.at_start, 1), (self.per_rollout, self.rollouts(units)), (self.per_unit, units)):
            _add(total, activities, Fraction(times))
        return total

    def rows_per_unit(self) -> dict[tuple[str, str], Fraction]:
        """Rows of one unit in the long run: its share of a roll-out included, what is done once in a run left out."""
        total: dict[tuple[str, str], Fraction] = {}
        share = Fraction(0) if self.units_per_rollout is None else 1 / self.units_per_rollout
        for activities, times in ((self.per_rollout, share), (self.per_unit, Fraction(1))):
            _add(total, activities, times)
        return total


def _add(total: dict[tuple[str, str], Fraction], activities: Sequence[Activity], times: Fraction) -> None:
    for activity in activities:
        key = (activity.name, activity.part)
        total[key] = total.get(key, Fraction(0)) + activity.rows * times


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """What the configuration does not say.

    Attributes:
        dense: of every sampling step whether it has a density: those without (a last deterministic one) make no pair.
        kept: share of the pairs of a roll-out that are clear enough to be kept.
        pairs: pairs in the preference set; none: every pair that is trained on is met for the first time.
        gpus: processes among which the preference set is dealt out.
        cached: whether all that the run looks up in its cache folder is there.
    """

    dense: tuple[bool, ...]
    kept: Fraction = Fraction(1)
    pairs: int | None = None
    gpus: int = 1
    cached: bool = False


Rule = Callable[[RunConfig, Assumptions], Workload]


def _activities(*rows: tuple[str, str, Fraction | int]) -> tuple[Activity, ...]:
    return tuple(Activity(name=name, part=part, rows=Fraction(count)) for name, part, count in rows if count)


def _guidance(config: RunConfig) -> int:
    """Rows of the network per row that is asked for: with guidance the negative prompt runs beside the prompt."""
    return 2 if config.sampling.guidance_scale != 1 else 1


def _policy(name: str, rows: Fraction | int) -> tuple[tuple[str, str, Fraction | int], ...]:
    return ((name, "policy_forward", rows), (name, "policy_backward", rows))


def _first_visits(assumed: Assumptions, visits: int, *, kinds: int) -> Fraction:
    """How many of one process's visits of pairs are the first of their kind: expectation.

    Each epoch hands every pair to one of the processes.

    Args:
        assumed: size of the set and number of processes.
        visits: of this process.
        kinds: kinds of visit, each as likely (2 where pairs are mirrored at half of their visits).
    """
    if assumed.pairs is None:
        return Fraction(visits)
    epochs, rest = divmod(visits * assumed.gpus, assumed.pairs)
    chance = Fraction(1, kinds * assumed.gpus)
    unmet = (1 - chance) ** epochs
    return kinds * (assumed.pairs * (1 - unmet) + rest * unmet * chance)


def offline(config: RunConfig, assumed: Assumptions) -> Workload:
    """Pairs of a fixed set, each trained on with one time step and one noise; what is cached is not computed."""
    cache, batch = config.cache, config.batch_size
    visits = config.max_steps * config.gradient_accumulation_steps * batch
    cached = assumed.cached and cache.folder is not None
    nothing = Fraction(0)
    encoded = nothing if cached and cache.latents else _first_visits(assumed, visits, kinds=1 + config.pairs.flip)
    embedded = nothing if cached and cache.prompts else Fraction(visits)
    asked = nothing if cached and cache.reference else Fraction(visits)
    rows_at_once = {"policy": 2 * batch}
    rows_at_once |= {"reference": 2 * batch} if asked else {}
    rows_at_once |= {"vae_encode": 2} if encoded else {}
    rows_at_once |= {"text": batch} if embedded else {}
    return Workload(
        unit="pair",
        pairs_per_unit=Fraction(1),
        per_unit=_activities(
            ("encoding images", "vae_encode", 2 * encoded / visits),
            ("encoding prompts", "text", embedded / visits),
            *_policy("policy", 2),
            ("reference", "reference", 2 * asked / visits),
        ),
        rows_at_once=rows_at_once,
    )


def trajectories(config: RunConfig, assumed: Assumptions) -> Workload:
    """Whole trajectories that share x_T, every two images of a prompt a pair, at all or some of their steps."""
    settings, guidance, steps = config.trajectories, _guidance(config), config.sampling.num_inference_steps
    images = settings.images_per_prompt
    prompts, dense = settings.prompts_per_rollout, sum(assumed.dense)
    taken = min(settings.steps_per_pair or dense, dense)
    couples = Fraction(images * (images - 1), 2)
    grouped = settings.update_per == "group"
    share = Fraction(taken, dense)
    shared_start = int(assumed.dense[0])
    asked = _images_asked(images, share, assumed.kept, grouped=grouped)
    starts = (dense - shared_start) * images * asked[0] + shared_start * asked[1]
    scored = int(config.feedback.study is None)
    # What a refreshed reference says of a step is known from drawing it.
    foreign = int(settings.reference != "refreshed")
    # x_T is one row for all images of a prompt, later x_t one row each.
    if grouped:
        pairs_per_unit = couples * assumed.kept
        rows = (shared_start + (dense - shared_start) * images * _met(images - 1, assumed.kept)) / Fraction(dense)
        most = images
    else:
        pairs_per_unit, rows, most = Fraction(1), 2 - Fraction(shared_start, dense), 2
    units = prompts * taken * (1 if grouped else couples * assumed.kept) * settings.updates_per_rollout
    return Workload(
        unit="group of pairs at one step" if grouped else "pair of steps",
        pairs_per_unit=pairs_per_unit,
        units_per_rollout=Fraction(units),
        at_start=_activities(("encoding prompts", "text", 1)),
        per_rollout=_activities(
            ("encoding prompts", "text", prompts),
            ("sampling", "sampling", prompts * images * steps * guidance),
            ("decoding", "vae_decode", prompts * images),
            ("reward", "scorer_image", scored * prompts * images),
            ("reward", "scorer_text", scored * prompts),
            ("reference", "reference", foreign * prompts * starts * guidance),
        ),
        per_unit=_activities(*_policy("policy", rows * guidance)),
        rows_at_once=_called(
            {
                "text": 1,
                "sampling": prompts * images * guidance,
                "vae_decode": prompts * images,
                "scorer_image": scored * prompts * images,
                "scorer_text": scored * prompts,
                "reference": foreign * prompts * images * guidance,
                "policy": most * config.batch_size * guidance,
            }
        ),
    )


def _called(rows_at_once: Mapping[str, int]) -> dict[str, int]:
    return {part: rows for part, rows in rows_at_once.items() if rows}


def _met(others: int, kept: Fraction) -> Fraction:
    """Probability that at least one of an image's pairs is kept, were they kept independently of each other."""
    return 1 - (1 - kept) ** others


def _images_asked(images: int, share: Fraction, kept: Fraction, *, grouped: bool) -> tuple[Fraction, Fraction]:
    """Probabilities that a later x_t of an image, and that the x_T of a prompt, is trained on."""
    couples = images * (images - 1) // 2
    if grouped:
        return share * _met(images - 1, kept), share * _met(couples, kept)
    return _met(images - 1, share * kept), _met(couples, share * kept)


def steps(config: RunConfig, assumed: Assumptions) -> Workload:
    """Candidates from a shared x_t, each judged by its decoded preview, the best and the worst a pair."""
    settings, guidance, prompts = config.steps, _guidance(config), config.steps.prompts_per_rollout
    dense, count, total = assumed.dense, config.steps.candidates, config.sampling.num_inference_steps
    step, predicted, judged, shared, own = 0, 1, 0, 0, 0
    while step < total:
        pairing = step >= settings.plain_steps and dense[step]
        drawn = count if pairing else 1
        walked = range(step, min(step + 1 + (settings.inner_steps if pairing else 0), total))
        predicted += drawn * sum(index + 1 < total for index in walked)
        if pairing:
            judged += 1
            shared += 1
            own += sum(dense[index] for index in walked[1:])
        step = walked.stop
    pairs = (shared + own) * assumed.kept
    row_share = 1 + Fraction(own, max(shared + own, 1))
    preview = "vae_decode" if config.preview_vae is None else "preview_decode"
    checked = settings.preview_checks if config.preview_vae is not None else 0
    check_rows = prompts * judged * 2 * assumed.kept * checked
    most = 1 if settings.inner_steps == 0 else 2
    return Workload(
        unit="pair of steps",
        pairs_per_unit=Fraction(1),
        units_per_rollout=prompts * pairs * settings.updates_per_rollout,
        at_start=_activities(
            ("encoding prompts", "text", 1),
            ("checking previews", "vae_decode", check_rows),
            ("checking previews", "scorer_image", check_rows),
        ),
        per_rollout=_activities(
            ("encoding prompts", "text", prompts),
            ("sampling", "sampling", prompts * predicted * guidance),
            ("previews", preview, prompts * judged * count),
            ("reward", "scorer_image", prompts * judged * count),
            ("reward", "scorer_text", prompts),
            ("reference", "reference", prompts * (shared + 2 * own) * assumed.kept * guidance),
        ),
        per_unit=_activities(*_policy("policy", row_share * guidance)),
        rows_at_once={
            "text": 1,
            "sampling": prompts * count * guidance,
            preview: prompts * count,
            "scorer_image": prompts * count,
            "scorer_text": prompts,
            "reference": prompts * count * guidance,
            "policy": most * config.batch_size * guidance,
        },
    )


RULES: dict[str, Rule] = {"offline": offline, "trajectories": trajectories, "steps": steps}
"""By the name of the source in a method's preset."""


def evaluation(config: RunConfig) -> dict[str, Fraction]:
    """Rows of all evaluations of a run, by part, all processes together.

    A run is evaluated before its first step, after its last, and as set between. A scorer embeds each prompt once.
    """
    settings, every = config.evaluation, config.evaluate_every
    times = 2 + ((config.max_steps - 1) // every if every else 0)
    images = settings.num_prompts * settings.images_per_prompt
    guidance = 2 if settings.guidance_scale != 1 else 1
    batches = [
        range(first, min(first + settings.batch_size, images)) for first in range(0, images, settings.batch_size)
    ]
    # Each batch embeds its prompts, each once, and the negative prompt.
    embedded = sum(len({row // settings.images_per_prompt for row in batch}) + 1 for batch in batches)
    rows = {
        "text": times * embedded,
        "sampling": times * images * settings.num_inference_steps * guidance,
        "vae_decode": times * images,
    }
    for name in settings.rewards:
        rows |= {f"scorer_image:{name}": times * images, f"scorer_text:{name}": settings.num_prompts}
    return {part: Fraction(count) for part, count in rows.items()}
