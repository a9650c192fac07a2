"""The accelerator of a process: how the process was launched, and what is refused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, DistributedType, InitProcessGroupKwargs

from seedpo.errors import ConfigError
from seedpo.peers import join
from seedpo.processes import is_one_of_several
from seedpo.settings import Precision

EVALUATION_TIMEOUT = timedelta(hours=6)
"""How long the other processes wait while the first one evaluates or saves."""

SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM, DistributedType.XLA)
"""Ways in which accelerate itself spreads a model. The training loop handles none of them; it shards by itself."""

_FSDP = "ACCELERATE_USE_FSDP"


def build_accelerator(
    mixed_precision: Precision, *, cpu: bool = False, timeout: timedelta = EVALUATION_TIMEOUT
) -> Accelerator:
    """The accelerator that a run needs, under ``accelerate launch``, ``torchrun`` or plain Python.

    Buffers are not broadcast at every forward pass: a preference loss calls the network several times before one
    backward pass, and the first process calls it alone during evaluations.

    Args:
        mixed_precision: precision of the forward passes.
        cpu: stay on the CPU even where there is a GPU.
        timeout: how long a process waits for the others.

    Raises:
        ConfigError: if this process was launched in a way that the training loop does not handle, or has no GPU of its
            own where others have one.
    """
    check_launch(gpus=0 if cpu else torch.cuda.device_count())
    join()
    # Several processes without a GPU would each take themselves for the only one, unless the CPU is named.
    alone_on_cpu = is_one_of_several() and not torch.cuda.is_available()
    with plain_data_parallelism():
        return Accelerator(
            mixed_precision=mixed_precision,
            cpu=cpu or alone_on_cpu,
            kwargs_handlers=[
                DistributedDataParallelKwargs(broadcast_buffers=False),
                InitProcessGroupKwargs(timeout=timeout),
            ],
        )


def _says_yes(variable: str) -> bool:
    return os.environ.get(variable, "false").lower() in ("1", "true", "yes")


def sharding_is_asked_for() -> bool:
    """Whether an accelerate file or ``--shard`` requests shards and there is more than one process to shard over."""
    return _says_yes(_FSDP) and is_one_of_several()


def check_launch(*, gpus: int) -> None:
    """Refuses what the training loop does not handle, before anything is loaded.

    Args:
        gpus: CUDA devices that this process can see; 0 on the CPU.

    Raises:
        ConfigError: saying what to use instead.
    """
    for name in ("DEEPSPEED", "MEGATRON_LM"):
        if _says_yes(f"ACCELERATE_USE_{name}"):
            raise ConfigError(f"{name} is not supported; use seedpo/recipes/accelerate/ddp.yaml or fsdp2.yaml")
    if _says_yes(_FSDP) and os.environ.get("FSDP_VERSION", "1") != "2":
        raise ConfigError(
            "FSDP of version 1 is not supported; write fsdp_version: 2 (seedpo/recipes/accelerate/fsdp2.yaml)"
        )
    if _says_yes(_FSDP) and _says_yes("FSDP_OFFLOAD_PARAMS"):
        raise ConfigError("fsdp_offload_params is not supported; write fsdp_offload_params: false")
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    if 0 < gpus <= rank:
        raise ConfigError(
            f"process {rank} has no GPU of its own, since {gpus} can be seen; start {gpus} processes on this machine"
        )


@contextmanager
def plain_data_parallelism() -> Iterator[None]:
    """Inside, accelerate does not see that sharding is requested: :mod:`seedpo.training.layout` does it."""
    value = os.environ.pop(_FSDP, None)
    try:
        yield
    finally:
        if value is not None:
            os.environ[_FSDP] = value


def require_plain(accelerator: Accelerator, mixed_precision: str) -> None:
    """Checks that an accelerator leaves the model whole and computes in the run's precision.

    Raises:
        ConfigError: if it shards the model, or was built for another precision.
    """
    if accelerator.distributed_type in SHARDED:
        raise ConfigError(
            f"{accelerator.distributed_type.value} of accelerate shards the model, which is not supported; "
            "use build_accelerator(config.mixed_precision)"
        )
    if accelerator.mixed_precision != mixed_precision:
        raise ConfigError(
            f"mixed_precision is {mixed_precision}, but the accelerator was built with "
            f"{accelerator.mixed_precision}; use build_accelerator(config.mixed_precision)"
        )
