"""Where the parts of a preference model's training are joined: from a configuration to a scorer.

``train_reward(resolve_reward_config(), "runs/scorer")`` makes the reward ``runs/scorer/model``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator

from seedpo.core.draws import KeyedDraws
from seedpo.core.processes import Process
from seedpo.core.types import ImagePairs
from seedpo.data.files.splits import SplitWish
from seedpo.data.pairs.changes import ChangedPairs, relabel
from seedpo.data.pairs.prompt_counts import pairs_of_prompts
from seedpo.data.pairs.readers import look_ahead, pairs_ahead
from seedpo.data.pairs.selection import SkippingPairs, divided_by_prompt
from seedpo.data.reading import load_data, opening_lines
from seedpo.data.settings import DataSet, PairsConfig, data_label
from seedpo.errors import ConfigError
from seedpo.methods.sources.offline import OfflinePairs, VisitDraws
from seedpo.models.catalogue import loading_keys
from seedpo.models.denoiser import PipelineDenoiser, load_denoiser
from seedpo.models.names import looks_like_a_model
from seedpo.models.settings import ModelSettings
from seedpo.processes import on_every_process, require_shared
from seedpo.protocols import PairEncoder, PreferencePairs
from seedpo.registry import unknown
from seedpo.rewards.catalogue import STARTS
from seedpo.rewards.latent_training import LatentPreferenceModel, NoisyLatents, latent_start
from seedpo.rewards.named import build_reward
from seedpo.rewards.preference_evaluation import PreferenceEvaluation
from seedpo.rewards.preference_model import PairModel, PreferenceModel, load_start
from seedpo.rewards.preference_objective import PreferenceObjective, Prompts
from seedpo.rewards.previews import FinishedImages, NoisyPreviews, PixelPairs, Views
from seedpo.run_folders import RunFolder, read_metrics
from seedpo.training.accelerator import build_accelerator, sharding_is_asked_for
from seedpo.training.caches import Caches, open_caches
from seedpo.training.resume import start_folder
from seedpo.training.settings import RewardRunConfig
from seedpo.training.trackers import require_trackers
from seedpo.training.trainer import Trainer
from seedpo.training.update import try_first_batch

logger = logging.getLogger(__name__)


def build_preference_model(config: RewardRunConfig) -> PreferenceModel:
    """The preference model as it starts.

    Raises:
        ConfigError: if ``start`` is not a known name, or is step-aware although a plain model is trained.
        DataError: if it cannot be loaded.
    """
    if config.start in STARTS:
        place = STARTS.load(config.start)()
    elif looks_like_a_model(config.start):
        place = config.start
    else:
        raise unknown(STARTS.kind, config.start, STARTS.names())
    return load_start(place, step_aware=config.model is not None, tokenizer=config.tokenizer, seed=config.seed)


def build_denoiser(config: RewardRunConfig) -> PipelineDenoiser | None:
    """The diffusion model that predicts the previews; ``None`` if finished images are judged.

    Raises:
        ConfigError: if the name is unknown, or a time step is beyond the model's.
        DataError: if it cannot be loaded.
    """
    if config.model is None:
        return None
    denoiser = load_denoiser(model_settings(config))
    check_timesteps(config, denoiser.process)
    denoiser.pinned = frozenset({"vae"})  # it decodes the previews at every step
    return denoiser


def model_settings(config: RewardRunConfig) -> ModelSettings:
    """How the diffusion model of a run is loaded; the run must have one."""
    assert config.model is not None
    keys = ("model", "vae", "single_file_config", "resolution", "max_sequence_length", "embedded_guidance")
    own = {key: getattr(config, key) for key in (*keys, "mixed_precision") if getattr(config, key) is not None}
    return ModelSettings(**{**loading_keys(config.model), **own})


def check_timesteps(config: RewardRunConfig, process: Process) -> None:
    """Checks that the model knows all time steps at which accuracies are measured.

    Raises:
        ConfigError: if one is beyond the model's.
    """
    if max(config.timesteps) >= process.embedded_times:
        raise ConfigError(
            f"timesteps: {max(config.timesteps)} is beyond the last time step of model {config.model}, "
            f"{process.embedded_times - 1}"
        )


def build_views(config: RewardRunConfig, model: PairModel, denoiser: PipelineDenoiser | None) -> Views:
    """How the pairs are shown to the preference model."""
    if denoiser is None:
        return FinishedImages()
    if isinstance(model, LatentPreferenceModel):
        return NoisyLatents(denoiser, timesteps=config.timesteps)
    assert isinstance(model, PreferenceModel)
    return NoisyPreviews(
        denoiser,
        size=model.image_size,
        guidance_scale=config.guidance_scale,
        clean_share=config.clean_share,
        timesteps=config.timesteps,
        images_per_call=config.preview_batch_size,
    )


def build_preference_pairs(
    config: RewardRunConfig, *, device: torch.device | None = None, progress: bool = False
) -> tuple[SkippingPairs, SkippingPairs]:
    """The pairs that are trained on, and those that the accuracy is measured on.

    Raises:
        ConfigError: if a name is unknown, or a stream is to be divided.
        DataError: if pairs cannot be read, or either side is empty.
    """
    reward = None if config.relabel is None else build_reward(config.relabel, device=device)

    def opened(
        name: str | tuple[DataSet, ...], settings: PairsConfig, wish: SplitWish | None = None
    ) -> PreferencePairs:
        pairs = load_data(name, settings, seed=config.seed, wish=wish)
        for line in opening_lines(pairs):
            logger.info("%s", line)
        ahead = pairs_ahead(pairs, readers=settings.readers)
        if reward is None:
            return ahead
        return ChangedPairs(ahead, [relabel(reward, name=reward.name, gap=config.relabel_gap)])

    training = opened(config.data, config.pairs)
    if config.held_out is not None:
        settings = config.pairs.model_copy(update={"ties": "half" if config.relabel else "drop"})
        wish = SplitWish(name=config.held_out_split or config.pairs.split, key="held_out_split", held_out=True)
        held_out: PreferencePairs = opened(config.held_out, settings, wish)
    elif training.sequential:
        raise ConfigError(
            f"data = {data_label(config.data)} is a stream, of which no pairs can be kept out; set held_out"
        )
    else:
        training, held_out = divided_by_prompt(training, config.held_out_share, progress=progress)
    if held_out.sequential and config.held_out_limit is None:
        raise ConfigError(f"held_out = {config.held_out} is a stream, which has no end; set held_out_limit")
    limit = config.pairs.bad_rows_limit
    return SkippingPairs(training, limit=limit), SkippingPairs(held_out, limit=limit)


def build_reward_caches(config: RewardRunConfig, denoiser: PipelineDenoiser | None) -> Caches | None:
    """Latents and embedded prompts, in memory or on the disk; ``None`` without a diffusion model."""
    if denoiser is None:
        if config.cache.folder is not None:
            logger.warning("cache.folder has no effect: without model there are no latents to keep")
        return None
    return open_caches(config, denoiser)


@dataclass(frozen=True, kw_only=True)
class RewardParts:
    """What a training, or a measurement, is made of.

    Attributes:
        model: the preference model.
        views: how pairs are shown to it.
        caches: of latents and embedded prompts; ``None`` if finished images are judged.
        training: the pairs that are trained on.
        held_out: the pairs that the accuracy is measured on.
    """

    model: PairModel
    views: Views
    caches: Caches | None
    training: SkippingPairs
    held_out: SkippingPairs

    def encoder(self, pairs: SkippingPairs) -> PairEncoder:
        """Pairs as the views take them."""
        if self.caches is None:
            assert isinstance(self.model, PreferenceModel)
            return PixelPairs(pairs, size=self.model.image_size)
        return self.caches.encoder(pairs)


def build_parts(config: RewardRunConfig, *, device: torch.device, progress: bool = False) -> RewardParts:
    """Loads models and opens pairs; nothing is exchanged between processes.

    Raises:
        SeedpoError: any problem that the user can fix, in one line.
    """
    start = None if config.latent else build_preference_model(config)
    training, held_out = build_preference_pairs(config, device=device, progress=progress)
    denoiser = build_denoiser(config)
    model = start or latent_start(_some(denoiser), seed=config.seed)
    if config.gradient_checkpointing:
        model.checkpoint_activations()
    if denoiser is not None:
        denoiser.pipeline.to(device)
    model.module.to(device)
    return RewardParts(
        model=model,
        views=build_views(config, model, denoiser),
        caches=build_reward_caches(config, denoiser),
        training=training,
        held_out=held_out,
    )


def _some(denoiser: PipelineDenoiser | None) -> PipelineDenoiser:
    assert denoiser is not None
    return denoiser


def build_evaluation(config: RewardRunConfig, parts: RewardParts, *, progress: bool = False) -> PreferenceEvaluation:
    """What is measured at evaluations."""
    count = len(parts.held_out)
    return PreferenceEvaluation(
        parts.encoder(parts.held_out),
        _prompts_of(parts.held_out),
        parts.views,
        rows=range(count if config.held_out_limit is None else min(count, config.held_out_limit)),
        batch_size=config.batch_size,
        seed=config.seed,
        progress=progress,
        reader=parts.held_out,
    )


def train_reward(
    config: RewardRunConfig,
    out: str | Path,
    *,
    resume: Literal["latest"] | None = None,
    accelerator: Accelerator | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Trains a preference model and writes the run folder; the scorer lies in its ``model``.

    Args:
        config: the run's settings, for example from :func:`seedpo.training.configuration.resolve_reward_config`.
        out: the run folder; it must not exist unless a run is resumed.
        resume: ``latest`` continues from the last checkpoint, and begins anew where there is none.
        accelerator: of this process; built from the configuration if it is not given.
        progress: whether to show progress bars.

    Returns:
        The last line of training metrics.

    Raises:
        SeedpoError: any problem that the user can fix, in one line.
    """
    accelerator = accelerator or build_accelerator(config.mixed_precision)
    require_shared(accelerator, out)
    parts, source, objective = _trained_on(config, accelerator, progress=progress)
    folder, resume = start_folder(out, config, accelerator, resume=resume)
    trainer = Trainer(
        policy=parts.model,
        method=objective,
        source=source,
        config=config,
        folder=folder,
        evaluator=build_evaluation(config, parts, progress=progress and accelerator.is_main_process),
        accelerator=accelerator,
        progress=progress,
    )
    return trainer.train(resume=resume)


