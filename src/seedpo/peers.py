"""Machines of one run tell each other that they live: none waits for hours for one that is gone.

``torchrun`` and ``accelerate launch`` end the processes of a machine when one of them fails; those of other machines
they leave waiting for it. Here the first process of each machine counts up a number in the launcher's store (its
heartbeat) and looks at the numbers of the others. A machine whose number stands still for :func:`lost_after` seconds is
lost, and a process that fails leaves its error in the store. In both cases the others end with one line.
"""

from __future__ import annotations

import atexit
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING

from seedpo.errors import ConfigError, SeedpoError, one_line

if TYPE_CHECKING:
    from torch._C._distributed_c10d import TCPStore

BEAT = 2.0
"""Seconds between two heartbeats."""

JOINING = 900.0
"""Seconds that a machine has until its first heartbeat: it imports libraries, perhaps from a slow disk."""

GRACE = 10.0
"""Seconds that a process has to end by itself when another one has failed, or to learn why a connection broke."""

LOST_AFTER = "SEEDPO_LOST_AFTER"
"""Variable of the environment: seconds without a heartbeat after which a machine is lost; 120 if it is not set."""

RESUME = "start the command on all machines again (training: with --resume latest)"


def lost_after() -> float:
    """Seconds without a heartbeat after which a machine is lost.

    Raises:
        ConfigError: if the variable of the environment is no number above twice :data:`BEAT`.
    """
    text = os.environ.get(LOST_AFTER, "120")
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not seconds > 2 * BEAT:
        raise ConfigError(f"{LOST_AFTER}={text} must be a number of seconds above {2 * BEAT:g}")
    return seconds


