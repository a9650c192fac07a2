"""What the trainer needs to know, whatever it trains."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from seedpo.settings import Section


def _bare_no(value: Any) -> Any:
    """YAML 1.1 reads a bare no as false."""
    return "no" if value is False else value


Precision = Annotated[Literal["no", "fp16", "bf16"], BeforeValidator(_bare_no)]
"""In which networks compute; ``no`` is float32."""


class OptimizerConfig(Section):
    """The optimiser and its schedule."""

    name: Literal["adamw", "adamw8bit", "adafactor"] = "adamw"
    """`adamw`; `adamw8bit`: with moments of 8 bits, a quarter of their memory (CUDA and the package bitsandbytes);
    `adafactor`: factored second moments only, at a fixed learning rate, as Diffusion-DPO trained SDXL."""
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    """Learning rate after the warm-up: at its peak throughout, or down to 0 at `max_steps`, which then cannot be
    changed when a run is resumed."""
    weight_decay: float = Field(1e-4, ge=0.0)
    """Decoupled weight decay."""
    max_grad_norm: float = Field(1.0, gt=0.0)
    """Gradients are scaled down to this norm."""
    warmup_steps: int = Field(0, ge=0)
    """Steps over which the learning rate rises linearly to its peak; 0: none."""
    beta1: float = Field(0.9, ge=0.0, lt=1.0)
    """AdamW's first decay rate; Adafactor has none."""
    beta2: float = Field(0.999, ge=0.0, lt=1.0)
    """AdamW's second decay rate; Adafactor's follows the step, 1 - step^-0.8."""


class TrainingConfig(Section):
    """How a network is trained, and what is written meanwhile."""

    max_steps: int = Field(100, ge=1)
    """Optimiser steps."""
    batch_size: int = Field(16, ge=1)
    """Pairs per process and micro-step."""
    gradient_accumulation_steps: int = Field(1, ge=1)
    """Micro-steps per optimiser step."""
    learning_rate: float = Field(1e-4, gt=0.0)
    """Peak learning rate."""
    mixed_precision: Precision = "no"
    """Precision of the forward passes; trained weights stay in float32. `bf16` suits GPUs since Ampere, and is what
    `seedpo train` takes there for models other than the embedded one, where nothing is set."""
    seed: int = Field(0, ge=0)
    """Seed of everything that is drawn in the run."""
    log_every: int = Field(1, ge=1)
    """Steps between lines of training metrics."""
    checkpoint_every: int = Field(100, ge=0)
    """Steps between checkpoints; 0 writes none but the last."""
    checkpoints_limit: int = Field(2, ge=1)
    """Checkpoints that are kept."""
    evaluate_every: int = Field(0, ge=0)
    """Steps between evaluations; 0 evaluates before the first and after the last step only."""
    trackers: tuple[Literal["tensorboard", "trackio", "wandb"], ...] = ()
    """Where the metrics go besides `metrics.jsonl`; none: nowhere else. The packages come with `seedpo[track]`."""
    tracker_project: str = "seedpo"
    """Project under which trackio and wandb show the run; tensorboard, whose files lie in the run folder, has none."""
    optimizer: OptimizerConfig = OptimizerConfig()

    def tree(self) -> dict[str, Any]:
        """All keys with JSON values: first what is trained, then how."""
        content = self.model_dump(mode="json")
        return {key: value for key, value in content.items() if key not in TrainingConfig.model_fields} | content

    @property
    def largest_gradient_norm(self) -> float:
        """Gradients above it are scaled down."""
        return self.optimizer.max_grad_norm

    @property
    def weights_folder(self) -> str:
        """Where the trained weights lie in the run folder at the end."""
        return "weights"
