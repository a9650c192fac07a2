"""The first lines of a run: what is trained, on what, how often each pair is seen, and what is likely a mistake."""

from __future__ import annotations

from seedpo.data.settings import data_label
from seedpo.methods.presets import METHODS
from seedpo.models.policy import PipelinePolicy
from seedpo.rewards.names import latent_leaves
from seedpo.training.combinations import compares_with_reference
from seedpo.training.scopes import warnings_of_idle_keys
from seedpo.training.settings import RunConfig, data_of, reward_of

OFTEN = 30.0
"""Visits of each pair above which a run probably memorises its pairs."""


def opening_lines(
    config: RunConfig, policy: PipelinePolicy, *, pairs: int | None, fixed_pairs: bool, processes: int, results: str
) -> list[str]:
    """A few lines for the log: model, data, what is trained, the reference, and where results go.

    Args:
        config: the run's settings.
        policy: the model that is trained, on its device.
        pairs: that are trained on in one pass; ``None`` for streams and methods that draw their own.
        fixed_pairs: whether the pairs come from a data set.
        processes: of the run.
        results: where they go.
    """
    height, width = policy.image_size
    precision = "float32" if config.mixed_precision == "no" else config.mixed_precision
    trained = sum(parameter.numel() for parameter in policy.trainable_parameters().values())
    what = config.trained_words if config.adapter == "lora" else "the whole network"
    reference = "the same model, adapter off" if policy.adapter.frozen is None else "a frozen copy of the model"
    if config.initial_lora is not None:
        reference = "the model with the LoRA that it starts from"
    reference += config.reference.words
    if not (config.anchor.kl or compares_with_reference(config, METHODS[config.method])):
        reference = "none"
    name = type(policy.pipeline).__name__
    return [
        f"model: {config.model} ({name}), {height} x {width} px, {precision}, on {policy.device}",
        f"data: {_data(config, pairs, processes)}" if fixed_pairs else f"prompts: {_prompts(config)}",
        f"trained: {what}, {trained:,} parameters; reference: {reference}",
        f"results: {results}",
    ]


def likely_mistakes(config: RunConfig, *, pairs: int | None, processes: int) -> list[str]:
    """Settings that can be trained with, but rarely are what somebody meant; each line names the key and the fix."""
    lines = warnings_of_idle_keys(config)
    if pairs and (visits := visits_of_a_pair(config, pairs, processes)) > OFTEN:
        lines.append(
            f"each of the {pairs} {_things(config)} is seen about {visits:.0f} times, and is then learnt by heart; "
            f"lower max_steps to {max(int(config.max_steps * OFTEN / visits), 1)} or fewer, or add {_things(config)}"
        )
    preset, reward = METHODS[config.method], config.reward
    if preset.ranks_latents and reward is not None and not latent_leaves(reward, config.rewards):
        lines.append(
            f"reward = {reward} scores images: previews are predicted and decoded, as spo does; set reward to one of "
            "latents, such as lrm-sd15, or train spo"
        )
    if preset.objective == "kto" and config.batch_size == 1:
        lines.append(
            "batch_size = 1: an image that gains is compared with its own gain, so that its weight never falls; set it "
            "to 8 or more, and gradient_accumulation_steps lower"
        )
    if (decay := config.objective.beta_decay) is not None and decay[0] >= config.max_steps:
        lines.append(
            f"objective.beta_decay = {list(decay)} begins after the run (max_steps = {config.max_steps}): beta stays; "
            "lower its first number"
        )
    warmup = config.optimizer.warmup_steps
    if warmup and warmup >= config.max_steps:
        lines.append(
            f"optimizer.warmup_steps = {warmup} is no shorter than the run (max_steps = {config.max_steps}): the "
            f"learning rate rises to its last step; set optimizer.warmup_steps to {config.max_steps // 10} or less"
        )
    return lines


def visits_of_a_pair(config: RunConfig, pairs: int, processes: int) -> float:
    """How often each pair is seen in the run: max_steps x batch_size x accumulation x processes / pairs."""
    return config.max_steps * config.batch_size * config.gradient_accumulation_steps * processes / pairs


def _data(config: RunConfig, pairs: int | None, processes: int) -> str:
    label = data_label(data_of(config))
    if pairs is None:
        return f"{label}, a stream"
    return (
        f"{label}, {pairs:,} {_things(config)}, each seen about {visits_of_a_pair(config, pairs, processes):.3g} times"
    )


def _things(config: RunConfig) -> str:
    """What the data hold."""
    return "likes" if config.pairs.reads_likes else "pairs"


def _prompts(config: RunConfig) -> str:
    study = config.feedback.study
    return f"{config.prompts}, ranked by {reward_of(config) if study is None else f'people (study {study})'}"
