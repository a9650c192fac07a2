"""What several processes of one run must do together: agree on a result, and fail together.

An error on one process alone would leave the others waiting in a collective call until it times out. Here every
process learns of the error and raises it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Literal, TypeVar

from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    InitProcessGroupKwargs,
    broadcast_object_list,
    gather_object,
)

from seedpo.errors import SeedpoError
from seedpo.protocols import Policy

Result = TypeVar("Result")

EVALUATION_TIMEOUT = timedelta(hours=6)
"""How long the other processes wait while the first one evaluates or saves."""


def build_accelerator(mixed_precision: Literal["no", "fp16", "bf16"], *, cpu: bool = False) -> Accelerator:
    """The accelerator that a run needs, under ``accelerate launch``, ``torchrun`` or plain Python.

    Buffers are not broadcast at every forward pass: a preference loss calls the network several times before one
    backward pass, and the first process calls it alone during evaluations.

    Args:
        mixed_precision: precision of the forward passes.
        cpu: stay on the CPU even where there is a GPU.
    """
    return Accelerator(
        mixed_precision=mixed_precision,
        cpu=cpu,
        kwargs_handlers=[
            DistributedDataParallelKwargs(broadcast_buffers=False),
            InitProcessGroupKwargs(timeout=EVALUATION_TIMEOUT),
        ],
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
        raise failure
    if outcome[1] is not None:
        raise outcome[1]
    result: Result = outcome[0]
    return result


def on_every_process(action: Callable[[], None]) -> None:
    """Runs ``action`` on every process and raises the first error of any of them on all.

    Raises:
        SeedpoError: as the action raised it, on every process.
        RuntimeError: on the processes that did not fail themselves, if it failed in any other way.
    """
    failure: Exception | None = None
    try:
        action()
    except Exception as error:
        failure = error
    shareable = failure if failure is None or isinstance(failure, SeedpoError) else RuntimeError(repr(failure))
    failures: Sequence[Exception | None] = gather_all(shareable)
    if failure is not None:
        raise failure
    for rank, other in enumerate(failures):
        if isinstance(other, SeedpoError):
            raise other
        if other is not None:
            raise RuntimeError(f"process {rank} failed: {other}")


@contextmanager
def unwrapped(policy: Policy, accelerator: Accelerator) -> Iterator[None]:
    """Inside, the policy's module is the network itself, for calls that only some of the processes make."""
    wrapper = policy.module
    policy.module = accelerator.unwrap_model(wrapper)
    try:
        yield
    finally:
        policy.module = wrapper


@contextmanager
def distributed(policy: Policy, accelerator: Accelerator) -> Iterator[None]:
    """Inside, the policy's module is on the accelerator's device, in its precision, and exchanges gradients."""
    policy.module = accelerator.prepare(policy.module)
    try:
        yield
    finally:
        policy.module = accelerator.unwrap_model(policy.module, keep_fp32_wrapper=False)