def _trained_on(
    config: RewardRunConfig, accelerator: Accelerator, *, progress: bool
) -> tuple[RewardParts, OfflinePairs[ImagePairs], PreferenceObjective]:
    """The parts of a run, its pairs in batches, and its loss."""
    require_trackers(config.trackers)
    refuse_shards()
    shown = progress and accelerator.is_main_process
    parts = on_every_process(accelerator, lambda: build_parts(config, device=accelerator.device, progress=shown))
    source = OfflinePairs(
        parts.encoder(parts.training),
        batch_size=config.batch_size,
        seed=config.seed,
        draws=VisitDraws(mirror=KeyedDraws(seed=config.seed) if config.pairs.flip else None),
        rank=accelerator.process_index,
        world=accelerator.num_processes,
        reader=parts.training,
        ahead=look_ahead(config.pairs.readers, batch_size=config.batch_size),
    )
    objective = PreferenceObjective(
        parts.views,
        _prompts_of(parts.training),
        in_batch_negatives=config.in_batch_negatives,
        counts=on_every_process(accelerator, lambda: pairs_of_prompts(parts.training)) if config.pair_weights else None,
    )
    return parts, source, objective


def rehearse_reward(config: RewardRunConfig, *, progress: bool = True) -> None:
    """Checks a run as :func:`train_reward` does and takes its first batch, forward and backward; writes nothing.

    Raises:
        SeedpoError: any problem that the user can fix, in one line.
    """
    parts, source, objective = _trained_on(config, build_accelerator(config.mixed_precision), progress=progress)
    logger.info("trained: %s; %d held-out pairs; nothing is written", config.trained_words, len(parts.held_out))
    advice = "check the images, or use another precision"
    try_first_batch(objective, parts.model, source, seed=config.seed, advice=advice)


