"""Processes that another one starts and that must not outlive it, however it ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping

_PARENT = "SEEDPO_PARENT"
_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of linux/prctl.h


def tied_to_this() -> Mapping[str, str]:
    """Variables of the environment for a process that calls :func:`end_with_parent`."""
    return {_PARENT: str(os.getpid())}


def end_with_parent() -> None:
    """From now on this process gets SIGTERM when the one that started it dies: it saves a checkpoint and ends.

    Linux tells at once, elsewhere a thread looks every second. Nothing happens in a process that nobody tied.

    Raises:
        SystemExit: if the parent is dead already.
    """
    parent = os.environ.pop(_PARENT, None)  # it ties this process, and none that this one starts
    if parent is None:
        return
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
    else:
        threading.Thread(target=_watch, args=(int(parent),), name="end with parent", daemon=True).start()
    if os.getppid() != int(parent):
        raise SystemExit(1)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGTERM)
