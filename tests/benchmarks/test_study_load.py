"""The load run's raters do what a browser does, and what became of their votes is found out."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette")

from benchmarks.study_load import KILLS, RESTARTS, Strikes, latencies, make_study, table, verdict
from benchmarks.study_raters import Pace, Run, rate
from seedpo.study.votes.store import Store
from seedpo.study.web.serving import serving_aside


def test_raters_load_each_image_once_and_their_votes_are_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.study_load.IMAGES", 8)
    study = make_study(tmp_path / "study", pairs=6, each=4, url=None)
    with Store.open(study) as store:
        tokens = [token for _, token in store.add_raters(["a", "b", "c"])]
    with serving_aside(study.folder) as address:
        run = asyncio.run(rate(address, tokens, Pace(votes=4)))
    assert run.failures == []
    assert capsys.readouterr().out.split()[0] == "0"
    kinds = Counter(kind for kind, _ in run.waits)
    assert kinds["vote"] == len(run.votes) == 12
    assert kinds["task"] == 3
    assert kinds["page"] == 9  # the consent, before and after it
    assert kinds["file"] >= 9  # style, script, icon
    assert 3 * 2 <= kinds["image"] <= 3 * 8
    given = [asdict(vote) for vote in run.votes]
    clean = verdict(study, given)
    assert set(clean.values()) == {0}
    forged = [*given, given[0] | {"show": "unknown"}]
    forged[1] = given[1] | {"side": "left" if given[1]["side"] != "left" else "right"}
    assert verdict(study, forged) | {"doubled": 0} == clean | {"lost": 1, "changed": 1}
    assert verdict(study, given[:-1])["doubled"] == 1
    assert latencies(run.waits)["vote_requests"] == 12


def test_a_rater_asks_again_with_the_same_key_after_a_broken_connection(capsys: pytest.CaptureFixture[str]) -> None:
    """A server that breaks off every second answer."""
    requests: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(body: str, csrf: str = "") -> bytes:
        content = f'{{"saved": true, "csrf": "c", "preload": [], "task": {body}}}'
        return f"HTTP/1.1 200 OK\r\ncontent-length: {len(content)}\r\n\r\n{content}".encode()

    def serve() -> None:
        task = '{"show": "s", "items": [], "choices": ["left"]}'
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                while request := connection.recv(65536):
                    requests.append(request)
                    if len(requests) % 2:
                        break
                    connection.sendall(answer(task))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    run = asyncio.run(rate(address, ["token"], Pace(votes=2, patience=30.0)))
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    capsys.readouterr()
    assert run.failures == []
    assert [vote.attempts for vote in run.votes] == [2, 2]
    bodies = [request.partition(b"\r\n\r\n")[2] for request in requests if request.startswith(b"POST")]
    assert bodies[0] == bodies[1] != bodies[2] == bodies[3]


def test_a_refused_rater_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = make_study(tmp_path / "study", pairs=1, each=1, url=None)
    with serving_aside(study.folder) as address:
        run: Run = asyncio.run(rate(address, ["no-such-link"], Pace(votes=1)))
    capsys.readouterr()
    assert len(run.failures) == 1
    assert run.votes == []


class Noted:
    """A server or a database that notes what is done to it."""

    def __init__(self) -> None:
        self.acts: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: self.acts.append(" ".join((name, *arguments)))


def test_strikes_are_spread_over_the_votes() -> None:
    server, database = Noted(), Noted()
    strikes = Strikes(server, database, planned=700)  # type: ignore[arg-type]
    strikes.strike(99)
    assert server.acts == []
    for given in range(100, 700):
        strikes.strike(given)
    assert (strikes.kills, strikes.restarts) == (KILLS, RESTARTS)
    assert server.acts == ["kill", "start"] * KILLS
    assert database.acts == ["stop fast", "start", "stop immediate", "start"] * (RESTARTS // 2)
    calm = Strikes(server, database, planned=None)  # type: ignore[arg-type]
    calm.strike(10_000)
    assert calm.kills == calm.restarts == 0


def test_the_table_has_a_row_for_each_run() -> None:
    shares = {f"{part}_milliseconds_per_vote": 1.0 for part in ("server", "database", "raters")}
    counts = dict.fromkeys(("raters", "votes", "votes_per_second", "down_seconds", "sent_again"), 0)
    rows = table([{"database": "sqlite", "run": "chaos", "lost": 7, "doubled": 0} | shares | counts])
    assert len({len(row) for row in rows}) == 1
    assert rows[1][rows[0].index("lost")] == "7"