def refuse_shards() -> None:
    """Checks that no process is to keep a part of the weights.

    Raises:
        ConfigError: if each is: FSDP2 cuts no tensor without a dimension, such as the logit scale.
    """
    if sharding_is_asked_for():
        raise ConfigError(
            "a preference model cannot be trained in shards (FSDP2), which cuts no single number such as its "
            "logit_scale; leave the FSDP2 file out, and set gradient_checkpointing=true to save memory"
        )


def measure_reward(config: RewardRunConfig, *, progress: bool = True) -> Mapping[str, float]:
    """Accuracies of the preference model ``config.start`` as it is, on held-out pairs; nothing is trained.

    A plain one is shown the previews as if they were finished images.

    Raises:
        SeedpoError: any problem that the user can fix, in one line.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    parts = build_parts(config, device=device, progress=progress)
    evaluation = build_evaluation(config, parts, progress=progress)
    return evaluation(parts.model, step=0, folder=Path())


def last_evaluation(out: str | Path) -> Mapping[str, float]:
    """The last line of evaluations that a run folder holds."""
    lines = read_metrics(RunFolder.open(out).metrics)
    return [line for line in lines if line["kind"] == "evaluation"][-1]


def _prompts_of(pairs: SkippingPairs) -> Prompts:
    return lambda rows: [pairs.prompt(row) for row in rows]
