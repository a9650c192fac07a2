"""The optimiser of a run and its learning-rate schedule, as settings."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from seedpo.settings import Section
from seedpo.training.schedules import SCHEDULES


class OptimizerConfig(Section):
    """The optimiser and its schedule."""

    name: Literal["adamw", "adamw8bit", "paged_adamw8bit", "adafactor"] = "adamw"
    """`adamw`; `adamw8bit`: with moments of 8 bits, a quarter of their memory (the package bitsandbytes);
    `paged_adamw8bit`: the same, and the moments move to main memory while a GPU is full (CUDA only); `adafactor`:
    factored second moments only, at a fixed learning rate, as Diffusion-DPO trained SDXL. docs/options.md compares
    their memory."""
    schedule: Literal["constant", "cosine", "linear", "polynomial", "cosine-restarts"] = "constant"
    """Learning rate after the warm-up: at its peak throughout, or down to `final_learning_rate_share` at `max_steps`,
    which then cannot be changed when a run is resumed."""
    schedule_power: float = Field(1.0, gt=0.0)
    """Exponent of the `polynomial` schedule; 1 is `linear`. Other schedules have none."""
    schedule_cycles: int = Field(1, ge=1)
    """How often `cosine-restarts` falls from the peak; 1 is `cosine`. Other schedules have none."""
    final_learning_rate_share: float = Field(0.0, ge=0.0, lt=1.0)
    """Where a falling schedule ends, as a share of the peak; 0: at 0. `constant` has no end."""
    weight_decay: float = Field(1e-4, ge=0.0)
    """Decoupled weight decay."""
    max_grad_norm: float = Field(1.0, gt=0.0)
    """Gradients are scaled down to this norm."""
    warmup_steps: int = Field(0, ge=0)
    """Steps over which the learning rate rises linearly to its peak, from peak / warmup_steps at the first; 0: none."""
    beta1: float = Field(0.9, ge=0.0, lt=1.0)
    """AdamW's first decay rate; Adafactor has none."""
    beta2: float = Field(0.999, ge=0.0, lt=1.0)
    """AdamW's second decay rate; Adafactor's follows the step, 1 - step^-0.8."""
    epsilon: float = Field(1e-8, gt=0.0)
    """What AdamW adds to the root of the second moment before it divides; Adafactor has its own, 1e-30 and 1e-3."""

    @model_validator(mode="after")
    def _keys_have_an_effect(self) -> Self:
        for key in ("schedule_power", "schedule_cycles", "final_learning_rate_share"):
            value, readers = getattr(self, key), [name for name, row in SCHEDULES.items() if key in row.keys]
            if value != type(self).model_fields[key].default and self.schedule not in readers:
                raise ValueError(
                    f"optimizer.{key} = {value} has no effect on the schedule {self.schedule}; leave it out, or set "
                    f"optimizer.schedule to {' or '.join(readers)}"
                )
        if self.name == "adafactor" and self.epsilon != type(self).model_fields["epsilon"].default:
            raise ValueError(
                f"optimizer.epsilon = {self.epsilon} has no effect on adafactor; leave it out, or set "
                "optimizer.name to adamw"
            )
        return self
