"""What several processes must do together: agree on a result, and fail together.

An error on one process alone would leave the others waiting in a collective call until it times out. Here every
process learns of the error and raises it.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor

from seedpo.errors import RunFolderError, SeedpoError
from seedpo.files import ASIDE, writing

PATIENCE = 75.0
"""Seconds until a machine must see what another one wrote: NFS may keep what it knows of a folder for 60."""

Result = TypeVar("Result")


def is_one_of_several() -> bool:
    """Whether this process was launched as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def gather_all(value: Result) -> list[Result]:
    """The values of all processes, in the order of their ranks, on every process."""
    gathered: list[Result] = gather_object([value])
    return gathered


def gather_rows(rows: Tensor) -> tuple[list[Tensor], int]:
    """The rows of every process, in the order of their ranks, without gradient, and the rank of this process.

    Args:
        rows: (N, ...); N may differ between processes, the other dimensions may not.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [rows.detach()], 0
    world, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
    own = torch.tensor(len(rows), device=rows.device)
    counts = [torch.empty_like(own) for _ in range(world)]
    torch.distributed.all_gather(counts, own)
    sizes = [int(count) for count in counts]
    padded = rows.new_zeros(max(sizes), *rows.shape[1:])
    padded[: len(rows)] = rows.detach()
    parts = [torch.empty_like(padded) for _ in sizes]
    torch.distributed.all_gather(parts, padded)
    return [part[:size] for part, size in zip(parts, sizes, strict=True)], rank


def on_main_process(accelerator: Accelerator | None, action: Callable[[], Result]) -> Result:
    """Runs ``action`` on the first process; every process gets its result, or raises its error.

    Args:
        accelerator: of this process; `None` if it is alone.
        action: what the first process does; its result must be small, since it is sent to the others.

    Raises:
        SeedpoError: as the action raised it, on every process.
        RuntimeError: on the other processes, if the action failed in any other way.
    """
    if accelerator is None:
        return action()
    outcome: list[Any] = [None, None]
    failure: Exception | None = None
    if accelerator.is_main_process:
        try:
            outcome[0] = action()
        except Exception as error:
            failure = error
            outcome[1] = (
                error if isinstance(error, SeedpoError) else RuntimeError(f"the first process failed: {error!r}")
            )
    broadcast_object_list(outcome)
    failure = failure or outcome[1]
    if failure is not None:
        raise shared(failure) if isinstance(failure, SeedpoError) else failure
    result: Result = outcome[0]
    return result


def on_every_process(accelerator: Accelerator | None, action: Callable[[], Result]) -> Result:
    """Runs ``action`` on every process and gives each its own result; the first error of any is raised on all.

    Where nothing fails only one number is exchanged, so that this may be done several times in a step. The action
    itself must not exchange anything: a process that fails would leave the others waiting in it.

    Args:
        accelerator: of this process; `None` if it is alone.
        action: what is done.

    Raises:
        SeedpoError: as the action raised it, on every process.
        RuntimeError: on the processes that did not fail themselves, if it failed in any other way.
    """
    if accelerator is None or accelerator.num_processes == 1:
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
    outcomes: Sequence[tuple[str, Exception | None]] = gather_all((socket.gethostname(), shareable))
    if failure is not None and not isinstance(failure, SeedpoError):
        raise failure
    one_machine = len({host for host, _ in outcomes}) == 1
    everywhere = all(other is not None for _, other in outcomes)
    for rank, (host, other) in enumerate(outcomes):
        if isinstance(other, SeedpoError):
            raise shared(other if one_machine or everywhere else type(other)(f"on {host}: {other}"))
        if other is not None:
            raise RuntimeError(f"process {rank} failed: {other}")
    raise RuntimeError("a process failed without saying how")


def shared(error: SeedpoError) -> SeedpoError:
    """Marks an error that every process raises, so that only one of them needs to print it."""
    error.on_every_process = True
    return error


def require_shared(accelerator: Accelerator | None, folder: Path | str, *, key: str = "--out") -> None:
    """Checks that all processes see the same folder and can write into it; every process must call this.

    The first process leaves a file in it, which all others look for. A folder that was not there is removed again.

    Args:
        accelerator: of this process; `None` if it is alone.
        folder: that all processes will use.
        key: the option or configuration key that names it.

    Raises:
        RunFolderError: naming a machine that sees another folder, or cannot write.
    """
    if accelerator is None or accelerator.num_processes == 1:
        return
    folder = Path(folder)
    fix = f"name a {key} that can be written"
    made: list[Path] = []

    def leave_token() -> tuple[str, str]:
        if folder.exists() and not folder.is_dir():
            raise RunFolderError(f"{folder} is a file; choose another {key}")
        made.extend(place for place in (folder, *folder.parents) if not place.exists())
        name = f".shared-{secrets.token_hex(8)}{ASIDE}"
        with writing("a file for the other processes", folder, fix=fix):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
        return socket.gethostname(), name

    def look() -> None:
        if accelerator.is_main_process:
            return
        deadline = time.monotonic() + PATIENCE
        while not (folder / token).exists():
            if time.monotonic() > deadline:
                raise RunFolderError(
                    f"{key} {folder} is not the folder that {first} sees under this path; name one on a disk that all "
                    "machines share, such as NFS"
                )
            time.sleep(0.2)
        own = folder / f"{token}-{accelerator.process_index}{ASIDE}"
        with writing("a file beside that of the first process", folder, fix=fix):
            own.touch()
            own.unlink()

    first, token = on_main_process(accelerator, leave_token)
    try:
        on_every_process(accelerator, look)
    finally:
        if accelerator.is_main_process:
            with suppress(OSError):
                (folder / token).unlink()
                for place in made:
                    place.rmdir()
