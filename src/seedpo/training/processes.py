"""How the processes of a run share a model: the accelerator, and the wrapping of the trained network."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    InitProcessGroupKwargs,
)

from seedpo.errors import ConfigError
from seedpo.processes import is_one_of_several
from seedpo.protocols import Trainable
from seedpo.settings import Precision
from seedpo.training.launching import check_launch, plain_data_parallelism
from seedpo.training.sharding import Layout, Replicated, shard

EVALUATION_TIMEOUT = timedelta(hours=6)
"""How long the other processes wait while the first one evaluates or saves."""

SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM, DistributedType.XLA)
"""Ways of accelerate's own to spread a model, which the training loop does not handle; it shards by itself."""


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
    # Several processes without a GPU would each take themselves for the only one, unless told of the CPU.
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


def require_plain(accelerator: Accelerator, mixed_precision: str) -> None:
    """Sees that an accelerator leaves the model whole, and computes in the run's precision.

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


@contextmanager
def unwrapped(policy: Trainable, accelerator: Accelerator) -> Iterator[None]:
    """Inside, the policy's module is the network itself, for calls that only some of the processes make."""
    wrapper = policy.module
    policy.module = accelerator.unwrap_model(wrapper)
    try:
        yield
    finally:
        policy.module = wrapper


@contextmanager
def distributed(policy: Trainable, accelerator: Accelerator, *, sharded: bool = False) -> Iterator[Layout]:
    """Inside, the policy's module is on the accelerator's device, in its precision, and exchanges gradients.

    Args:
        policy: its module is wrapped, and is itself again afterwards; a sharded one stays in shards.
        accelerator: of this process.
        sharded: whether each process keeps only its part of the trained weights; see :mod:`seedpo.training.sharding`.
    """
    with warnings.catch_warnings():
        # What torch 2.13 names instead of `broadcast_buffers`, torch 2.11 does not know.
        warnings.filterwarnings("ignore", message=".*broadcast_buffers.* is deprecated", category=FutureWarning)
        policy.module = accelerator.prepare_model(policy.module, evaluation_mode=sharded)
    try:
        if sharded:
            yield shard(accelerator.unwrap_model(policy.module), accelerator)
        else:
            yield Replicated(policy=policy, accelerator=accelerator)
    finally:
        policy.module = accelerator.unwrap_model(policy.module, keep_fp32_wrapper=False)
