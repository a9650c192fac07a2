"""Where the parts of a run are joined: from a configuration to a trained model.

    config = resolve_config("spo", {"gamma": 1.0, "max_steps": 50})
    train(config, "runs/see-spo")

The parts can also be built one by one and handed to :class:`seedpo.training.trainer.Trainer`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from accelerate import Accelerator

from seedpo.core.flow import FlowProcess
from seedpo.core.processes import Process, with_last_step_clamped
from seedpo.data.cache.pairs import EncodedPairs
from seedpo.data.pairs.selection import SkippingPairs
from seedpo.data.prompts.reading import load_prompts
from seedpo.errors import ConfigError
from seedpo.evaluation.image_evaluation import ImageEvaluation
from seedpo.evaluation.pair_validation import JoinedEvaluation
from seedpo.methods.anchors import anchored
from seedpo.methods.beta_rule import BetaRule, beta_rule
from seedpo.methods.presets import METHODS
from seedpo.methods.settings import FlowConfig
from seedpo.methods.sources.data_anchor import with_data
from seedpo.methods.sources.supplies import Decode, Supplies
from seedpo.metrics.named import build_named_features, build_prompt_metric
from seedpo.models.catalogue import warn_of_unknown_words
from seedpo.models.policy import PipelinePolicy, build_policy
from seedpo.processes import on_every_process, on_main_process, require_shared
from seedpo.protocols import (
    Comparisons,
    Evaluator,
    LatentReward,
    Method,
    MovableReference,
    PairEncoder,
    Reward,
    Source,
)
from seedpo.rewards.named import CheckedReward, build_reward
from seedpo.run_folders import RunFolder
from seedpo.settings import differences
from seedpo.training.accelerator import build_accelerator, sharding_is_asked_for
from seedpo.training.caches import Caches, open_caches
from seedpo.training.checks import check_guidance, check_run
from seedpo.training.expectations import what_to_expect
from seedpo.training.feedback.wiring import asks_people, ensure_study, human_feedback, patience, round_open
from seedpo.training.opening import likely_mistakes, opening_lines
from seedpo.training.reference import ReferenceRule, has_weights
from seedpo.training.resume import ServedRewards, start_folder
from seedpo.training.settings import RunConfig, reward_of
from seedpo.training.trackers import require_trackers
from seedpo.training.trainer import Trainer
from seedpo.training.update import try_first_batch
from seedpo.training.validation import (
    DividedPairs,
    build_anchor_pairs,
    build_divided_pairs,
    build_validation,
    warn_of_shared_images,
)
from seedpo.training.watching import Watch

logger = logging.getLogger(__name__)


def process_of(config: RunConfig, policy: PipelinePolicy) -> Process:
    """The process of a run's model, with what `flow` and `fidelity` change of it.

    Raises:
        ConfigError: if a key of `flow` is set for a model without flow matching, or the process has no last step that
            could be clamped.
    """
    process = policy.process
    if isinstance(process, FlowProcess):
        process = replace(process, density=config.flow.density, sde=config.flow.sde)
    elif idle := differences(_published_flow(config.method), config.flow.model_dump()):
        key, (_, value) = next(iter(idle.items()))
        raise ConfigError(f"flow.{key} = {value}: model {config.model} is no flow-matching model; leave it out")
    if not config.fidelity.last_step_clamped:
        return process
    try:
        return with_last_step_clamped(process)
    except ValueError as error:
        raise ConfigError(f"fidelity.last_step_clamped: {error}; leave it out") from error


def _published_flow(method: str) -> dict[str, Any]:
    """The keys of `flow` as the method sets them, which say nothing about a model without flow matching."""
    return FlowConfig(**METHODS[method].defaults.get("flow", {})).model_dump()


def named_prompts(name: str, *, model: str, count: int | None = None) -> list[str]:
    """Prompts by name; see :func:`seedpo.data.prompts.reading.load_prompts`.

    Warns of words that an embedded model does not know.
    """
    prompts = load_prompts(name, count=count, count_key="evaluation.num_prompts")
    warn_of_unknown_words(model, prompts)
    return prompts


def build_pairs(config: RunConfig) -> SkippingPairs:
    """The labelled pairs that an offline method trains on; those that cannot be read are passed over, up to a limit.

    Raises:
        ConfigError: if ``data`` is neither a registered name nor looks like a path.
        DataError: if it cannot be read.
    """
    return build_divided_pairs(config).training


def named_reward(name: str, config: RunConfig) -> CheckedReward:
    """A reward as a run names it, with its weighted sums and its precision; see :mod:`seedpo.rewards.named`."""
    return build_reward(name, definitions=config.rewards, precision=config.reward_precision)


def build_caches(config: RunConfig, policy: PipelinePolicy) -> Caches:
    """What is computed once for this run and others; before training, since the weights are hashed."""
    fixed_pairs = METHODS[config.method].source.fixed_pairs  # others do not come again
    return open_caches(config, policy) if fixed_pairs or config.cache.folder is None else Caches(policy=policy)


def build_method(config: RunConfig, caches: Caches | None = None, beta: BetaRule | None = None) -> Method[Any]:
    """The objective of the run's method, with the run's anchors.

    Args:
        config: of the run.
        caches: what it reads instead of computing it.
        beta: changes the objective's beta; the trainer tells it of every update.
    """
    preset = METHODS[config.method]
    known = {"draws": caches.draws, "cache": caches.reference} if caches else {}
    parts = {name: part for name, part in {**known, "beta": beta}.items() if part is not None}
    return anchored(preset.build_objective(config, **parts), config, log_prob=preset.log_prob)


def build_source(
    config: RunConfig,
    policy: PipelinePolicy,
    *,
    rank: int = 0,
    world: int = 1,
    caches: Caches | None = None,
    pairs: SkippingPairs | None = None,
    progress: bool = False,
) -> Source[Any]:
    """The source of pairs of the run's method, for one process of several; ``progress`` shows votes coming in."""
    caches = caches or Caches(policy=policy, spread=config.fidelity.sampled_latents)

    def labelled() -> tuple[SkippingPairs, EncodedPairs]:
        training = pairs or build_pairs(config)
        return training, caches.encoder(training)

    supplies = Supplies(
        policy=policy,
        prompts=lambda: named_prompts(config.prompts, model=config.model),
        judge=lambda: _judge(config, policy, progress=progress and rank == 0),
        features=lambda name: build_named_features(name, device=policy.device),
        opinion=lambda name: named_reward(name, config).to(policy.device),
        pairs=labelled,
        likes=labelled,
        draws=caches.draws,
        preview_decode=lambda: _preview_decoder(config, policy),
        decode=partial(policy.decode, clamp=False) if config.fidelity.previews_clamped_late else None,
        rank=rank,
        world=world,
    )
    source: Source[Any] = METHODS[config.method].source.build(config, supplies)

    def data() -> tuple[SkippingPairs, PairEncoder]:
        reader = build_anchor_pairs(config)
        return reader, caches.encoder(reader)

    return with_data(source, config, replace(supplies, pairs=data))


