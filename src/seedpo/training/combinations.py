"""Keys of a run, each possible by itself, that do not go together. Needs no torch, so that a refusal comes at once."""

from __future__ import annotations

from seedpo.data.files.splits import TRAIN
from seedpo.errors import ConfigError
from seedpo.methods.presets import METHODS, Preset
from seedpo.methods.weighting_settings import LEAST_IMAGES
from seedpo.metrics.catalogue import FEATURES, features_entry
from seedpo.rewards.names import check_definitions, check_name, latent_leaves, leaves, source_of
from seedpo.training.best_steps import check_best_steps
from seedpo.training.scopes import refuse_idle_keys
from seedpo.training.settings import RunConfig, data_of, reward_of


def check_combinations(config: RunConfig, preset: Preset) -> None:
    """Refuses what a run could not do, or what would have no effect on it.

    Args:
        config: of the run.
        preset: its method.

    Raises:
        ConfigError: naming the key, its value and the fix.
    """
    _require_supplies(config, preset)
    check_definitions(config.rewards)
    check_feedback(config, preset)
    check_validation(config)
    check_latent_rewards(config, preset)
    check_best_steps(config)
    refuse_idle_keys(config)
    check_reference(config, preset)
    check_pair_factors(config, preset)
    check_weighting(config, preset)
    if config.gamma and preset.why_no_gamma is not None:
        raise ConfigError(f"gamma = {config.gamma} must be 0 for {config.method}: {preset.why_no_gamma}")
    if preset.objective == "dgpo" and config.groups.normalise == "raw":
        raise ConfigError(
            f"groups.normalise = raw: {config.method} needs advantages that add up to 0 in a group; write std, pooled "
            "or mean"
        )
    if preset.objective == "nft" and config.objective.advantage_limit is None:
        raise ConfigError(
            f"objective.advantage_limit = null: {config.method} measures advantages by it; write a number, such as 5"
        )
    if config.lora_dropout and preset.log_prob == "steps":
        raise ConfigError(
            f"lora_dropout = {config.lora_dropout} must be 0 for {config.method}: it compares the densities of sampled "
            "steps, and a network with some inputs left out is not the one that sampled them"
        )


def _require_supplies(config: RunConfig, preset: Preset) -> None:
    reads_likes, value = preset.source.gives == "likes", f"pairs.from_scores = {config.pairs.from_scores}"
    if reads_likes and not config.pairs.reads_likes:
        raise ConfigError(f"{value} makes pairs, and {config.method} trains on single images; set it to likes")
    if config.pairs.reads_likes and not reads_likes:
        raise ConfigError(
            f"{value} makes single images, and {config.method} trains on pairs; set it to all, or use method kto"
        )
    if preset.source.fixed_pairs:
        data_of(config)
    elif config.feedback.study is None:
        reward_of(config)


def check_feedback(config: RunConfig, preset: Preset) -> None:
    """Checks that people can judge what a method draws.

    Raises:
        ConfigError: if they cannot.
    """
    if config.feedback.study is None:
        return
    if preset.source.why_no_people is not None:
        raise ConfigError(f"feedback.study: {config.method} {preset.source.why_no_people}")


def check_latent_rewards(config: RunConfig, preset: Preset) -> None:
    """Refuses sums of rewards of latents and of images where steps are ranked, and keys of what is not used then.

    Raises:
        ConfigError: naming the key and the fix.
    """
    if preset.source.judged != "previews":
        return
    name = reward_of(config)
    latent, images = latent_leaves(name, config.rewards), leaves(name, config.rewards)
    if latent and len(latent) < len(images):
        others = ", ".join(leaf for leaf in images if leaf not in latent)
        raise ConfigError(
            f"reward = {name} adds {', '.join(latent)}, which scores latents, to {others}, which scores images; "
            f"{config.method} ranks its candidates by one or the other: leave one kind out"
        )
    remote = [leaf for leaf in images if source_of(leaf, config.rewards).remote is not None]
    if remote and config.fidelity.previews_clamped_late:
        raise ConfigError(
            f"fidelity.previews_clamped_late: {', '.join(remote)} is on a server, and images travel in 8 bits; name a "
            "reward that is computed here, or leave it out"
        )
    idle = {
        f"preview_vae = {config.preview_vae}": bool(latent and config.preview_vae),
        "fidelity.previews_clamped_late = true": bool(latent and config.fidelity.previews_clamped_late),
        "fidelity.judged_at_start = true": config.fidelity.judged_at_start and not latent,
    }
    for key, is_idle in idle.items():
        if is_idle:
            what = "scores latents, so that no preview is decoded" if latent else "scores images"
            raise ConfigError(f"{key} has no effect: reward {name} {what}; leave it out")


def check_reference(config: RunConfig, preset: Preset) -> None:
    """Refuses a reference that moves where nothing asks it, or nothing moves it.

    Raises:
        ConfigError: naming the key and the fix.
    """
    kind = config.reference.kind
    if kind == "rollout" and preset.source.fixed_pairs:
        raise ConfigError(
            f"reference.kind = rollout has no effect on {config.method}, which draws no images; set it to frozen, ema "
            "or reset"
        )
    if kind != "frozen" and not (compares_with_reference(config, preset) or config.anchor.asks_reference):
        without = f" at beta = {config.beta:g}" if preset.has_reference else ""
        raise ConfigError(
            f"reference.kind = {kind} has no effect: {config.method} has no reference{without}; set it to frozen, or "
            "anchor.kl above 0"
        )


