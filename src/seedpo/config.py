"""Every key of a run, typed and strict, in one place.

A recipe is a YAML file that holds only what differs from the defaults here and from the method's preset. The resolved
configuration is written into each run folder and rebuilds the run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from seedpo.core.entropy import entropy_weights
from seedpo.errors import ConfigError


class Section(BaseModel):
    """A frozen group of keys that knows no other key."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class SamplingConfig(Section):
    """How the policy draws images, in roll-outs and in training alike."""

    num_inference_steps: int = Field(20, ge=2)
    """Denoising steps of a trajectory."""
    guidance_scale: float = Field(5.0, ge=1.0)
    """Classifier-free guidance; 1 switches it off and halves the cost."""
    eta: float = Field(1.0, gt=0.0, le=1.0)
    """DDIM's eta of roll-outs; 1 gives the ancestral sampler, 0 has no density and cannot be trained on."""


class TrajectoryConfig(Section):
    """Pairs of whole trajectories (D3PO)."""

    images_per_prompt: int = Field(2, ge=2)
    """Trajectories per prompt that share x_T; their final images are ranked."""
    prompts_per_rollout: int = Field(16, ge=1)
    """Prompts sampled together by one process."""
    updates_per_rollout: int = Field(1, ge=1)
    """Passes over the pairs of one roll-out."""
    min_gap: float = Field(0.0, ge=0.0)
    """A pair is kept if the preference probability of its winner exceeds that of its loser by more than this."""
    steps_per_pair: int | None = Field(None, ge=1)
    """Denoising steps that are trained on from each pair, drawn at random; none: all of them, as published."""


class StepPoolConfig(Section):
    """Pairs of single steps from a shared x_t (SPO)."""

    candidates: int = Field(4, ge=2)
    """Candidates x_{t-1} drawn from every shared x_t."""
    plain_steps: int = Field(4, ge=0)
    """First steps that are sampled without making pairs."""
    min_gap: float = Field(0.3, ge=0.0, lt=1.0)
    """A pair is kept if the preference probability of its winner exceeds that of its loser by more than this."""
    prompts_per_rollout: int = Field(16, ge=1)
    """Prompts sampled together by one process."""
    updates_per_rollout: int = Field(1, ge=1)
    """Passes over the pairs of one roll-out."""


class OptimizerConfig(Section):
    """AdamW and its schedule."""

    weight_decay: float = Field(1e-4, ge=0.0)
    """Decoupled weight decay."""
    max_grad_norm: float = Field(1.0, gt=0.0)
    """Gradients are scaled down to this norm."""
    warmup_steps: int = Field(0, ge=0)
    """Steps over which the learning rate rises linearly; it is constant afterwards."""
    beta1: float = Field(0.9, ge=0.0, lt=1.0)
    """AdamW's first decay rate."""
    beta2: float = Field(0.999, ge=0.0, lt=1.0)
    """AdamW's second decay rate."""


class EvaluationConfig(Section):
    """What is generated and measured at evaluations: the same prompts and latents every time."""

    prompts: str = "scenes-evaluation"
    """Prompt set: a registered name or a text file with one prompt per line."""
    num_prompts: int = Field(24, ge=1)
    """Prompts taken from the head of the set."""
    images_per_prompt: int = Field(4, ge=1)
    """Initial latents per prompt; diversity needs at least 2."""
    num_inference_steps: int = Field(20, ge=1)
    """Denoising steps (DDIM, eta 0: the image is a function of its latent)."""
    guidance_scale: float = Field(5.0, ge=1.0)
    """Classifier-free guidance."""
    rewards: tuple[str, ...] = ("scenes-scorer",)
    """Rewards that are measured; the first is shown as the proxy."""
    metrics: tuple[str, ...] = ("truth", "attribute_accuracy", "pairwise_diversity", "free_spread")
    """Metrics that are measured."""
    seed: int = Field(1234, ge=0)
    """Seed of the initial latents."""


