"""What is done with an optimiser: its learning rate, clipped gradients, and its state by parameter name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from seedpo.errors import RunFolderError
from seedpo.protocols import State
from seedpo.training.settings import TrainingConfig
from seedpo.training.sharding import shard_like, whole_tensor

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "cosine": lambda progress: 0.5 * (1.0 + math.cos(math.pi * progress)),
    "linear": lambda progress: 1.0 - progress,
}
"""Learning rate after the warm-up, as a share of its peak; progress goes from 0 to 1."""


def learning_rate_at(step: int, *, config: TrainingConfig) -> float:
    """Learning rate of update ``step``, from 1.

    It rises linearly to its peak at step ``warmup_steps`` and then follows the schedule, which starts at the peak and
    would be 0 one update after ``max_steps``: progress = (step - 1 - warmup_steps) / (max_steps - warmup_steps).
    """
    peak, warmup_steps = config.learning_rate, config.optimizer.warmup_steps
    if step < warmup_steps:
        return peak * step / warmup_steps
    progress = max(step - 1 - warmup_steps, 0) / max(config.max_steps - warmup_steps, 1)
    return peak * SCHEDULES[config.optimizer.schedule](progress)


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
