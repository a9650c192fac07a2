"""What several processes of one run must do together: agree on a result, and fail together.

An error on one process alone would leave the others waiting in a collective call until it times out. Here every
process learns of the error and raises it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    InitProcessGroupKwargs,
    broadcast_object_list,
    gather_object,
)

from seedpo.errors import ConfigError, SeedpoError
from seedpo.protocols import Trainable
from seedpo.settings import Precision
from seedpo.training.launching import check_launch, is_one_of_several, plain_data_parallelism
from seedpo.training.sharding import Layout, Replicated, shard

Result = TypeVar("Result")

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


def gather_all(value: Result) -> list[Result]:
    """The values of all processes, in the order of their ranks, on every process."""
    gathered: list[Result] = gather_object([value])
    return gathered


def on_main_process(accelerator: Accelerator, action: Callable[[], Result]) -> Result:
    """Runs ``action`` on the first process; every process gets its result, or raises its error.

    Args:
        accelerator: of this process.
        action: what the first process does; its result must be small, since it is sent to the others.

    Raises:
        SeedpoError: as the action raised it, on every process.
        RuntimeError: on the other processes, if the action failed in any other way.
    """
    outcome: list[Any] = [None, None]
    failure: BaseException | None = None
    if accelerator.is_main_process:
        try:
            outcome[0] = action()
        except Exception as error:
            failure = error
            outcome[1] = (
                error if isinstance(error, SeedpoError) else RuntimeError(f"the first process failed: {error!r}")
            )
    broadcast_object_list(outcome)
    if failure is not None:
        raise shared(failure) if isinstance(failure, SeedpoError) else failure
    if outcome[1] is not None:
        raise shared(outcome[1]) if isinstance(outcome[1], SeedpoError) else outcome[1]
    result: Result = outcome[0]
    return result


def on_every_process(accelerator: Accelerator, action: Callable[[], Result]) -> Result:
    """Runs ``action`` on every process and gives each its own result; the first error of any is raised on all.

    Where nothing fails only one number is exchanged, so that this may be done several times in a step. The action
    itself must not exchange anything: a process that fails would leave the others waiting in it.

    Args:
        accelerator: of this process.
        action: what is done.

    Raises:
        SeedpoError: as the action raised it, on every process.
        RuntimeError: on the processes that did not fail themselves, if it failed in any other way.
    """
    if accelerator.num_processes == 1:
        return action()
    failure: Exception | None = None
    result: Any = None
    try:
        result = action()
    except Exception as error:
        failure = error
    failed = torch.tensor([float(failure is not None)], device=accelerator.device)
    torch.distributed.all_reduce(failed)
    if not failed.item():
        return result  # type: ignore[no-any-return]
    shareable = failure if failure is None or isinstance(failure, SeedpoError) else RuntimeError(repr(failure))
    failures: Sequence[Exception | None] = gather_all(shareable)
    if failure is not None and not isinstance(failure, SeedpoError):
        raise failure
    for rank, other in enumerate(failures):
        if isinstance(other, SeedpoError):
            raise shared(other)
        if other is not None:
            raise RuntimeError(f"process {rank} failed: {other}")
    raise RuntimeError("a process failed without saying how")


def shared(error: SeedpoError) -> SeedpoError:
    """Marks an error that every process raises, so that only one of them needs to print it."""
    error.on_every_process = True
    return error


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
