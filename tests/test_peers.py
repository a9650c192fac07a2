"""Processes of several machines as the launcher names them, here on one: what ends one of them ends the others."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta

import pytest
import torch.distributed

from seedpo import peers
from seedpo.errors import ConfigError, SeedpoError

CHILD = """
import sys, time
from seedpo import peers
from seedpo.errors import SeedpoError

def waits():
    time.sleep(100)

def fails():
    raise SeedpoError("the disk is full")

def fails_with_all():
    error = SeedpoError("all know")
    error.on_every_process = True
    raise error

def breaks():
    raise RuntimeError("[gloo/transport/tcp/pair.cc:537] Connection closed by peer [192.0.2.1]:1")

def dies():
    time.sleep(4)
    import os
    os._exit(0)

peers.BEAT, peers.GRACE = 0.2, 3.0
try:
    with peers.told():
        peers.join()
        globals()[sys.argv[1]]()
except SeedpoError as error:
    print(f"raised: {error}", file=sys.stderr)
    raise SystemExit(1)
"""

Start = Callable[[int, str], subprocess.Popen[str]]


@pytest.fixture
def start() -> Start:
    """Starts the only process of a machine."""
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, timeout=timedelta(seconds=20))

    def begin(number: int, action: str) -> subprocess.Popen[str]:
        place = {"GROUP_RANK": number, "GROUP_WORLD_SIZE": 2, "LOCAL_RANK": 0, "RANK": number, "WORLD_SIZE": 2}
        where = {"TORCHELASTIC_RUN_ID": "a", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": store.port}
        variables = {name: str(value) for name, value in (place | where | {peers.LOST_AFTER: 5}).items()}
        return subprocess.Popen(
            [sys.executable, "-c", CHILD, action],
            env=os.environ | variables,
            stderr=subprocess.PIPE,
            text=True,
        )

    return begin


def ends_with(process: subprocess.Popen[str]) -> str:
    text = process.communicate(timeout=90)[1]
    assert process.returncode == 1
    return text


def test_the_error_of_one_ends_the_other(start: Start) -> None:
    waiting, failing = start(0, "waits"), start(1, "fails")
    assert ends_with(failing) == "raised: the disk is full\n"
    text = ends_with(waiting)
    assert text.startswith("error: on ")
    assert text.endswith(": the disk is full\n")


def test_an_error_is_the_reason_of_a_broken_connection(start: Start) -> None:
    failing = start(1, "fails")
    ends_with(failing)
    text = ends_with(start(0, "breaks"))
    assert text.startswith("raised: on ")
    assert text.endswith(": the disk is full\n")


def test_a_machine_that_falls_silent_is_lost(start: Start) -> None:
    waiting, dying = start(0, "waits"), start(1, "dies")
    dying.communicate(timeout=90)
    assert ends_with(waiting).startswith("error: nothing was heard of ")


def test_a_connection_that_breaks_without_a_reason(start: Start) -> None:
    other = start(1, "waits")
    text = ends_with(start(0, "breaks"))
    other.kill()
    other.communicate()
    assert "(Connection closed by peer [192.0.2.1]:1)" in text


def test_an_error_that_all_raise_is_not_told(start: Start) -> None:
    other = start(1, "fails_with_all")
    ends_with(other)
    assert "all know" not in ends_with(start(0, "breaks"))


@pytest.mark.parametrize("value", ["x", "4", "nan", "-1"])
def test_a_patience_that_is_none(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(peers.LOST_AFTER, value)
    with pytest.raises(ConfigError, match=peers.LOST_AFTER):
        peers.lost_after()


def test_one_machine_has_no_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    peers.join()
    with pytest.raises(SeedpoError, match=r"^mine$"), peers.told():
        raise SeedpoError("mine")