def _judge(config: RunConfig, policy: PipelinePolicy, *, progress: bool) -> Reward | LatentReward | Comparisons:
    """The people or the reward that the run asks."""
    if (people := human_feedback(config, progress=progress)) is not None:
        return people
    reward = named_reward(reward_of(config), config).to(policy.device)
    if METHODS[config.method].source.judged == "previews" and (latent := reward.latent) is not None:
        if (reason := latent.misfit(policy)) is not None:
            raise ConfigError(f"{reason}; name the reward of model {config.model}, or one that scores images")
        return latent
    if reward.step_blind and config.fidelity.previews_clamped_late:
        raise ConfigError(
            f"fidelity.previews_clamped_late: {', '.join(reward.step_blind)} takes images in [0, 1] only; name a "
            "step-aware reward, or leave it out"
        )
    if reward.step_blind and METHODS[config.method].source.judged == "previews":
        logger.warning(
            "reward %s knows no time step: for %s it judges previews as if they were finished images; step-aware "
            "rewards are made for previews",
            ", ".join(reward.step_blind),
            config.method,
        )
    return reward


def _preview_decoder(config: RunConfig, policy: PipelinePolicy) -> Decode | None:
    """What decodes previews in place of the model's own autoencoder, if the run names anything."""
    if config.preview_vae is None:
        return None
    from seedpo.models.preview import load_preview_decoder

    clamp = not config.fidelity.previews_clamped_late
    return load_preview_decoder(config.preview_vae, channels=policy.latent_shape[0], device=policy.device, clamp=clamp)