def compares_with_reference(config: RunConfig, preset: Preset) -> bool:
    """Whether the objective itself asks a reference."""
    return preset.has_reference and (config.beta > 0 or not preset.kl_is_optional)


def check_pair_factors(config: RunConfig, preset: Preset) -> None:
    """Checks that pairs have the rewards that the factors of their margins read.

    Raises:
        ConfigError: if they do not, or are scored for nothing.
    """
    objective, reward, of_data = config.objective, config.pairs.gap_reward, preset.source.fixed_pairs
    if objective.gap_scale is None and reward is not None and of_data:
        raise ConfigError(
            f"pairs.gap_reward = {reward} has no effect without objective.gap_scale; leave it out, or set "
            "objective.gap_scale, for example to 10"
        )
    if reward is not None and of_data and (latent := latent_leaves(reward, config.rewards)):
        raise ConfigError(
            f"pairs.gap_reward = {reward}: {', '.join(latent)} scores noisy latents, and pairs are images; name a "
            "reward of images"
        )
    if objective.gap_scale is not None and of_data and reward is None:
        raise ConfigError(
            f"objective.gap_scale = {objective.gap_scale:g} compares rewards, which labelled pairs do not have; set "
            "pairs.gap_reward to what scores them, for example to pickscore"
        )
    if objective.gap_scale is not None and config.feedback.study is not None:
        raise ConfigError(
            f"objective.gap_scale = {objective.gap_scale:g} compares rewards, and people give none; leave it out"
        )


def check_weighting(config: RunConfig, preset: Preset) -> None:
    """Checks that roll-outs have what their weights look at.

    Raises:
        ConfigError: naming the key and the fix.
    """
    weighting = config.weighting
    if preset.source.fixed_pairs or not weighting.is_active:
        return
    if config.feedback.study is not None:
        key = next(name for name in ("novelty", "outliers", "second_opinion") if getattr(weighting, name))
        raise ConfigError(f"weighting.{key} compares rewards, and people give none; leave it out")
    if weighting.asks_features:
        _check_novelty(config, preset)
    for name in weighting.second_opinion:
        _check_opinion(name, config)
    if weighting.suspect_anchor and not compares_with_reference(config, preset):
        raise ConfigError(
            f"weighting.suspect_anchor = {weighting.suspect_anchor:g} has no effect at beta = {config.beta:g}: there "
            "is no weight of a reference that it could raise; set beta above 0, or use weighting.gate_anchor"
        )
    if weighting.gate_anchor and not config.anchor.kl:
        raise ConfigError(
            "weighting.gate_anchor = true has no effect without anchor.kl; leave it out, or set anchor.kl, for example "
            "to 1"
        )


def _check_novelty(config: RunConfig, preset: Preset) -> None:
    """Refuses novelty of images that nobody looks at, or that have no more than one neighbour."""
    weighting, source = config.weighting, preset.source
    what = f"weighting.novelty = {weighting.novelty:g}"
    if weighting.features is None:
        raise ConfigError(
            f"{what} compares images, and weighting.features names nothing to do it with; set it to one of "
            f"{', '.join(FEATURES.names())}"
        )
    try:
        features_entry(weighting.features)
    except ConfigError as error:
        raise ConfigError(f"weighting.features: {error}") from error
    if source.judged == "previews" and latent_leaves(reward_of(config), config.rewards):
        raise ConfigError(f"{what} looks at previews, and reward {config.reward} scores latents; leave it out")
    images = "candidates" if source.section == "steps" else "images_per_prompt"
    count = getattr(source.settings(config), images)
    if count < LEAST_IMAGES:
        raise ConfigError(
            f"{what} has no effect with {source.section}.{images} = {count}: of two images neither is rarer; set it to "
            f"{LEAST_IMAGES} or more"
        )


def _check_opinion(name: str, config: RunConfig) -> None:
    """Refuses a second opinion that is none, or that cannot be asked about images."""
    key = f"weighting.second_opinion = {name}"
    check_name(name, config.rewards)
    if name == reward_of(config):
        raise ConfigError(f"{key} is the reward that is optimised, which never contradicts itself; name another one")
    if latent := latent_leaves(name, config.rewards):
        raise ConfigError(f"{key}: {', '.join(latent)} scores noisy latents, and images are judged; name another one")
    if METHODS[config.method].source.judged == "previews" and latent_leaves(reward_of(config), config.rewards):
        raise ConfigError(f"{key} looks at previews, and reward {config.reward} scores latents; leave it out")


def check_validation(config: RunConfig) -> None:
    """Refuses validation pairs where there are none to keep out.

    Raises:
        ConfigError: if the method makes its own pairs, or both sets are the same.
    """
    name = config.pairs.validation
    if name is None:
        return
    if METHODS[config.method].source.gives == "likes":
        raise ConfigError(
            f"pairs.validation = {name}: {config.method} trains on single images, which are ranked against none, and "
            "its loss depends on the mean of a batch; set pairs.validation to null, and look at evaluation.rewards"
        )
    if not METHODS[config.method].source.fixed_pairs:
        raise ConfigError(
            f"pairs.validation = {name}: {config.method} makes its own pairs, and none are kept out; its held-out "
            "figures are those of the evaluations (evaluation.rewards); set pairs.validation to null"
        )
    if name == config.data and config.pairs.validation_split in (None, config.pairs.split or TRAIN):
        raise ConfigError(
            f"pairs.validation = {name} is the set that is trained on; write a share such as 0.1, or set "
            "pairs.validation_split"
        )
