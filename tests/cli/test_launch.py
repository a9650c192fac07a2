"""Several processes of one command, started, told to stop, and explained by one launcher."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from seedpo.cli import launch
from seedpo.errors import ConfigError

ROOT = Path(__file__).parents[2]

WORKER = """
import os, signal, sys, time
from pathlib import Path
from seedpo.cli import launch
from seedpo.errors import SeedpoError
from seedpo.lifelines import end_with_parent
rank, out = int(os.environ["RANK"]), Path(sys.argv[1])

def end_as(error):
    launch.tell_launcher(error)
    raise SystemExit(1)

def wait_for_signal(number):
    signal.signal(number, lambda *_: (out / f"stopped-{rank}").touch() or sys.exit(3))
    (out / f"ready-{rank}").touch()
    time.sleep(60)

"""


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "GRACE", 0.3)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))


def run(folder: Path, code: str, *, processes: int = 2, shard: bool = False) -> int:
    script = folder / "worker.py"
    script.write_text(WORKER + code)
    command = [sys.executable, str(script)]
    return launch.launch([str(folder)], processes=processes, shard=shard, command=command)


def test_every_process_knows_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS")
    code = f"(out / f'rank-{{rank}}').write_text(' '.join(os.environ[name] for name in {names}))"
    assert run(tmp_path, code, processes=3) == 0
    told = [(tmp_path / f"rank-{rank}").read_text().split() for rank in range(3)]
    assert [words[:5] for words in told] == [[str(rank), str(rank), "3", "3", "127.0.0.1"] for rank in range(3)]
    assert len({words[5] for words in told}) == 1
    assert all(int(words[6]) >= 1 for words in told)


@pytest.mark.parametrize("shard", [False, True])
def test_sharding_is_asked_for_as_accelerate_asks(tmp_path: Path, shard: bool) -> None:
    code = (
        "(out / str(rank)).write_text(os.environ.get('ACCELERATE_USE_FSDP', '') + os.environ.get('FSDP_VERSION', ''))"
    )
    assert run(tmp_path, code, shard=shard) == 0
    assert (tmp_path / "1").read_text() == ("true2" if shard else "")


def test_only_the_first_writes_to_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "print('out of', rank); print('told by', rank, file=sys.stderr)") == 0
    assert capfd.readouterr() == ("out of 0\n", "told by 0\n")


def test_an_error_of_all_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "end_as(SeedpoError('no such\\nreward'))") == 1
    assert capfd.readouterr() == ("", "error: no such reward\n")


def test_what_a_user_can_mend_goes_before_what_followed_from_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = "end_as(SeedpoError('row 3 is broken') if rank == 1 else RuntimeError('connection closed by peer'))"
    assert run(tmp_path, code) == 1
    assert capfd.readouterr().err == "error: row 3 is broken\n"


def test_a_fault_is_one_traceback(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code = "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    end_as(error)"
    assert run(tmp_path, code) == 1
    errors = capfd.readouterr().err
    assert errors.count("Traceback") == 1
    assert errors.splitlines()[-1].endswith("failed: division by zero")


def test_one_that_is_killed_ends_the_others(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code = "os.kill(os.getpid(), signal.SIGKILL) if rank == 1 else time.sleep(600)"
    started = time.monotonic()
    assert run(tmp_path, code) == 128 + signal.SIGKILL
    assert time.monotonic() - started < 300
    message = "error: process 1 was ended by SIGKILL (often: memory ran out); "
    message += "run the command again to continue (training: with --resume latest)\n"
    assert capfd.readouterr().err == message


def test_one_that_ends_without_a_word_is_quoted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code = "print('a library gave up', file=sys.stderr) if rank else time.sleep(600); os._exit(7)"
    assert run(tmp_path, code) == 7
    assert capfd.readouterr().err == "a library gave up\nerror: process 1 ended with status 7\n"


def when(condition: Callable[[], bool], action: Callable[[], None]) -> threading.Thread:
    def wait() -> None:
        for _ in range(6000):
            if condition():
                return action()
            time.sleep(0.05)
        return None

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_reach_all(tmp_path: Path, number: signal.Signals) -> None:
    def ready() -> bool:
        return all((tmp_path / f"ready-{rank}").exists() for rank in (0, 1))

    before = signal.getsignal(number)
    thread = when(ready, lambda: os.kill(os.getpid(), number))
    assert run(tmp_path, f"wait_for_signal({int(number)})") == 3
    thread.join()
    assert all((tmp_path / f"stopped-{rank}").exists() for rank in (0, 1))
    assert signal.getsignal(number) == before, "handlers are put back"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux tells a process of its parent's death")
def test_processes_are_told_when_the_launcher_dies(tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(WORKER + "end_with_parent()\nwait_for_signal(signal.SIGTERM)")
    call = f"launch([{str(tmp_path)!r}], processes=2, command=[sys.executable, {str(script)!r}])"
    code = f"import sys; from seedpo.cli.launch import launch; {call}"
    launcher = subprocess.Popen([sys.executable, "-c", code])
    try:
        wait_until(lambda: all((tmp_path / f"ready-{rank}").exists() for rank in (0, 1)))
    finally:
        launcher.kill()
        launcher.wait()
    wait_until(lambda: all((tmp_path / f"stopped-{rank}").exists() for rank in (0, 1)))


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("waited a minute for it")


def test_another_launcher_is_not_contradicted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    launch.run_in_processes([], processes=2)  # returns: this is one of two already
    launch.run_in_processes([], processes=None)
    with pytest.raises(ConfigError, match="--processes 4 within a launch of 2 processes"):
        launch.run_in_processes([], processes=4)


def test_shards_within_another_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    """``torchrun ... seedpo train --shard`` is ``accelerate launch`` with ``fsdp2.yaml``."""
    variables = ("ACCELERATE_USE_FSDP", "FSDP_VERSION")
    for name in variables:
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("WORLD_SIZE", "2")
    launch.run_in_processes([], processes=None, shard=True)
    assert [os.environ[name] for name in variables] == ["true", "2"]
    monkeypatch.setenv("WORLD_SIZE", "1")
    with pytest.raises(ConfigError, match="nothing to share"):
        launch.run_in_processes([], processes=None, shard=True)