class RunConfig(Section):
    """One training run."""

    method: str = "diffusion-dpo"
    """Preset: `diffusion-dpo`, `d3po` or `spo`."""
    model: str = "scenes"
    """Model: a registered name or a folder with a diffusers pipeline."""
    data: str = "scenes-pairs"
    """Preference pairs of offline methods: a registered name or a parquet file with Pick-a-Pic's columns."""
    prompts: str = "scenes-training"
    """Prompts of online methods: a registered name or a text file with one prompt per line."""
    reward: str = "scenes-scorer"
    """Reward that ranks the roll-outs of online methods."""

    beta: float = 0.1
    """Weight of the KL term, above 0; its scale depends on `reduction`."""
    gamma: float = 0.0
    """Weight of the self-entropy term; 0 is the base method."""
    entropy_convention: Literal["relative", "absolute"] = "relative"
    """`relative`: a = beta (1 + gamma). `absolute`: a = beta + gamma."""
    reduction: Literal["sum", "mean"] = "mean"
    """How a log-probability is reduced over the latent dimensions; the published betas are for `mean`."""
    clip_range: float | None = Field(None, gt=0.0, lt=1.0)
    """The ratio policy/reference of one step is held in [1 - clip_range, 1 + clip_range]; none: no clipping."""

    max_steps: int = Field(100, ge=1)
    """Optimiser steps."""
    batch_size: int = Field(16, ge=1)
    """Pairs per process and micro-step."""
    gradient_accumulation_steps: int = Field(1, ge=1)
    """Micro-steps per optimiser step."""
    learning_rate: float = Field(1e-4, gt=0.0)
    """Peak learning rate."""
    adapter: Literal["lora", "full"] = "lora"
    """`lora` trains an adapter, whose absence is the reference; `full` trains the network beside a frozen copy."""
    lora_rank: int = Field(4, ge=1)
    """Rank of the adapter; its alpha equals its rank."""
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    """Precision of the forward passes; trained weights stay in float32."""
    seed: int = Field(0, ge=0)
    """Seed of everything that is drawn in the run."""
    log_every: int = Field(1, ge=1)
    """Steps between lines of training metrics."""
    checkpoint_every: int = Field(0, ge=0)
    """Steps between checkpoints; 0 writes none but the last."""
    checkpoints_limit: int = Field(2, ge=1)
    """Checkpoints that are kept."""
    evaluate_every: int = Field(0, ge=0)
    """Steps between evaluations; 0 evaluates before the first and after the last step only."""

    sampling: SamplingConfig = SamplingConfig()
    trajectories: TrajectoryConfig = TrajectoryConfig()
    steps: StepPoolConfig = StepPoolConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @field_validator("mixed_precision", mode="before")
    @classmethod
    def _bare_no(cls, value: Any) -> Any:
        """YAML 1.1 reads a bare no as false."""
        return "no" if value is False else value

    @model_validator(mode="after")
    def _weights_are_usable(self) -> Self:
        entropy_weights(self.beta, self.gamma, convention=self.entropy_convention)
        return self


def parse_override(text: str) -> tuple[str, Any]:
    """Reads one ``key=value`` of the command line; the value is YAML, the key may be dotted.

    Raises:
        ConfigError: if there is no ``=`` or the value is not YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {text!r} is not of the form key=value; write for example --set gamma=1")
    try:
        return key.strip(), _number(yaml.safe_load(value))
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {key}: the value {value!r} is not YAML ({error})") from error


def _number(value: Any) -> Any:
    """YAML 1.1 reads 1e-4 and none as text; people mean the number, and nothing."""
    if value == "none":
        return None
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            return value
        return number if math.isfinite(number) else value
    return value


def _numbers(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {key: _numbers(value) for key, value in tree.items()}
    return _number(tree)


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dictionaries joined key by key, ``changes`` last."""
    joined = dict(base)
    for key, value in changes.items():
        old = joined.get(key)
        joined[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return joined


def nested(overrides: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Dotted keys as nested dictionaries: ``("a.b", 1)`` becomes ``{"a": {"b": 1}}``."""
    tree: dict[str, Any] = {}
    for key, value in overrides:
        branch: Any = value
        for part in reversed(key.split(".")):
            branch = {part: branch}
        tree = merge(tree, branch)
    return tree


def read_recipe(path: Path) -> dict[str, Any]:
    """Reads a recipe's YAML.

    Raises:
        ConfigError: if the file is missing, is not YAML or is not a mapping.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"recipe {path} does not exist; `seedpo list methods` names the presets") from error
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"recipe {path} cannot be read as YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"recipe {path} must hold keys and values, one `key: value` a line")
    return content


def build_config(*layers: Mapping[str, Any]) -> RunConfig:
    """Validates the layers, the last one winning.

    Raises:
        ConfigError: naming every bad key, its value and what would be right.
    """
    tree: dict[str, Any] = {}
    for layer in layers:
        tree = merge(tree, _numbers(layer))
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(problem) for problem in error.errors())) from error


def _explain(problem: Any) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"unknown key {key!r}{_suggestion(problem['loc'])}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{key} = {problem['input']!r}: {message}" if key else message


def _suggestion(location: tuple[str | int, ...]) -> str:
    import difflib

    section: type[Section] = RunConfig
    for part in location[:-1]:
        annotation = section.model_fields[str(part)].annotation
        assert isinstance(annotation, type)
        assert issubclass(annotation, Section)
        section = annotation
    near = difflib.get_close_matches(str(location[-1]), section.model_fields, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; the keys here are {', '.join(sorted(section.model_fields))}"


def save_config(config: RunConfig, path: Path) -> None:
    """Writes the resolved configuration as YAML."""
    path.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
