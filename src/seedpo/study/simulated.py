"""Simulated raters: they do over HTTP what a rater's browser does, for tests, demonstrations and load measurements.

A simulated rater opens the personal link, agrees, fetches the task and its images, and sends each answer with its own
key. If an answer is not acknowledged (connection lost, server restarted, too many requests), the rater sends it again
with the same key, as the page does.
"""

from __future__ import annotations

import random
import re
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from PIL import Image

from seedpo.data.images.rgb import decoded
from seedpo.errors import SeedpoError
from seedpo.study.records import Form, Side

try:
    import httpx
except ModuleNotFoundError as error:  # pragma: no cover - the extra is part of the development environment
    raise SeedpoError("simulated raters need httpx: pip install 'seedpo[study]'") from error

_FIRST_WAIT = 0.05
_LONGEST_WAIT = 1.0


class SimulationError(SeedpoError):
    """A study server that does not answer a simulated rater, or refuses it."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What the server shows a rater.

    Attributes:
        rater: number of the simulated rater, from 0, so that a judge can treat raters differently.
        show: token of the show.
        question: text of the question.
        prompt: what the images were drawn from.
        layout: one image for each candidate, or a set whose first image is the reference.
        form: how the question is asked.
        items: addresses of the images of each candidate, in their order on the screen.
        choices: possible answers.
    """

    rater: int
    show: str
    question: str
    prompt: str
    layout: Literal["image", "set"]
    form: Form
    items: tuple[tuple[str, ...], ...]
    choices: tuple[Side, ...]


@dataclass(frozen=True, kw_only=True)
class Vote:
    """An answer that the server has acknowledged.

    Attributes:
        rater: number of the simulated rater.
        show: token of the show.
        key: of the answer, the same in all attempts.
        side: the answer.
        attempts: requests until the acknowledgement.
    """

    rater: int
    show: str
    key: str
    side: Choice
    attempts: int


Choice = Side | tuple[int, int]
"""A simulated rater's answer; a tuple holds the places of the best and the worst candidate."""


class Judge(Protocol):
    """Decides by looking."""

    def __call__(self, task: Task, items: Sequence[Sequence[Image.Image]]) -> Choice:
        """The answer; several threads call this at the same time."""


Observer = Callable[[str, float], None]
"""Called after each successful request with its kind (page, task, image, vote) and its duration in seconds."""


class SimulatedRater:
    """One rater with a connection of its own.

    Args:
        base_url: address of the server, such as ``http://127.0.0.1:8000``.
        token: of the personal link.
        number: of this rater, from 0.
        patience: seconds for which a failing request is repeated.
        observer: called after each request.
    """

    def __init__(
        self, base_url: str, token: str, *, number: int = 0, patience: float = 30.0, observer: Observer | None = None
    ) -> None:
        self._home = f"/r/{token}"
        self._number = number
        self._patience = patience
        self._observer = observer
        self._csrf = ""
        self._client = httpx.Client(base_url=base_url, timeout=max(patience, 1.0), trust_env=False)

    def __enter__(self) -> SimulatedRater:
        return self

    def __exit__(self, *exception: object) -> None:
        self._client.close()

    def begin(self) -> None:
        """Opens the personal link, and agrees if the study asks for consent.

        Raises:
            SimulationError: the link is not valid, or the server cannot be reached.
        """
        page, _ = self._request("page", "GET", self._home)
        fields = _form_fields(page.text, "consent")
        if fields is not None:
            self._request("page", "POST", f"{self._home}/consent", data=fields)

    def task(self) -> Task | None:
        """The open task; `None` if all is done."""
        answer, _ = self._request("task", "GET", f"{self._home}/task")
        content = answer.json()
        self._csrf = content["csrf"]
        return self._read_task(content["task"])

    def images(self, addresses: Sequence[str]) -> list[Image.Image]:
        """Fetches and decodes images."""
        answers = (self._request("image", "GET", address) for address in addresses)
        return [decoded(answer.content) for answer, _ in answers]

    def vote(self, task: Task, side: Choice, *, seconds: float | None = None) -> tuple[Vote, Task | None]:
        """Sends an answer until it is acknowledged, always with the same key.

        Args:
            task: what is answered.
            side: the answer.
            seconds: between display and answer.

        Returns:
            The acknowledged vote, and the next task; `None` if all is done.

        Raises:
            SimulationError: the server refuses, or ``patience`` is over.
        """
        key = str(uuid.uuid4())
        best, worst = (None, None) if isinstance(side, str) else side
        answer_of_page = side if isinstance(side, str) else "ranked"
        body = {"show": task.show, "side": answer_of_page, "key": key, "seconds": seconds, "best": best, "worst": worst}
        headers = {"X-CSRF-Token": self._csrf}
        answer, attempts = self._request("vote", "POST", f"{self._home}/vote", json=body, headers=headers)
        content = answer.json()
        if content.get("saved") is not True:
            raise SimulationError(f"the server did not save a vote: {content}")
        vote = Vote(rater=self._number, show=task.show, key=key, side=side, attempts=attempts)
        return vote, self._read_task(content["task"])

    def _read_task(self, content: Mapping[str, Any] | None) -> Task | None:
        if content is None:
            return None
        values: dict[str, Any] = {name: content[name] for name in Task.__dataclass_fields__ if name != "rater"}
        values["choices"], values["items"] = tuple(values["choices"]), tuple(map(tuple, values["items"]))
        return Task(rater=self._number, **values)

    def _request(self, kind: str, method: str, address: str, **content: Any) -> tuple[httpx.Response, int]:
        """One request, repeated while the server cannot be reached, fails or asks to wait."""
        end = time.monotonic() + self._patience
        wait, attempts = _FIRST_WAIT, 0
        while True:
            attempts += 1
            start = time.perf_counter()
            try:
                answer = self._client.request(method, address, **content)
                trouble = _trouble(answer)
                again = answer.status_code == 429 or answer.status_code >= 500
            except httpx.TransportError as error:
                trouble, again = f"{type(error).__name__}: {error}", True
            if not trouble:
                if self._observer is not None:
                    self._observer(kind, time.perf_counter() - start)
                return answer, attempts
            if not again or time.monotonic() + wait > end:
                # Without the address, which contains the rater's secret token.
                raise SimulationError(f"simulated rater {self._number}: {kind}: {trouble}")
            time.sleep(wait)
            wait = min(2.0 * wait, _LONGEST_WAIT)


