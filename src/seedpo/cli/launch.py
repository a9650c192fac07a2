"""Several processes of one command on this machine: ``seedpo train ... --processes N``.

Every process is started with the variables that ``torchrun`` sets, so that training is the same as under ``torchrun``
or ``accelerate launch``. What those launchers lack: a signal reaches the processes once and they have all the time they
need to write a checkpoint; an error is one line; and the processes end when the launcher is killed.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType

from seedpo.documents import UNREADABLE, read_json
from seedpo.errors import ConfigError, SeedpoError, escaped
from seedpo.lifelines import tied_to_this

_FOLDER = "SEEDPO_LAUNCH_FOLDER"
_SHARDS = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
"""Variables of the environment with which each process keeps only its part of the trained weights."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)

GRACE = 10.0
"""Seconds that the other processes have to end by themselves after one has failed."""


def is_launched() -> bool:
    """Whether this process was started by :func:`launch`."""
    return _FOLDER in os.environ


def run_in_processes(arguments: Sequence[str] | None, *, processes: int | None, shard: bool = False) -> None:
    """Runs this command in several processes and ends this one; returns at once if this is one of them.

    Args:
        arguments: of the command line; ``None``: those of this process.
        processes: as ``--processes`` says; ``None`` or 1: this process alone.
        shard: whether each keeps only its part of the trained weights (FSDP2).

    Raises:
        ConfigError: if torchrun or accelerate started another number of processes, or there is none to share with.
        SystemExit: with the exit status of the processes.
    """
    if is_launched():
        return
    world = os.environ.get("WORLD_SIZE")
    if processes is not None and world is not None and int(world) != processes:
        raise ConfigError(f"--processes {processes} within a launch of {world} processes; leave --processes out")
    if shard and int(world or processes or 1) < 2:
        raise ConfigError("--shard needs --processes 2 or more: there is nothing to share with one process")
    if shard and world is not None:
        os.environ.update(_SHARDS)
    if world is None and processes is not None and processes > 1:
        raise SystemExit(launch(arguments or sys.argv[1:], processes=processes, shard=shard))


def launch(
    arguments: Sequence[str],
    *,
    processes: int,
    shard: bool = False,
    command: Sequence[str] = (sys.executable, "-P", "-m", "seedpo"),
) -> int:
    """Runs ``seedpo`` with these arguments in several processes and waits for them.

    The first process writes to the terminal; of the others only what ends the run is shown. SIGINT and SIGTERM are
    passed on to all of them.

    Args:
        arguments: of the command line.
        processes: how many are started; with GPUs one for each.
        shard: whether each keeps only its part of the trained weights (FSDP2).
        command: the program.

    Returns:
        0, or the exit status of the process that failed first: 128 + n if signal n ended it.
    """
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="seedpo-launch-") as name, ExitStack() as stack:
        folder = Path(name)
        workers: list[subprocess.Popen[bytes]] = []
        stack.callback(_end, workers)
        with _signals_passed_on(workers):
            for rank in range(processes):
                environment = _environment(rank, processes, port=port, folder=folder, shard=shard)
                output = None if rank == 0 else stack.enter_context((folder / f"rank-{rank}.log").open("wb"))
                worker = subprocess.Popen(
                    [*command, *arguments],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,  # A terminal's Ctrl-C comes through this launcher alone, once.
                )
                workers.append(worker)
            _wait(workers)
        statuses = [worker.returncode for worker in workers]
        first = _to_blame(statuses)
        if first is None:
            return 0
        _explain(first, statuses[first], folder, processes=processes)
        return statuses[first] if statuses[first] > 0 else 128 - statuses[first]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _environment(rank: int, processes: int, *, port: int, folder: Path, shard: bool) -> Mapping[str, str]:
    threads = str(max((os.cpu_count() or 1) // processes, 1))
    return {"OMP_NUM_THREADS": threads} | os.environ | (_SHARDS if shard else {}) | {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        _FOLDER: str(folder),
        **tied_to_this(),
    }  # fmt: skip


@contextmanager
def _signals_passed_on(workers: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    def pass_on(number: int, frame: FrameType | None) -> None:
        for worker in workers:
            if worker.poll() is None:
                worker.send_signal(number)

    previous = {number: signal.signal(number, pass_on) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _wait(workers: Sequence[subprocess.Popen[bytes]]) -> None:
    """Waits until all have ended, or one has failed and the others had their time."""
    deadline = float("inf")
    while any(worker.poll() is None for worker in workers) and time.monotonic() < deadline:
        if deadline == float("inf") and any(worker.poll() not in (None, 0) for worker in workers):
            deadline = time.monotonic() + GRACE
        time.sleep(0.05)


def _to_blame(statuses: Sequence[int | None]) -> int | None:
    """The process that probably failed first: one that was killed did not fail because of another."""
    failed = [rank for rank, status in enumerate(statuses) if status]
    return next((rank for rank in failed if (statuses[rank] or 0) < 0), failed[0] if failed else None)


def _end(workers: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ends those that still run: they wait for a process that is gone, so they have nothing to save."""
    for worker in workers:
        if worker.poll() is None:
            worker.kill()
        worker.wait()


def _explain(blamed: int, status: int, folder: Path, *, processes: int) -> None:
    """Prints why the run ended: a user's error, else the signal that ended a process, else its own output."""
    errors = {rank: error for rank in range(processes) if (error := _read_error(folder, rank)) is not None}
    users_error = next((error for error in errors.values() if not error["traceback"]), None)
    if users_error is not None:
        text = f"error: {users_error['message']}"
    elif status < 0:
        text = (
            f"error: process {blamed} was ended by {signal.Signals(-status).name}"
            f"{' (often: memory ran out)' if -status == signal.SIGKILL else ''}; "
            "run the command again to continue (training: with --resume latest)"
        )
    elif blamed in errors:
        text = f"{errors[blamed]['traceback']}error: process {blamed} failed: {errors[blamed]['message']}"
    else:
        log = folder / f"rank-{blamed}.log"
        output = log.read_text(errors="replace") if log.exists() else ""
        text = f"{output[-4000:]}error: process {blamed} ended with status {status}"
    print(escaped(text, keep="\n\t"), file=sys.stderr)  # noqa: T201


def _read_error(folder: Path, rank: int) -> dict[str, str] | None:
    try:
        error = read_json(folder / f"rank-{rank}.json")
        return {key: str(error[key]) for key in ("message", "traceback")}
    except UNREADABLE:
        return None


def tell_launcher(error: Exception) -> None:
    """Leaves this process's error for the launcher, which prints one for all processes.

    The file holds the ``message`` in one line, and the ``traceback`` of a fault that no user can fix.
    """
    message = " ".join(str(error).split()) or type(error).__name__
    leave_error(message, "" if isinstance(error, SeedpoError) else "".join(traceback.format_exception(error)))


def leave_error(message: str, traceback: str = "") -> None:
    """Leaves one line for the launcher; see :func:`tell_launcher`."""
    content = {"message": message, "traceback": traceback}
    path = Path(os.environ[_FOLDER]) / f"rank-{os.environ['RANK']}.json"
    with suppress(OSError):  # The launcher is gone, and its folder with it.
        path.write_text(json.dumps(content), encoding="utf-8")
