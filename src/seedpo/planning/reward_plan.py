"""The plan of a preference model's training: rows, FLOPs, memory and hours, from configurations alone.

As for policies a dry run counts the rows: the run's own views and encoders of pairs on stand-ins. Time steps that are
drawn are counted by their mean: a pair that is shown finished needs no prediction.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from typing import cast

import torch

from seedpo.core.processes import Process
from seedpo.data.cache.pairs import EncodedPairs
from seedpo.data.pairs.changes import ChangedPairs, relabel
from seedpo.models.precision import autocast_dtype
from seedpo.planning.advice import PREVIEWS, advise_reward
from seedpo.planning.configurations import model_configuration
from seedpo.planning.costs import Cost, Networks, measure
from seedpo.planning.dry_run import (
    NO_GUESSES,
    Guesses,
    Workload,
    evaluation_count,
    first_visits,
    scaled,
    sum_of,
)
from seedpo.planning.gpus import Gpu
from seedpo.planning.memory import RESERVE, Memory
from seedpo.planning.networks import build_denoiser, weight_bytes
from seedpo.planning.plan import (
    UTILISATION,
    Plan,
    Rates,
    check_hardware,
    check_set,
    evaluation_line,
    training_lines,
)
from seedpo.planning.reward_models import MetaModel, build_model, judging_cost, training_cost
from seedpo.planning.scorers import Scorer, build_scorer
from seedpo.planning.stand_ins import BlankPairs, Key, Recorder, StandInJudge, StandInPolicy
from seedpo.protocols import PairEncoder, PreferencePairs
from seedpo.rewards.previews import NoisyPreviews, PixelPairs
from seedpo.training.optimizers import OPTIMIZERS
from seedpo.training.reward_run import check_timesteps, model_settings
from seedpo.training.settings import RewardRunConfig

METHOD = "reward training"

_ACTIVITIES = {"sampling": PREVIEWS, "decoding": PREVIEWS, "reward": "new labels"}
"""What a plan calls the activities of stand-ins that have another name in a policy's run."""

_PHASES = {
    "policy": "training step",
    "judging": "evaluations",
    "sampling": PREVIEWS,
    "vae_decode": "decoding previews",
    "vae_encode": "encoding images",
    "text": "encoding prompts",
}


def _counted_pairs(config: RewardRunConfig, recorder: Recorder, count: int) -> PreferencePairs:
    pairs = BlankPairs(count)
    if config.relabel is None:
        return pairs
    judge = StandInJudge(recorder, kept=Fraction(1), scores=True)
    return ChangedPairs(pairs, [relabel(judge, name=config.relabel, gap=config.relabel_gap)])


def _share_finished(config: RewardRunConfig, times: int) -> Fraction:
    """Share of the pairs that are shown finished in training: those that are chosen, and those that draw step 0."""
    clean = Fraction(config.clean_share).limit_denominator(10_000)
    return clean + (1 - clean) * Fraction(1, times)


def _rows_of_batches(
    config: RewardRunConfig, policy: StandInPolicy, count: int
) -> tuple[list[Counter[Key]], dict[bool, Counter[Key]]]:
    """Rows of reading a batch that is new, and the same again; and of showing it, all pairs noisy or none of them."""
    recorder = policy.recorder
    pairs = _counted_pairs(config, recorder, count)
    encoder: PairEncoder = PixelPairs(pairs, size=1) if config.model is None else EncodedPairs(pairs, policy)
    read: list[Counter[Key]] = []
    for _ in range(2):
        with recorder.separately() as counted:
            batch = encoder.encode(list(range(count)), [False] * count)
        read.append(counted)
    if config.latent or config.model is None:
        return read, {True: Counter(), False: Counter()}
    views = NoisyPreviews(
        policy, size=1, guidance_scale=config.guidance_scale, images_per_call=config.preview_batch_size
    )
    shown: dict[bool, Counter[Key]] = {}
    for noisy in (True, True, False):  # the first time the negative prompt is embedded
        with recorder.separately() as counted:
            steps = torch.full((count,), int(noisy))
            views.shown(batch, steps, torch.zeros_like(batch.chosen_latents))
        shown[noisy] = counted
    return read, shown


