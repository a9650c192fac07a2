"""The optimiser: AdamW over named parameters, warm-up, gradient clipping, and its state by parameter name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from seedpo.config import OptimizerConfig
from seedpo.errors import ConfigError, RunFolderError
from seedpo.protocols import State


def build_optimizer(
    parameters: Mapping[str, nn.Parameter], *, learning_rate: float, config: OptimizerConfig
) -> torch.optim.AdamW:
    """AdamW (arXiv 1711.05101) over the parameters, in their given order.

    Raises:
        ConfigError: if there is nothing to train, or a weight has less precision than float32: updates smaller than
            its rounding would be lost.
    """
    if not parameters:
        raise ConfigError("the policy has no trainable parameter; choose adapter = lora or full")
    for name, parameter in parameters.items():
        if not parameter.is_floating_point() or parameter.dtype.itemsize < 4:
            raise ConfigError(
                f"trainable parameter {name} is {parameter.dtype}; load it as float32 and set mixed_precision instead"
            )
    return torch.optim.AdamW(
        list(parameters.values()),
        lr=learning_rate,
        betas=(config.beta1, config.beta2),
        weight_decay=config.weight_decay,
    )


def learning_rate_at(step: int, *, peak: float, warmup_steps: int) -> float:
    """Learning rate of update ``step`` (from 1): peak * min(1, step / warmup_steps); without warm-up the peak."""
    return peak if step >= warmup_steps else peak * step / warmup_steps


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
        The norm before clipping.
    """
    return float(torch.nn.utils.clip_grad_norm_(list(parameters), max_grad_norm))


def scale_gradients(parameters: Sequence[nn.Parameter], factor: float) -> None:
    """Multiplies all gradients by a factor; by 1 it leaves them alone."""
    if factor == 1.0:
        return
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.mul_(factor)


def optimizer_state(optimizer: torch.optim.Optimizer, names: Sequence[str]) -> State:
    """The optimiser's state by parameter name; hyper-parameters stay in the run's configuration."""
    state = optimizer.state_dict()["state"]
    return {
        "names": list(names),
        "parameters": {name: dict(state[index]) for index, name in enumerate(names) if index in state},
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, names: Sequence[str], state: State) -> None:
    """Takes back what :func:`optimizer_state` gave.

    Raises:
        RunFolderError: if the state belongs to other parameters.
    """
    differing = sorted(set(state["names"]) ^ set(names))
    if differing:
        raise RunFolderError(
            f"the checkpoint's optimiser state does not fit the policy: {len(differing)} parameters differ, "
            f"first {differing[0]!r}; resume with the model and adapter of the run"
        )
    parameters = state["parameters"]
    by_index = {index: dict(parameters[name]) for index, name in enumerate(names) if name in parameters}
    optimizer.load_state_dict({"state": by_index, "param_groups": optimizer.state_dict()["param_groups"]})
