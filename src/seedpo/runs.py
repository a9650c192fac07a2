"""Where the parts of a run are joined: from a configuration to a trained model.

    config = resolve_config("spo", {"gamma": 1.0, "max_steps": 50})
    train(config, "runs/see-spo")

The parts can also be built one by one and handed to :class:`seedpo.training.trainer.Trainer`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any, Literal

from accelerate import Accelerator

from seedpo.catalogue import DATA, METRICS, MODELS, PROMPTS, REWARDS
from seedpo.config import RunConfig, build_config, read_recipe
from seedpo.core.entropy import entropy_weights
from seedpo.data.pickapic import read_pairs
from seedpo.data.prompts import read_prompts
from seedpo.embedded import warn_of_unknown_words
from seedpo.errors import ConfigError
from seedpo.evaluation import ImageEvaluation
from seedpo.methods.noise_dpo import NoiseDPO
from seedpo.methods.presets import METHODS, Preset
from seedpo.methods.transition_dpo import TransitionDPO
from seedpo.models.stable_diffusion import StableDiffusionPolicy, load_policy
from seedpo.protocols import Method, Source
from seedpo.sources.offline import OfflinePairs
from seedpo.sources.steps import step_source
from seedpo.sources.trajectories import trajectory_source
from seedpo.training.processes import build_accelerator, on_main_process
from seedpo.training.run_folder import RunFolder
from seedpo.training.trainer import Trainer

logger = logging.getLogger(__name__)


def resolve_config(method_or_recipe: str, changes: Mapping[str, Any] | None = None) -> RunConfig:
    """The configuration of a preset or a recipe file, with changes.

    Args:
        method_or_recipe: name of a method, or path of a YAML file.
        changes: nested keys that win over everything else.

    Raises:
        ConfigError: if the method, a key or a value is wrong; the message names it.
    """
    is_file = method_or_recipe.endswith((".yaml", ".yml"))
    recipe = read_recipe(Path(method_or_recipe)) if is_file else {"method": method_or_recipe}
    changes = changes or {}
    name = changes.get("method", recipe.get("method", RunConfig.model_fields["method"].default))
    preset: Preset = METHODS.load(str(name))
    return build_config(preset.defaults, recipe, changes)


def build_policy(config: RunConfig) -> StableDiffusionPolicy:
    """Loads the model and adds what is trained."""
    folder = MODELS.load(config.model)() if config.model in MODELS else Path(config.model)
    if config.model not in MODELS and not folder.exists():
        MODELS[config.model]  # raises the error that lists the names
    return load_policy(folder, adapter=config.adapter, lora_rank=config.lora_rank, seed=config.seed)


def load_prompts(name: str, *, embedded: bool) -> list[str]:
    """Prompts of a registered set or of a text file; warns of words that the embedded model does not know."""
    if name in PROMPTS:
        prompts: list[str] = PROMPTS.load(name)()
        return prompts
    if not Path(name).suffix:
        PROMPTS[name]  # raises the error that lists the names
    prompts = read_prompts(Path(name))
    if embedded:
        warn_of_unknown_words(prompts)
    return prompts


def build_method(config: RunConfig) -> Method[Any]:
    """The objective of the method's preset."""
    policy_weight, reference_weight = entropy_weights(config.beta, config.gamma, convention=config.entropy_convention)
    preset: Preset = METHODS.load(config.method)
    if preset.objective == "noise":
        return NoiseDPO(policy_weight=policy_weight, reference_weight=reference_weight, reduction=config.reduction)
    return TransitionDPO(
        policy_weight=policy_weight,
        reference_weight=reference_weight,
        guidance_scale=config.sampling.guidance_scale,
        eta=config.sampling.eta,
        clip_range=config.clip_range,
        reduction=config.reduction,
    )