def reward_dry_run(
    config: RewardRunConfig, process: Process | None, guesses: Guesses, *, gpus: int, held_out: int
) -> Workload:
    """What one process of a run does.

    Args:
        config: the run's settings.
        process: of the diffusion model, if there is one.
        guesses: what the settings do not say.
        gpus: processes of the run.
        held_out: pairs that every evaluation measures.
    """
    size = config.batch_size
    policy = StandInPolicy(cast("Process", process), Recorder())
    read, shown = _rows_of_batches(config, policy, size)
    units = config.max_steps * config.gradient_accumulation_steps * size
    new = first_visits(units, guesses.pairs, gpus=gpus, directions=2 if config.pairs.flip else 1)
    cached = {"vae_encode", "scorer_image", "scorer_text"} if guesses.cached and config.cache.latents else set()
    cached |= {"text"} if guesses.cached and config.cache.prompts else set()
    finished = _share_finished(config, 1 if process is None else process.embedded_times)
    each = sum_of(
        scaled(read[0], new / units / size),
        scaled(read[1], (units - new) / units / size),
        scaled(shown[True], (1 - finished) / size),
        scaled(shown[False], finished / size),
        {("preference model", "policy"): Fraction(1)},
    )
    each = {(_ACTIVITIES.get(name, name), part): rows for (name, part), rows in each.items() if part not in cached}
    evaluations: dict[str, Fraction] = {}
    if held_out:
        times = evaluation_count(config)
        steps = (1,) if config.model is None else config.timesteps
        noisy = sum(step > 0 for step in steps)
        total = sum_of(
            scaled(read[0], Fraction(1)),
            scaled(read[1], Fraction(times - 1)),
            scaled(shown[True], Fraction(times * noisy)),
            scaled(shown[False], Fraction(times * (len(steps) - noisy))),
        )
        for (_, part), rows in total.items():
            if part not in cached:
                evaluations[part] = evaluations.get(part, Fraction(0)) + rows * Fraction(held_out, size)
        evaluations["judging"] = Fraction(times * len(steps) * held_out)
    at_once = {part: rows for part, rows in policy.recorder.rows_at_once.items() if part not in cached}
    return Workload(
        unit="pair",
        units=units,
        pairs_per_unit=Fraction(1),
        rows=scaled(each, Fraction(units)),
        rows_per_unit=each,
        evaluations=evaluations,
        rows_at_once=at_once | {"policy": size, **({"judging": min(size, held_out)} if held_out else {})},
    )


def held_out_pairs(config: RewardRunConfig, pairs: int | None) -> int | None:
    """Pairs that every evaluation measures, as far as settings and guesses say; ``None``: not known."""
    kept = round(config.held_out_share * pairs) if config.held_out is None and pairs is not None else None
    return min((count for count in (kept, config.held_out_limit) if count is not None), default=None)


def plan_reward_run(
    config: RewardRunConfig,
    *,
    gpu: Gpu,
    gpus: int = 1,
    utilisation: float = UTILISATION,
    guesses: Guesses = NO_GUESSES,
    progress: Callable[[str], object] = lambda part: None,
) -> Plan:
    """What the training of a preference model would cost; see :func:`seedpo.planning.plan.plan_run`.

    Raises:
        ConfigError: if an argument is out of range, or the configuration of a model is unknown.
        DataError: if a configuration file cannot be used.
    """
    check_hardware(gpus, utilisation)
    check_set(guesses, config.cache.folder)
    networks, built, model = _networks(config)
    process = None if networks.policy is None else networks.policy.process
    held_out = held_out_pairs(config, guesses.pairs)
    if config.held_out is None and held_out is not None and guesses.pairs is not None:
        guesses = replace(guesses, pairs=guesses.pairs - round(config.held_out_share * guesses.pairs))
    workload = reward_dry_run(config, process, guesses, gpus=gpus, held_out=held_out or 0)
    costs = _costs(config, built, networks, workload.rows_at_once, progress=progress)
    rates = Rates(costs=costs, gpu=gpu, utilisation=utilisation)
    each = sum((rates.flops({part: rows}) for (_, part), rows in workload.rows.items()), Fraction(0))
    flops = gpus * each + rates.flops(workload.evaluations)
    lines = [*training_lines(workload, rates, gpus=gpus, total=flops)]
    if held_out:
        batches = math.ceil(held_out / config.batch_size)
        lines.append(evaluation_line("evaluations", workload.evaluations, batches, rates, gpus=gpus, total=flops))
    memory = reward_memory(config, built, networks, costs, gpus=gpus, cached=guesses.cached)
    scorer = networks.scorers.get("")
    return Plan(
        config=config,
        method=METHOD,
        noun="pair",
        model=model,
        scorer="" if scorer is None else f"{scorer.origin}, which labels the pairs",
        people=None,
        gpu=gpu,
        gpus=gpus,
        utilisation=utilisation,
        unit="pair",
        pairs=float(workload.units * gpus),
        rollouts=0,
        lines=lines,
        flops=float(flops),
        memory=memory,
        warnings=advise_reward(config, gpu, memory),
        notes=_notes(config, guesses, held_out, scorer),
    )