def build_evaluation(config: RunConfig) -> ImageEvaluation:
    """What is generated and measured at evaluations.

    Raises:
        ConfigError: if there are fewer prompts than ``num_prompts``.
    """
    settings = config.evaluation
    prompts = named_prompts(settings.prompts, model=config.model, count=settings.num_prompts)
    return ImageEvaluation(
        prompts,
        config=settings,
        rewards={name: named_reward(name, config) for name in settings.rewards},
        metrics={name: build_prompt_metric(name) for name in settings.metrics},
    )


@dataclass(frozen=True, kw_only=True)
class RunParts:
    """What a run is made of, on one process.

    Attributes:
        policy: the model that is trained, on its device.
        method: the loss.
        source: the pairs of this process.
        beta: what changes the beta of the loss; ``None`` if it stays.
        evaluation: what is generated and measured, and the validation pairs.
        pairs: that are trained on in one pass over a data set; ``None`` for streams and methods that draw their own.
    """

    policy: PipelinePolicy
    method: Method[Any]
    source: Source[Any]
    beta: BetaRule | None
    evaluation: ImageEvaluation | JoinedEvaluation
    pairs: int | None


def build_parts(
    config: RunConfig,
    accelerator: Accelerator,
    *,
    progress: bool,
    kept_lora: Path | None = None,
    writes_study: bool = True,
) -> RunParts:
    """Builds the parts of a run; every process must call this together.

    If something cannot be read or built on one process, all of them raise its error.

    Args:
        config: the run's settings.
        accelerator: of this process.
        progress: whether to show progress bars.
        kept_lora: the run folder's copy of the LoRA that a resumed run continues; ``None``: the original.
        writes_study: whether a study that people are asked in is made, if there is none.

    Raises:
        SeedpoError: any problem that the user can fix, in one line.
    """
    evaluation = on_every_process(accelerator, lambda: build_evaluation(config))
    model = config if kept_lora is None else config.model_copy(update={"initial_lora": str(kept_lora)})
    policy = on_every_process(accelerator, lambda: build_policy(model))
    policy.process = process_of(config, policy)
    policy.pipeline.to(accelerator.device)
    # The first process scores the images of evaluations; where the best of several is kept, each picks its own.
    if accelerator.is_main_process or evaluation.control.best_of > 1:
        evaluation.place(accelerator.device)
    check_run(config, policy.process, policy.image_size)
    check_guidance(config, policy)
    caches = on_every_process(accelerator, lambda: build_caches(config, policy))
    # The caches hashed the frozen copy; only now may accelerate distribute it.
    if (frozen := policy.adapter.frozen) is not None:
        policy.adapter.frozen = accelerator.prepare_model(frozen, evaluation_mode=True)
    if writes_study:
        on_main_process(accelerator, lambda: ensure_study(config))
    divided: DividedPairs | None = None
    if METHODS[config.method].source.fixed_pairs:
        divided = pairs = on_every_process(accelerator, lambda: build_divided_pairs(config, device=policy.device))
        on_main_process(accelerator, lambda: warn_of_shared_images(pairs))
    source = on_every_process(
        accelerator,
        lambda: build_source(
            config,
            policy,
            rank=accelerator.process_index,
            world=accelerator.num_processes,
            caches=caches,
            pairs=divided.training if divided else None,
            progress=progress,
        ),
    )
    beta = beta_rule(config.objective)
    validation = [build_validation(config, divided.validation, caches)] if divided and divided.validation else []
    return RunParts(
        policy=policy,
        method=build_method(config, caches, beta),
        source=source,
        beta=beta,
        evaluation=JoinedEvaluation([evaluation, *validation]) if validation else evaluation,
        pairs=len(divided.training) if divided and not divided.training.sequential else None,
    )