def build_source(config: RunConfig, policy: StableDiffusionPolicy, *, rank: int = 0, world: int = 1) -> Source[Any]:
    """The source of pairs of the method's preset, for one process of several."""
    preset: Preset = METHODS.load(config.method)
    if preset.source == "offline":
        pairs = DATA.load(config.data)() if config.data in DATA else read_pairs(_existing(config.data, ".parquet"))
        logger.info("%d pairs, %d ties left out", len(pairs), pairs.ties)
        return OfflinePairs(pairs, policy, batch_size=config.batch_size, seed=config.seed, rank=rank, world=world)
    prompts = load_prompts(config.prompts, embedded=config.model in MODELS)
    reward = REWARDS.load(config.reward)()
    if preset.source == "steps" and "timestep" not in signature(reward).parameters:
        raise ConfigError(
            f"reward {config.reward} judges finished images only, but {config.method} ranks single steps; "
            "name a reward that takes a time step, for example scenes-scorer"
        )
    if preset.source == "trajectories":
        return trajectory_source(
            policy,
            reward,
            prompts,
            sampling=config.sampling,
            config=config.trajectories,
            batch_size=config.batch_size,
            seed=config.seed,
            rank=rank,
            world=world,
        )
    return step_source(
        policy,
        reward,
        prompts,
        sampling=config.sampling,
        config=config.steps,
        batch_size=config.batch_size,
        seed=config.seed,
        rank=rank,
        world=world,
    )


def _existing(name: str, suffix: str) -> Path:
    if not name.endswith(suffix):
        DATA[name]  # raises the error that lists the names
    return Path(name)


def build_evaluation(config: RunConfig) -> ImageEvaluation:
    """What is generated and measured at evaluations.

    Raises:
        ConfigError: if there are fewer prompts than asked for.
    """
    settings = config.evaluation
    prompts = load_prompts(settings.prompts, embedded=config.model in MODELS)
    if len(prompts) < settings.num_prompts:
        raise ConfigError(
            f"evaluation.num_prompts = {settings.num_prompts}, but {settings.prompts} holds {len(prompts)} prompts"
        )
    return ImageEvaluation(
        prompts[: settings.num_prompts],
        config=settings,
        rewards={name: REWARDS.load(name)() for name in settings.rewards},
        metrics=[METRICS.load(name) for name in settings.metrics],
    )


def _check_steps(config: RunConfig, policy: StableDiffusionPolicy) -> None:
    """Refuses step counts that the model's noise schedule does not have, before anything is sampled."""
    for section in ("sampling", "evaluation"):
        try:
            policy.schedule.timesteps(getattr(config, section).num_inference_steps)
        except ValueError as error:
            raise ConfigError(f"{section}.{error}") from error


def train(
    config: RunConfig,
    out: str | Path,
    *,
    resume: Literal["latest"] | None = None,
    accelerator: Accelerator | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Trains a model and writes the run folder.

    Args:
        config: the run's settings, for example from :func:`resolve_config`.
        out: the run folder; it must not exist unless a run is resumed.
        resume: ``latest`` goes on from the last checkpoint.
        accelerator: of this process; built from the configuration if it is not given.
        progress: whether to show a progress bar.

    Returns:
        The last line of training metrics.

    Raises:
        SeedpoError: whatever the user can mend, in one line.
    """
    accelerator = accelerator or build_accelerator(config.mixed_precision)
    evaluation = build_evaluation(config)
    policy = build_policy(config)
    policy.pipeline.to(accelerator.device)
    if policy.frozen is not None:
        policy.frozen = accelerator.prepare_model(policy.frozen, evaluation_mode=True)
    _check_steps(config, policy)
    source = build_source(config, policy, rank=accelerator.process_index, world=accelerator.num_processes)
    if resume is not None:
        folder = RunFolder.open(out)
    else:
        folder = on_main_process(accelerator, lambda: RunFolder.create(out, config))
    trainer = Trainer(
        policy=policy,
        method=build_method(config),
        source=source,
        config=config,
        folder=folder,
        evaluator=evaluation,
        accelerator=accelerator,
        progress=progress,
    )
    return trainer.train(resume=resume)
