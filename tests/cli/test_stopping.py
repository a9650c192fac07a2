"""Signals that come where no training loop waits for them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from seedpo.cli import main
from seedpo.cli.stopping import SIGNALS, ended_in_one_line


@pytest.fixture(autouse=True)
def usual_handlers() -> Iterator[None]:
    """As in a terminal: a shell's background jobs inherit SIGINT as ignored."""
    before = {
        number: signal.signal(number, usual)
        for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL))
    }
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def strike(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(60.0)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_train_that_is_not_in_its_loop_ends_in_one_line(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("seedpo.training.configuration.resolve_config", lambda *_: strike(number))
    before = [signal.getsignal(known) for known in SIGNALS]
    with pytest.raises(SystemExit) as ended:
        main(["train", "diffusion-dpo", "--out", "never"])
    assert ended.value.code == 128 + number
    (line,) = capsys.readouterr().err.splitlines()
    assert number.name in line
    assert [signal.getsignal(known) for known in SIGNALS] == before


def test_what_a_module_swallows_still_ends_the_process(tmp_path: Path) -> None:
    module = (
        "import os, time\ntry:\n    os.kill(os.getpid(), 15)\n    time.sleep(60)\nexcept BaseException:\n    pass\n"
    )
    (tmp_path / "swallowing.py").write_text(module, encoding="utf-8")
    code = (
        f"import sys; from seedpo.cli.stopping import ended_in_one_line\nsys.path.append({str(tmp_path)!r})\n"
        "with ended_in_one_line():\n    import swallowing\nprint('it went on')\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (128 + signal.SIGTERM, "")
    assert len(ended.stderr.splitlines()) == 1


def test_a_launched_process_tells_its_launcher() -> None:
    lines: list[str] = []
    with pytest.raises(SystemExit), ended_in_one_line(lines.append):
        strike(signal.SIGTERM)
    assert len(lines) == 1


def test_who_ignores_a_signal_still_does() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with ended_in_one_line():
            os.kill(os.getpid(), signal.SIGINT)
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_change_no_handler() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[object] = []

    def enter() -> None:
        with ended_in_one_line():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [before]