def has_elastic_launcher() -> bool:
    """Whether ``torchrun``, or ``accelerate launch`` with it, started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def machines() -> int:
    """On how many machines ``torchrun`` or ``accelerate launch`` started this run; 1 without them."""
    return int(os.environ.get("GROUP_WORLD_SIZE", "1")) if has_elastic_launcher() else 1


class Peers:
    """The other machines of this run, as seen by this process.

    Attributes:
        names: of machines by their number, as far as they are known.
        heard: when each was last heard of, in seconds of the monotonic clock.
        error: what a process of another machine failed with, and which one; ``None``: nothing so far.
        failed: whether this process failed.
    """

    def __init__(self) -> None:
        """Connects to the launcher's store.

        Raises:
            RuntimeError: if it cannot be reached.
        """
        self.number = int(os.environ["GROUP_RANK"])
        self.others = [number for number in range(machines()) if number != self.number]
        self.names: dict[int, str] = {}
        self.heard: dict[int, float] = {}
        self.error: str | None = None
        self.failed = False
        self._beats: dict[int, int] = {}
        self._ending = threading.Event()
        self._store = _connect()

    def start(self, patience: float) -> None:
        """Begins to send heartbeats and to look at those of the others, in two threads until this process ends.

        Args:
            patience: seconds without a heartbeat after which a machine is lost.
        """
        self._store.set(_key("name", self.number), socket.gethostname())
        self.heard = dict.fromkeys(self.others, time.monotonic() + JOINING - patience)
        # A store that cannot be reached holds up the one that talks, so that another one looks at the clock.
        talking = threading.Thread(target=self._talk, name="heartbeats", daemon=True)
        talking.start()
        threading.Thread(target=self._watch, args=(patience,), name="lost machines", daemon=True).start()
        atexit.register(self._leave, talking)

    def _leave(self, talking: threading.Thread) -> None:
        """Tells the others that this machine needs no watching, unless it failed."""
        self._ending.set()
        talking.join(GRACE)  # a thread that is within the store when the interpreter ends aborts the process
        if not self.failed and not talking.is_alive():
            with suppress(RuntimeError):
                self._store.set(_key("finished", self.number), "")

    def fail(self, message: str) -> None:
        """Leaves an error for the others; the first one of a machine stays."""
        self._store.compare_set(_key("failed", self.number), "", f"on {socket.gethostname()}: {message}")

    def look_for_error(self) -> None:
        """Sets ``error`` if a process of another machine left one."""
        for number in self.others:
            if self.error is None and self._store.check([_key("failed", number)]):
                self.error = self._store.get(_key("failed", number)).decode()

    def _talk(self) -> None:
        with suppress(RuntimeError):
            while not self._ending.is_set():
                self._store.add(_key("beats", self.number), 1)
                self.look_for_error()
                for number in self.others:
                    self._listen_to(number)
                self._ending.wait(BEAT)

    def _listen_to(self, number: int) -> None:
        beats = self._store.add(_key("beats", number), 0)
        if beats != self._beats.setdefault(number, beats) or self._store.check([_key("finished", number)]):
            self.heard[number] = time.monotonic()
        self._beats[number] = beats
        if number not in self.names and self._store.check([_key("name", number)]):
            self.names[number] = self._store.get(_key("name", number)).decode()

    def _watch(self, patience: float) -> None:
        while not self._ending.wait(1.0):
            if self.error is not None and not self._ending.wait(GRACE):
                end(self.error)
            for number, heard in self.heard.items():
                if time.monotonic() > heard + patience:
                    name = self.names.get(number, f"machine {number}")
                    end(f"nothing was heard of {name} for {patience:g} s, or the network is down; {RESUME}")


def _connect() -> TCPStore:
    from torch._C._distributed_c10d import TCPStore

    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return TCPStore(address, port, is_master=False, timeout=timedelta(seconds=GRACE), wait_for_workers=False)


def _key(kind: str, number: int) -> str:
    return f"seedpo/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{kind}/{number}"


def end(message: str) -> None:
    """Prints one line and ends this process, whatever its other threads wait for."""
    if os.environ["LOCAL_RANK"] == "0":
        print(f"error: {one_line(message)}", file=sys.stderr, flush=True)  # noqa: T201
    os._exit(1)


_joined: list[Peers] = []
"""The machines that this process watches: one record, or none."""


def join() -> None:
    """From now on this process ends when another machine is gone; nothing happens on one machine, or a second time.

    Raises:
        ConfigError: if the variable of the environment is wrong.
    """
    if machines() == 1 or _joined:
        return
    patience = lost_after()
    _joined.append(Peers())
    if os.environ["LOCAL_RANK"] == "0":
        _joined[0].start(patience)


@contextmanager
def told() -> Iterator[None]:
    """Inside runs a command; the other machines are told how it ends.

    Raises:
        SeedpoError: in place of an error that says no more than that the connection to another process broke.
    """
    if machines() == 1:
        yield
        return
    try:
        yield
    except BaseException as error:
        for peers in _joined:
            peers.failed = not isinstance(error, SystemExit) or bool(error.code)
        if not isinstance(error, Exception):
            raise
        if _is_broken_connection(error):
            raise _explained(error) from error
        if not (isinstance(error, SeedpoError) and error.on_every_process):
            with suppress(RuntimeError):  # the store is gone, and the others know
                peers = _joined[0] if _joined else Peers()
                peers.fail(str(error) if isinstance(error, SeedpoError) else one_line(repr(error)))
        raise


def _explained(error: Exception) -> SeedpoError:
    """What broke a connection, in one line."""
    deadline = time.monotonic() + GRACE
    message = f"the connection to a process of another machine broke ({_reason(error)}); {RESUME}"
    with suppress(RuntimeError, IndexError):
        peers = _joined[0]
        while peers.error is None and time.monotonic() < deadline:
            time.sleep(0.5)
            peers.look_for_error()
        if peers.error is not None:
            message = peers.error
    explained = SeedpoError(message)
    explained.on_every_process = True
    return explained


def _is_broken_connection(error: Exception) -> bool:
    import torch.distributed

    return isinstance(error, torch.distributed.DistError) or (
        isinstance(error, RuntimeError) and "gloo/transport" in str(error)
    )


def _reason(error: Exception) -> str:
    """The first sentence of a library's error, without the place in its code."""
    first = str(error).partition("\n")[0].partition(". ")[0]
    return re.sub(r"^\[\S+:\d+\] ", "", first) or type(error).__name__
