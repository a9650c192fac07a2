"""Processes end when the one that started them is killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from seedpo.lifelines import _watch, end_with_parent, tied_to_this

CHILD = """#!{python}
import signal, sys, time
from pathlib import Path
from seedpo.lifelines import end_with_parent
out = Path({out!r})
signal.signal(signal.SIGTERM, lambda *_: (out / "stopped").touch() or sys.exit(0))
end_with_parent()
(out / "ready").touch()
time.sleep(60)
"""

LAUNCHER = """
import sys, time
from pathlib import Path
from seedpo.training.sweeps.definition import Sweep
from seedpo.training.sweeps.expansion import expand
from seedpo.training.sweeps.running import start
cell = expand(Sweep(base={"method": "diffusion-dpo"}, grid={"seed": [0]}, origin="here"))[0]
sys.executable = sys.argv[1]
start(Path(sys.argv[2]), cell)
time.sleep(60)
"""


def wait_for(path: Path) -> None:
    for _ in range(1200):
        if path.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"waited a minute for {path}")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere a thread looks every second")
def test_a_run_of_a_sweep_ends_with_its_sweep(tmp_path: Path) -> None:
    child = tmp_path / "child"
    child.write_text(CHILD.format(python=sys.executable, out=str(tmp_path)), encoding="utf-8")
    child.chmod(0o700)
    launcher = subprocess.Popen([sys.executable, "-c", LAUNCHER, str(child), str(tmp_path)])
    try:
        wait_for(tmp_path / "ready")
    finally:
        launcher.kill()
        launcher.wait()
    wait_for(tmp_path / "stopped")


def test_a_process_whose_parent_is_gone_does_not_begin() -> None:
    code = "from seedpo.lifelines import end_with_parent; end_with_parent(); print('begun')"
    environment = os.environ | dict.fromkeys(tied_to_this(), "1")
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)
    assert (ended.returncode, ended.stdout) == (1, b"")


def test_nobody_is_tied_by_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in tied_to_this():
        monkeypatch.delenv(name, raising=False)
    end_with_parent()


def test_elsewhere_a_thread_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    struck: list[int] = []
    monkeypatch.setattr("os.kill", lambda process, number: struck.append(process))
    _watch(os.getppid() + 1)
    assert struck == [os.getpid()]
