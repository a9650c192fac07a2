"""Simulated raters against the real application on a loopback port."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from PIL import Image

from seedpo.study.records import Side
from seedpo.study.simulated import SimulatedRater, SimulationError, Task, Vote, simulate
from tests.study.web.browser.site import Site, make_study, served


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with served(make_study(tmp_path / "study")) as site:
        yield site


def token(site: Site) -> str:
    return site.link().rsplit("/", 1)[1]


def greener(task: Task, items: Sequence[Sequence[Image.Image]]) -> Side:
    """The side whose first pixel is greener."""
    left, right = items
    return "left" if left[0].getpixel((0, 0))[1] > right[0].getpixel((0, 0))[1] else "right"


def test_raters_answer_all_that_there_is_and_see_the_images_of_the_study(site: Site) -> None:
    tokens = [token(site) for _ in range(3)]
    told: list[Vote] = []
    votes = simulate(site.url, tokens, greener, on_vote=told.append)
    assert [vote.rater for vote in votes] == [number for number in range(3) for _ in range(6)]
    assert sorted(told, key=lambda vote: vote.show) == sorted(votes, key=lambda vote: vote.show)
    stored = {judgement.show.token: judgement for judgement in site.judgements()}
    assert set(stored) == {vote.show for vote in votes}
    for judgement in stored.values():
        first, second = (
            Image.open(site.study.image(candidate.images[0])).getpixel((0, 0))[1]
            for candidate in (judgement.first, judgement.second)
        )
        assert judgement.answer == ("first" if first > second else "second")
        assert judgement.seconds is not None


def test_a_rater_stops_after_the_wanted_votes_and_goes_on_later(site: Site) -> None:
    tokens = [token(site)]
    first = simulate(site.url, tokens, greener, votes=2, timed=False)
    second = simulate(site.url, tokens, greener, timed=False)
    assert (len(first), len(second)) == (2, 4)
    assert len({vote.show for vote in first + second}) == 6
    assert all(judgement.seconds is None for judgement in site.judgements())


def test_nobody_is_simulated_without_links(site: Site) -> None:
    assert simulate(site.url, [], greener) == []


def test_a_vote_whose_answer_is_lost_is_sent_again_and_counts_once(site: Site) -> None:
    """The server stores it, and the connection ends before the acknowledgement arrives."""
    with Relay(site, lose={"POST"}) as (url, lost), SimulatedRater(url, token(site)) as rater:
        rater.begin()
        task = rater.task()
        assert task is not None
        vote, following = rater.vote(task, "left")
        assert len(lost) == 1, "the first acknowledgement did not arrive"
    assert vote.attempts == 2
    assert following is not None
    assert following.show != task.show
    assert [judgement.show.token for judgement in site.judgements()] == [task.show]


def test_what_the_server_refuses_is_told_without_the_secret_of_the_link(site: Site) -> None:
    wrong = "x" * 43
    with SimulatedRater(site.url, wrong, number=7, patience=0.2) as rater:
        with pytest.raises(SimulationError, match=r"rater 7: page: 404: \S+") as refused:
            rater.begin()
    assert wrong not in str(refused.value)


def test_a_server_that_stays_away_is_told() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with SimulatedRater(f"http://127.0.0.1:{port}", "x", patience=0.1) as rater:
        with pytest.raises(SimulationError, match="page: ConnectError"):
            rater.begin()


class Relay:
    """Passes connections on to a site, and drops the answer to every first request of the wanted kind.

    Every second one of them arrives, so that the repetition does.
    """

    def __init__(self, site: Site, *, lose: set[str]) -> None:
        self._target = ("127.0.0.1", int(site.url.rsplit(":", 1)[1]))
        self._lose = lose
        self._turns = itertools.count()
        self.lost: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> tuple[str, list[str]]:
        self._threads.append(threading.Thread(target=self._accept))
        self._threads[0].start()
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}", self.lost

    def __exit__(self, *exception: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10.0)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._relay, args=(client,))
            self._threads.append(thread)
            thread.start()

    def _relay(self, client: socket.socket) -> None:
        with client:
            while request := _message(client):
                with socket.create_connection(self._target) as server:
                    server.sendall(request)
                    answer = _message(server)
                method = request.split(b" ", 1)[0].decode()
                if b"/vote" in request and method in self._lose and next(self._turns) % 2 == 0:
                    self.lost.append(method)
                    return
                client.sendall(answer)


def _message(connection: socket.socket) -> bytes:
    """One HTTP message with its body."""
    content = b""
    while b"\r\n\r\n" not in content:
        part = connection.recv(65536)
        if not part:
            return b""
        content += part
    head, _, body = content.partition(b"\r\n\r\n")
    length = next(
        (int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
    )
    while len(body) < length:
        part = connection.recv(65536)
        content, body = content + part, body + part
    return content
