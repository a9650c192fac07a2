"""The optimisers that a run can name, and how the run's settings become their arguments.

AdamW is PyTorch's (arXiv 1711.05101). Its 8-bit form (arXiv 2110.02861) comes from bitsandbytes and needs a CUDA
device. Adafactor (arXiv 1804.04235) is that of transformers, with the learning rate as given: neither relative steps
nor scaling by the size of a weight, no first moment, updates clipped to a root mean square of 1. Those are the settings
of Diffusion-DPO's SDXL run; PyTorch's own Adafactor always scales by the size of a weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from seedpo.errors import ConfigError
from seedpo.registry import Entry
from seedpo.training.settings import OptimizerConfig


@dataclass(frozen=True, kw_only=True)
class OptimizerKind:
    """One optimiser.

    Attributes:
        entry: its name and class.
        options: arguments of the class, from the run's settings.
        package: the distribution that brings the class.
        needs_cuda: whether it works on CUDA devices only.
        shards: whether it can work on shards of the weights.
    """

    entry: Entry
    options: Callable[[OptimizerConfig], dict[str, Any]]
    package: str
    needs_cuda: bool = False
    shards: bool = False


def _adam(config: OptimizerConfig) -> dict[str, Any]:
    return {"betas": (config.beta1, config.beta2), "weight_decay": config.weight_decay}


def _adafactor(config: OptimizerConfig) -> dict[str, Any]:
    return {"weight_decay": config.weight_decay, "scale_parameter": False, "relative_step": False}


OPTIMIZERS = {
    kind.entry.name: kind
    for kind in (
        OptimizerKind(
            entry=Entry(name="adamw", target="torch.optim:AdamW", summary="Adam with decoupled weight decay"),
            options=_adam,
            package="torch",
            shards=True,
        ),
        OptimizerKind(
            entry=Entry(name="adamw8bit", target="bitsandbytes.optim:AdamW8bit", summary="AdamW with 8-bit moments"),
            options=_adam,
            package="bitsandbytes",
            needs_cuda=True,
        ),
        OptimizerKind(
            entry=Entry(name="adafactor", target="transformers.optimization:Adafactor", summary="factored moments"),
            options=_adafactor,
            package="transformers",
        ),
    )
}


def build_optimizer(
    parameters: Mapping[str, nn.Parameter], *, learning_rate: float, config: OptimizerConfig
) -> torch.optim.Optimizer:
    """The optimiser that the settings name, over the parameters in their given order.

    Raises:
        ConfigError: if there is nothing to train; a weight has less precision than float32, so that updates smaller
            than its rounding would be lost; or the optimiser cannot work here.
    """
    if not parameters:
        raise ConfigError("the policy has no trainable parameter; choose adapter = lora or full")
    for name, parameter in parameters.items():
        if not parameter.is_floating_point() or parameter.dtype.itemsize < 4:
            raise ConfigError(
                f"trainable parameter {name} is {parameter.dtype}; load it as float32 and set mixed_precision instead"
            )
    kind = OPTIMIZERS[config.name]
    _require_usable(kind, parameters)
    try:
        optimizer_class: Callable[..., torch.optim.Optimizer] = kind.entry.load()
    except ImportError as error:
        raise ConfigError(
            f"optimizer.name = {config.name} needs {kind.package}, which cannot be imported ({error}); "
            f"install it with `pip install {kind.package}`, or set optimizer.name to adamw"
        ) from error
    return optimizer_class(list(parameters.values()), lr=learning_rate, **kind.options(config))


def _require_usable(kind: OptimizerKind, parameters: Mapping[str, nn.Parameter]) -> None:
    name = kind.entry.name
    device = next(iter(parameters.values())).device
    if kind.needs_cuda and device.type != "cuda":
        raise ConfigError(f"optimizer.name = {name} needs a CUDA device, but this run is on {device}; set it to adamw")
    if not kind.shards and any(isinstance(parameter, DTensor) for parameter in parameters.values()):
        raise ConfigError(f"optimizer.name = {name} cannot work on shards; set it to adamw, or do without sharding")
