"""The optimisers that a run can name, their learning rate, gradient clipping, and their state by parameter name.

AdamW is PyTorch's (arXiv 1711.05101). Its 8-bit form (arXiv 2110.02861) comes from bitsandbytes, which keeps the
moments of tensors of fewer than 4096 values in float32. Its paged form needs a CUDA device, whose driver moves the
moments to main memory and back. Adafactor (arXiv 1804.04235) is that of transformers, with the learning rate as given:
neither relative steps nor scaling by the size of a weight, no first moment, updates clipped to a root mean square of 1.
Those are the settings of Diffusion-DPO's SDXL run; PyTorch's own Adafactor always scales by the size of a weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from seedpo.errors import ConfigError, RunFolderError
from seedpo.protocols import State
from seedpo.registry import Entry
from seedpo.training.layout import shard_like, whole_tensor
from seedpo.training.optimizer_settings import OptimizerConfig
from seedpo.training.schedules import scheduled_rate
from seedpo.training.settings import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class OptimizerKind:
    """One optimiser.

    Attributes:
        entry: its name and class.
        options: arguments of the class, from the run's settings.
        package: the distribution that brings the class.
        state_bytes: bytes of its state on the device per trained weight.
        step_bytes: bytes per trained weight that a step takes for itself while it runs.
        devices: types of device that it works on; ``None``: all.
        shards: whether it can work on shards of the weights.
    """

    entry: Entry
    options: Callable[[OptimizerConfig], dict[str, Any]]
    package: str
    state_bytes: float
    step_bytes: float
    devices: tuple[str, ...] | None = None
    shards: bool = False


def _adam(config: OptimizerConfig) -> dict[str, Any]:
    return {"betas": (config.beta1, config.beta2), "eps": config.epsilon, "weight_decay": config.weight_decay}


def _adafactor(config: OptimizerConfig) -> dict[str, Any]:
    return {"weight_decay": config.weight_decay, "scale_parameter": False, "relative_step": False}


OPTIMIZERS = {
    kind.entry.name: kind
    for kind in (
        OptimizerKind(
            entry=Entry(name="adamw", target="torch.optim:AdamW", summary="Adam with decoupled weight decay"),
            options=_adam,
            package="torch",
            state_bytes=8.0,
            step_bytes=4.0,
            shards=True,
        ),
        OptimizerKind(
            entry=Entry(name="adamw8bit", target="bitsandbytes.optim:AdamW8bit", summary="AdamW with 8-bit moments"),
            options=_adam,
            package="bitsandbytes",
            state_bytes=2.0,
            step_bytes=0.0,
            devices=("cuda", "cpu"),
        ),
        OptimizerKind(
            entry=Entry(
                name="paged_adamw8bit",
                target="bitsandbytes.optim:PagedAdamW8bit",
                summary="AdamW with 8-bit moments that move to main memory while the GPU is full",
            ),
            options=_adam,
            package="bitsandbytes",
            state_bytes=0.0,
            step_bytes=0.0,
            devices=("cuda",),
        ),
        OptimizerKind(
            entry=Entry(name="adafactor", target="transformers.optimization:Adafactor", summary="factored moments"),
            options=_adafactor,
            package="transformers",
            state_bytes=0.1,  # a row and a column of each matrix
            step_bytes=4.0,
        ),
    )
}
"""By the value of the key ``optimizer.name``."""


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
    if kind.devices is not None and device.type not in kind.devices:
        raise ConfigError(
            f"optimizer.name = {name} works on {' and '.join(kind.devices)} only, but this run is on {device}; "
            "set it to adamw"
        )
    if not kind.shards and any(isinstance(parameter, DTensor) for parameter in parameters.values()):
        raise ConfigError(f"optimizer.name = {name} cannot work on shards; set it to adamw, or do without sharding")


def learning_rate_at(step: int, *, config: TrainingConfig) -> float:
    """Learning rate of update ``step``, from 1; see :func:`seedpo.training.schedules.scheduled_rate`."""
    settings = config.optimizer
    return scheduled_rate(
        step,
        peak=config.learning_rate,
        warmup_steps=settings.warmup_steps,
        max_steps=config.max_steps,
        schedule=settings.schedule,
        power=settings.schedule_power,
        cycles=settings.schedule_cycles,
        final_share=settings.final_learning_rate_share,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Sets the learning rate of all parameter groups."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def clip_gradients(parameters: Sequence[nn.Parameter], *, max_grad_norm: float) -> float:
    """Scales all gradients down to a common Euclidean norm of at most ``max_grad_norm``.

    Args:
        parameters: a sequence, since an iterator that was used before would silently clip nothing.
        max_grad_norm: the largest norm allowed.

    Returns:
        The norm before clipping, over all shards where there are any.
    """
    return float(whole_tensor(torch.nn.utils.clip_grad_norm_(list(parameters), max_grad_norm)))


def scale_gradients(parameters: Sequence[nn.Parameter], factor: float) -> None:
    """Multiplies all gradients by a factor; by 1 it leaves them alone."""
    if factor == 1.0:
        return
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.mul_(factor)


def optimizer_state(optimizer: torch.optim.Optimizer, names: Sequence[str]) -> State:
    """The optimiser's state by parameter name, shards joined; hyper-parameters stay in the run's configuration."""
    state = optimizer.state_dict()["state"]
    return {
        "names": list(names),
        "parameters": {
            name: {key: _whole_on_cpu(value) for key, value in state[index].items()}
            for index, name in enumerate(names)
            if index in state
        },
    }


def _whole_on_cpu(value: Any) -> Any:
    # One tensor at a time, so that the whole state never lies on a device that holds a shard of it.
    return whole_tensor(value).cpu() if isinstance(value, DTensor) else value


def restore_optimizer(optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter], state: State) -> None:
    """Takes back what :func:`optimizer_state` gave.

    Raises:
        RunFolderError: if the state belongs to other parameters.
    """
    differing = sorted(set(state["names"]) ^ set(parameters))
    if differing:
        raise RunFolderError(
            f"the checkpoint's optimiser state does not fit the policy: {len(differing)} parameters differ, "
            f"first {differing[0]!r}; resume with the model and adapter of the run"
        )
    saved = state["parameters"]
    by_index = {
        index: {key: _laid_out(value, parameter) for key, value in saved[name].items()}
        for index, (name, parameter) in enumerate(parameters.items())
        if name in saved
    }
    optimizer.load_state_dict({"state": by_index, "param_groups": optimizer.state_dict()["param_groups"]})


def _laid_out(value: Any, parameter: nn.Parameter) -> Any:
    if isinstance(parameter, DTensor) and isinstance(value, Tensor) and value.shape == parameter.shape:
        return shard_like(value, parameter)
    return value
