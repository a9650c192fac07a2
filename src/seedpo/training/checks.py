"""What can be refused before anything is trained: the same for `train`, its `--dry-run`, `cache build` and `plan`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from seedpo.core.processes import Process
from seedpo.data.prompts.reading import load_prompts, names_a_file
from seedpo.errors import ConfigError, DataError
from seedpo.methods.presets import METHODS
from seedpo.metrics.catalogue import METRICS, metric_entry
from seedpo.registry import Registry
from seedpo.rewards.catalogue import REWARDS
from seedpo.rewards.names import image_sizes
from seedpo.settings import HUB
from seedpo.training.settings import RunConfig, reward_of


class GuidedModel(Protocol):
    """A model that says whether it can be guided."""

    def require_guidance(self, scale: float, *, key: str) -> None:
        """Refuses a scale other than 1 with a model that has no classifier-free guidance."""


def check_run(config: RunConfig, process: Process, image_size: tuple[int, int]) -> None:
    """Refuses settings that do not fit the model, and prompt files that cannot be read.

    Args:
        config: of the run.
        process: of its model.
        image_size: height and width of its images, in pixels.

    Raises:
        ConfigError: naming the key, its value and the fix.
        DataError: if a prompt file cannot be read.
    """
    check_steps(config, process)
    check_images(config, image_size)
    check_prompts(config)


def check_steps(config: RunConfig, process: Process) -> None:
    """Refuses step counts that the model's noise schedule does not have, or that leave SPO no step for its pairs."""
    for section in ("sampling", "evaluation"):
        try:
            process.timesteps(getattr(config, section).num_inference_steps)
        except ValueError as error:
            raise ConfigError(f"{section}.{error}") from error
    if METHODS[config.method].source.section == "steps":
        sampling, plain = config.sampling, config.steps.plain_steps
        eta = process.usual_eta if sampling.eta is None else sampling.eta
        if not bool((process.step_std(*process.timesteps(sampling.num_inference_steps), eta=eta)[plain:] > 0).any()):
            raise ConfigError(
                f"steps.plain_steps = {plain}: after so many of sampling.num_inference_steps = "
                f"{sampling.num_inference_steps} no random step is left that could make pairs; lower it, or raise "
                "sampling.num_inference_steps"
            )


def check_guidance(config: RunConfig, policy: GuidedModel) -> None:
    """Refuses guidance with a model that has none.

    Raises:
        ConfigError: naming the key.
    """
    keys = {"evaluation.guidance_scale": config.evaluation.guidance_scale}
    if not METHODS[config.method].source.fixed_pairs:
        keys["sampling.guidance_scale"] = config.sampling.guidance_scale
    for key, scale in keys.items():
        policy.require_guidance(scale, key=key)


def check_images(config: RunConfig, image_size: tuple[int, int]) -> None:
    """Refuses pairs of another size than the model's, and rewards and metrics that cannot read its images."""
    height, width = image_size
    fixed_pairs = METHODS[config.method].source.fixed_pairs
    resolution = config.pairs.resolution
    if (fixed_pairs or config.anchor.data) and resolution is not None and resolution != height:
        raise ConfigError(
            f"pairs.resolution = {resolution}, but model {config.model} works at {height} x {width} px; set "
            f"pairs.resolution to {height}, or resolution to {resolution}"
        )

    def sizes(rewards: Sequence[str]) -> dict[str, int | None]:
        return {part: size for name in rewards for part, size in image_sizes(name, config.rewards).items()}

    asks_reward = not fixed_pairs and config.feedback.study is None
    needed: Mapping[str, tuple[Registry[Any], Mapping[str, int | None]]] = {
        "reward": (REWARDS, sizes([reward_of(config)] if asks_reward else [])),
        "weighting.second_opinion": (REWARDS, sizes(config.weighting.second_opinion)),
        "evaluation.rewards": (REWARDS, sizes(config.evaluation.rewards)),
        "evaluation.metrics": (METRICS, {name: metric_entry(name)[0].image_size for name in config.evaluation.metrics}),
    }
    for key, (registry, size_of) in needed.items():
        unreadable = [name for name, size in size_of.items() if size not in (None, height)]
        if unreadable:
            others = ", ".join(entry.name for entry in registry.entries if entry.image_size in (None, height))
            raise ConfigError(
                f"{key}: {', '.join(unreadable)} cannot read the images of model {config.model}, {height} x {width} "
                f"px; set {key} to one of {others}"
            )


def check_prompts(config: RunConfig) -> None:
    """Refuses prompt files that are not there or cannot be read; sets that come from the hub are left alone."""
    named = {"evaluation.prompts": (config.evaluation.prompts, config.evaluation.num_prompts)}
    if not METHODS[config.method].source.fixed_pairs:
        named["prompts"] = (config.prompts, 1)
    for key, (name, count) in named.items():
        if names_a_file(name):
            try:
                load_prompts(name, count=count, count_key="evaluation.num_prompts")
            except DataError as error:
                raise DataError(f"{key}: {error}") from error


def absent_data(config: RunConfig) -> list[str]:
    """Sets of pairs that are paths and do not exist here, in words; for a plan, which reads no data."""
    sets = {"data": config.data} if METHODS[config.method].source.fixed_pairs else {}
    sets |= {"anchor.data_set": config.anchor.data_set}
    named = [
        (key, name)
        for key, data in sets.items()
        for name in ((data,) if isinstance(data, str) else [entry.name for entry in data or ()])
    ]
    paths = [
        (key, name) for key, name in named if "/" in name and not name.startswith(HUB) and not set("*?[{") & set(name)
    ]
    return [f"{key} = {name} does not exist here" for key, name in paths if not Path(name).expanduser().exists()]
