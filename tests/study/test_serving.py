"""Serving on a real port, and the commands around it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from seedpo.cli.main import main
from seedpo.errors import ConfigError
from seedpo.study.serving import base_address, is_loopback, listen
from seedpo.study.store import Store
from tests.study.web_studies import ADMIN, make_study


def run(*arguments: str) -> None:
    """A command of seedpo; ends by SystemExit as the command line does."""
    with pytest.raises(SystemExit) as end:
        main(["study", *arguments])
    assert end.value.code in (0, None)


def test_links_serve_vote_and_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A server as a process: the address that it prints works, a vote is on disk after it was killed."""
    study = make_study(tmp_path / "s")
    run("links", str(tmp_path / "s"), "-n", "2", "--label", "team", "--out", str(tmp_path / "links.txt"))
    links = (tmp_path / "links.txt").read_text().split()
    assert len(links) == 2
    path = links[0].removeprefix("http://127.0.0.1:8000")
    command = [sys.executable, "-m", "seedpo", "study", "serve", str(tmp_path / "s"), "--port", "0"]
    environment = os.environ | {"PYTHONPATH": "src", "SEEDPO_ADMIN_TOKEN": ADMIN, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as server:
        try:
            assert server.stdout is not None
            first = server.stdout.readline()
            address = first.split()[1].rstrip("/")
            assert address.startswith("http://127.0.0.1:"), first
            with httpx.Client(base_url=address, trust_env=False) as client:
                for _ in range(6000):
                    try:
                        assert client.get("/healthz").text == "ok\n"
                        break
                    except httpx.TransportError:
                        time.sleep(0.05)
                state = client.get(f"{path}/task").json()
                body = {"show": state["task"]["show"], "side": "left", "key": "key-00000001", "seconds": 2.0}
                answer = client.post(f"{path}/vote", json=body, headers={"X-CSRF-Token": state["csrf"]})
                assert answer.json()["saved"] is True
                assert "server" not in answer.headers
                assert client.get("/admin", headers={"authorization": f"Bearer {ADMIN}"}).status_code == 200
        finally:
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


def test_links_are_private(tmp_path: Path) -> None:
    make_study(tmp_path / "s", prompts=("a fox",))
    run("links", str(tmp_path / "s"), "--out", str(tmp_path / "l"), "--base", "https://a.example/")
    assert (tmp_path / "l").read_text().startswith("https://a.example/r/")
    assert (tmp_path / "l").stat().st_mode & 0o777 == 0o600