def _networks(config: RewardRunConfig) -> tuple[Networks, MetaModel, str]:
    """The networks that a run asks, the preference model that it trains, and where both come from, for people."""
    scorers = {} if config.relabel is None else {"": build_scorer(config.relabel)}
    if config.model is None:
        built = build_model(config, None)
        return Networks(policy=None, scorers=scorers), built, built.origin
    settings = model_settings(config)
    model = model_configuration(settings)
    denoiser = build_denoiser(settings, model)
    check_timesteps(config, denoiser.process)
    built = build_model(config, denoiser)
    origin = built.origin if config.latent else f"{built.origin}, on previews of {model.origin}"
    return Networks(policy=denoiser, scorers=scorers), built, origin


def _costs(
    config: RewardRunConfig,
    built: MetaModel,
    networks: Networks,
    rows_at_once: Mapping[str, int],
    *,
    progress: Callable[[str], object],
) -> dict[str, Cost]:
    low = autocast_dtype(config.mixed_precision)
    asked = {part: rows for part, rows in rows_at_once.items() if part not in ("policy", "judging")}
    costs = measure(networks, asked, mixed_precision=config.mixed_precision, progress=progress)
    progress("preference model")
    accumulates = config.gradient_accumulation_steps > 1
    costs["policy"] = training_cost(built, rows_at_once["policy"], low=low, with_gradients=accumulates)
    if "judging" in rows_at_once:
        costs["judging"] = judging_cost(built, rows_at_once["judging"], low=low)
    return costs


def reward_memory(
    config: RewardRunConfig,
    built: MetaModel,
    networks: Networks,
    costs: Mapping[str, Cost],
    *,
    gpus: int,
    cached: bool,
) -> Memory:
    """The peak memory of each GPU; see :func:`seedpo.planning.memory.estimate`."""
    optimizer, trained = OPTIMIZERS[config.optimizer.name], sum(weight.numel() for weight in built.weights)
    held = {
        "preference model": weight_bytes(built.model.module),
        "reward models": sum(weight_bytes(scorer.networks) for scorer in networks.scorers.values()),
        "optimiser state": round(optimizer.state_bytes * trained),
        "average of the weights": 0 if config.ema_decay is None else 4 * trained,
        "gradient buckets": 4 * trained if gpus > 1 else 0,
        "reserve": RESERVE,
    }
    if (denoiser := networks.policy) is not None:
        encoders = denoiser.family.text_encoders(denoiser.pipeline)
        held |= {
            "denoising network": weight_bytes(denoiser.network),
            "text encoders": 0 if cached and config.cache.prompts else sum(map(weight_bytes, encoders)),
            "autoencoder": weight_bytes(denoiser.pipeline.vae),  # it decodes the previews
        }
    gradients = 4 * trained
    phases = {_PHASES[part]: cost.peak for part, cost in costs.items() if part in _PHASES}
    if config.gradient_accumulation_steps > 1:
        phases = {name: size + gradients for name, size in phases.items()}  # of the micro-batches before
    phases["optimiser step"] = gradients + round(optimizer.step_bytes * trained)
    return Memory(held={name: size for name, size in held.items() if size}, phases=phases)


def _notes(config: RewardRunConfig, guesses: Guesses, held_out: int | None, scorer: Scorer | None) -> list[str]:
    notes = []
    if held_out is None:
        notes.append(
            "evaluations are not counted: "
            + (
                "--pairs N says how many pairs there are, of which held_out_share is kept out"
                if config.held_out is None
                else f"how many pairs {config.held_out} holds is not known; held_out_limit says how many are measured"
            )
        )
    if config.model is not None and guesses.pairs is None:
        notes.append("no pair is assumed to be met twice; --pairs N says how many there are")
    if config.model is not None and config.cache.folder is not None and not guesses.cached:
        notes.append("the cache folder is assumed to be empty; --cached says that it is filled")
    if scorer is not None and scorer.unknown:
        notes.append(f"rewards whose network is unknown are not counted: {', '.join(scorer.unknown)}")
    return notes