def simulate(
    base_url: str,
    tokens: Sequence[str],
    judge: Judge,
    *,
    votes: int | None = None,
    pause: float = 0.0,
    seed: int = 0,
    timed: bool = True,
    patience: float = 30.0,
    observer: Observer | None = None,
    on_vote: Callable[[Vote], None] | None = None,
) -> list[Vote]:
    """Lets one simulated rater per token answer until nothing is left, all at the same time, one thread each.

    Args:
        base_url: address of the server.
        tokens: of the personal links.
        judge: decides.
        votes: limit of answers per rater; `None`: everything that the study has for the rater.
        pause: mean of the exponentially distributed seconds between display and answer; 0: none.
        seed: of the pauses.
        timed: send how long an answer took; raters without a pause would look careless.
        patience: seconds for which a failing request is repeated.
        observer: called after each request.
        on_vote: called with each acknowledged vote, by one thread at a time.

    Returns:
        The acknowledged votes, by rater and in the order of the answers.

    Raises:
        SimulationError: a rater is refused, or the server stays away for longer than ``patience``.
    """
    turn = threading.Lock()

    def rate(number: int) -> list[Vote]:
        pauses = random.Random(f"{seed}:{number}")
        own_votes: list[Vote] = []
        with SimulatedRater(base_url, tokens[number], number=number, patience=patience, observer=observer) as rater:
            rater.begin()
            task = rater.task()
            while task is not None and (votes is None or len(own_votes) < votes):
                start = time.monotonic()
                side = judge(task, [rater.images(item) for item in task.items])
                if pause > 0.0:
                    time.sleep(pauses.expovariate(1.0 / pause))
                vote, task = rater.vote(task, side, seconds=time.monotonic() - start if timed else None)
                own_votes.append(vote)
                if on_vote is not None:
                    with turn:
                        on_vote(vote)
        return own_votes

    if not tokens:
        return []
    with ThreadPoolExecutor(max_workers=len(tokens), thread_name_prefix="rater") as pool:
        return [vote for own_votes in pool.map(rate, range(len(tokens))) for vote in own_votes]


def _trouble(answer: httpx.Response) -> str:
    """What is wrong with an answer, in the server's words; empty if nothing is."""
    if answer.status_code < 400:
        return ""
    try:
        sentence = answer.json()["error"]
    except (ValueError, KeyError, TypeError):
        sentence = answer.reason_phrase
    return f"{answer.status_code}: {sentence}"


def _form_fields(page: str, form: str) -> dict[str, str] | None:
    """Names and values of the inputs of a form, by its id; `None` if the page has no such form."""
    match = re.search(rf'<form[^>]* id="{form}".*?</form>', page, re.DOTALL)
    return dict(re.findall(r'name="([^"]+)" value="([^"]*)"', match[0])) if match else None