def refuse_shards(config: RunConfig) -> None:
    """Refuses what needs other values in the place of the trained weights: their shards have no such place.

    Raises:
        ConfigError: naming the key.
    """
    if config.initial_lora is not None:
        raise ConfigError("initial_lora cannot be trained in shards, which have no second adapter; leave --shard out")
    if has_weights(config):
        raise ConfigError(
            f"reference.kind = {config.reference.kind} cannot be trained in shards, which have no place for the "
            "reference's own weights; leave --shard out, or set it to frozen"
        )
    if config.evaluation.strength != 1 and config.adapter == "full":
        raise ConfigError(
            f"evaluation.strength = {config.evaluation.strength:g} needs other values in the place of all weights, for "
            "which shards have none; leave --shard out, or evaluate checkpoints later with --strength"
        )


def reference_rule(config: RunConfig, policy: MovableReference, source: Source[Any]) -> ReferenceRule | None:
    """What moves the reference of a run; ``None`` if it has no weights of its own."""
    if not has_weights(config):
        return None
    return ReferenceRule(policy, config.reference, source, batches=config.gradient_accumulation_steps)


def rehearse(config: RunConfig, *, progress: bool = True) -> None:
    """Checks a run as :func:`train` does and takes its first batch, forward and backward; writes nothing.

    The log says what a run says first. Where people judge, no batch is drawn.

    Raises:
        SeedpoError: any problem that the user can fix, in one line.
    """
    accelerator = build_accelerator(config.mixed_precision)
    require_trackers(config.trackers)
    parts = build_parts(config, accelerator, progress=progress, writes_study=False)
    _say_what_is_trained(config, parts, accelerator, results="nothing is written")
    if asks_people(config, parts.source):
        logger.info("people judge: no batch is drawn")
        return
    advice = "lower beta or gamma, or use another precision"
    try_first_batch(parts.method, parts.policy, parts.source, seed=config.seed, advice=advice)


def _say_what_is_trained(config: RunConfig, parts: RunParts, accelerator: Accelerator, *, results: str) -> None:
    fixed, processes = METHODS[config.method].source.fixed_pairs, accelerator.num_processes
    first = opening_lines(
        config, parts.policy, pairs=parts.pairs, fixed_pairs=fixed, processes=processes, results=results
    )
    for line in [*first, *what_to_expect(config, fixed_pairs=fixed)]:
        logger.info("%s", line)
    for line in likely_mistakes(config, pairs=parts.pairs, processes=processes) if accelerator.is_main_process else ():
        logger.warning("%s", line)


def train(
    config: RunConfig,
    out: str | Path,
    *,
    resume: Literal["latest"] | None = None,
    accelerator: Accelerator | None = None,
    evaluator: Evaluator | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Trains a model and writes the run folder.

    Args:
        config: the run's settings, for example from :func:`resolve_config`.
        out: the run folder; it must not exist unless a run is resumed.
        resume: ``latest`` continues from the last checkpoint, and begins anew where there is none.
        accelerator: of this process; built from the configuration if it is not given.
        evaluator: measures in place of what ``evaluation`` and validation pairs set; ``None``: these do.
        progress: whether to show a progress bar.

    Returns:
        The last line of training metrics.

    Raises:
        SeedpoError: any problem that the user can fix, in one line.
    """
    accelerator = accelerator or build_accelerator(config.mixed_precision, timeout=patience(config))
    require_trackers(config.trackers)
    require_shared(accelerator, out)
    if sharding_is_asked_for():
        refuse_shards(config)
    kept = RunFolder(Path(out)).initial_lora if resume is not None else None
    parts = build_parts(config, accelerator, progress=progress, kept_lora=kept if kept and kept.is_dir() else None)
    folder, resume = start_folder(out, config, accelerator, resume=resume)
    if config.initial_lora is not None and kept is None:
        on_main_process(accelerator, lambda: parts.policy.save(folder.initial_lora))
    trainer = Trainer(
        policy=parts.policy,
        method=parts.method,
        source=parts.source,
        config=config,
        folder=folder,
        evaluator=evaluator or parts.evaluation,
        watch=Watch(folder, config),
        accelerator=accelerator,
        progress=progress,
        after_restoring=parts.policy.adapter.move_reference if config.fidelity.reference_moves_on_resume else None,
        save_before_step=asks_people(config, parts.source),
        round_open=round_open(config, parts.source),
        rule=reference_rule(config, parts.policy, parts.source),
        beta=parts.beta,
        readers=[ServedRewards(config=config)],
    )
    _say_what_is_trained(config, parts, accelerator, results=str(folder.path))
    return trainer.train(resume=resume)
