"""Serving on a real port, and the commands around it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from seedpo.cli.main import main
from seedpo.errors import ConfigError
from seedpo.servers.addresses import base_address, is_loopback, listen
from seedpo.study.votes.store import Store
from tests.study.web_studies import ADMIN, make_study


def run(*arguments: str) -> None:
    """A command of seedpo; ends by SystemExit as the command line does."""
    with pytest.raises(SystemExit) as end:
        main(["study", *arguments])
    assert end.value.code in (0, None)


@contextmanager
def serving_process(study: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server as a process, and its address; gone when the block ends."""
    command = [sys.executable, "-m", "seedpo", "study", "serve", str(study), *options]
    environment = os.environ | {"PYTHONPATH": "src", "SEEDPO_ADMIN_TOKEN": ADMIN, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as server:
        try:
            assert server.stdout is not None
            first = server.stdout.readline()
            address = first.split()[1].rstrip("/")
            assert address.startswith("http://127.0.0.1:"), first
            with httpx.Client(base_url=address, trust_env=False, timeout=60.0) as client:
                assert client.get("/healthz").text == "ok\n"
            yield server, address
        finally:
            if server.poll() is None:
                server.kill()


def answered(address: str, token: str) -> int:
    """Status of the admin page with a token, on a connection of its own."""
    return httpx.get(f"{address}/admin", headers={"authorization": f"Bearer {token}"}, trust_env=False).status_code


def test_links_serve_vote_and_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A server as a process: the address that it prints works, a vote is on disk after it was killed."""
    study = make_study(tmp_path / "s")
    run("links", str(tmp_path / "s"), "-n", "2", "--label", "team", "--out", str(tmp_path / "links.txt"))
    links = (tmp_path / "links.txt").read_text().split()
    assert len(links) == 2
    path = links[0].removeprefix("http://127.0.0.1:8000")
    with serving_process(tmp_path / "s", "--port", "0") as (server, address):
        with httpx.Client(base_url=address, trust_env=False) as client:
            state = client.get(f"{path}/task").json()
            body = {"show": state["task"]["show"], "side": "left", "key": "key-00000001", "seconds": 2.0}
            answer = client.post(f"{path}/vote", json=body, headers={"X-CSRF-Token": state["csrf"]})
            assert answer.json()["saved"] is True
            assert "server" not in answer.headers
        assert answered(address, ADMIN) == 200
        server.send_signal(signal.SIGKILL)
        said = server.stdout.read() if server.stdout else ""
    assert path not in said  # no log of visits, whose paths hold tokens
    store = Store.open(study)
    (judgement,) = store.judgements()
    store.close()
    assert judgement.seconds == 2.0
    capsys.readouterr()
    run("status", str(tmp_path / "s"))
    said = capsys.readouterr().out
    assert "2 raters, 1 have answered" in said
    assert "(team 1)" in said


def test_a_taken_port_and_a_foreign_address_are_one_line() -> None:
    listener = listen("127.0.0.1", 0)
    try:
        with pytest.raises(ConfigError, match="choose another with --port"):
            listen("127.0.0.1", listener.getsockname()[1])
    finally:
        listener.close()
    with pytest.raises(ConfigError, match=r"203\.0\.113\.1"):
        listen("203.0.113.1", 0)


def test_the_address_that_is_printed() -> None:
    assert base_address("127.0.0.1", 8000) == "http://127.0.0.1:8000"
    assert base_address("::1", 8000) == "http://[::1]:8000"
    assert base_address("0.0.0.0", 80, ["a.example"]) == "http://a.example:80"
    assert base_address("0.0.0.0", 80) == f"http://{socket.gethostname()}:80"
    assert is_loopback("127.0.0.1")
    assert is_loopback("localhost")
    assert not is_loopback("0.0.0.0")
    assert not is_loopback("study.example.org")


MISTAKES = {
    ("serve", "{tmp}/none"): "none",
    ("serve", "{tmp}/s", "--admin-token", "short"): "--admin-token",
    ("serve", "{tmp}/s", "--name", "*.example.org"): "--name *.example.org",
    ("links", "{tmp}/s", "--base", "example.org"): "--base example.org",
    ("links", "{tmp}/s", "--out", "{tmp}/s/study.yaml"): "study.yaml",
    ("status", "{tmp}/none"): "none",
}


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_study(tmp_path / "s", prompts=("a fox",))
    for arguments, message in MISTAKES.items():
        with pytest.raises(SystemExit) as end:
            main(["study", *(word.format(tmp=tmp_path) for word in arguments)])
        assert end.value.code == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert message in error
        assert error.count("\n") == 1


def test_links_follow_the_last_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = make_study(tmp_path / "s", prompts=("a fox",)).folder
    run("links", str(study))
    before = capsys.readouterr()
    assert before.out.startswith("http://127.0.0.1:8000/r/")
    assert before.err.startswith("note:")
    with serving_process(study, "--port", "0") as (_, address):
        run("links", str(study))
    assert capsys.readouterr().out.startswith(f"{address}/r/")
    with serving_process(study, "--port", "0", "--name", "study.example.org"):
        pass
    run("links", str(study))  # also after the server ended
    after = capsys.readouterr()
    assert after.out.startswith("https://study.example.org/r/")
    assert after.err == ""
    (study / ".server-address").write_text("javascript:alert(1)\n")
    run("links", str(study))
    assert capsys.readouterr().out.startswith("http://127.0.0.1:8000/r/")


def processes_of(parent: int) -> set[int]:
    """Server processes that a process has started."""
    tree = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(parent)], capture_output=True, text=True, check=True
    )
    return {int(line.split()[0]) for line in tree.stdout.splitlines() if "spawn_main" in line}


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60.0
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the processes are looked up as on Linux")
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_workers_share_the_port_are_replaced_and_end_together(tmp_path: Path, end: signal.Signals) -> None:
    study = make_study(tmp_path / "s", prompts=("a fox",)).folder
    with serving_process(study, "--port", "0", "--workers", "2") as (server, address):
        until(lambda: len(processes_of(server.pid)) == 2)
        first = processes_of(server.pid)
        for token in (ADMIN, "wrong"):
            answers = {answered(address, token) for _ in range(8)}
            assert answers == {200 if token == ADMIN else 401}
        os.kill(min(first), signal.SIGKILL)
        until(lambda: len(processes_of(server.pid)) == 2 and processes_of(server.pid) != first)
        assert answered(address, ADMIN) == 200
        last = processes_of(server.pid)
        server.send_signal(end)
        assert server.wait(30.0) == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[end]
        until(lambda: not any(Path(f"/proc/{process}").exists() for process in last))
        output = server.stdout.read() if server.stdout else ""
    assert "Traceback" not in output
    assert output.count("SIGKILL") == 1
    port = int(address.rpartition(":")[2])
    listen("127.0.0.1", port).close()


def test_links_are_private(tmp_path: Path) -> None:
    make_study(tmp_path / "s", prompts=("a fox",))
    run("links", str(tmp_path / "s"), "--out", str(tmp_path / "l"), "--base", "https://a.example/")
    assert (tmp_path / "l").read_text().startswith("https://a.example/r/")
    assert (tmp_path / "l").stat().st_mode & 0o777 == 0o600
