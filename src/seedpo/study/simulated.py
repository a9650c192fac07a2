"""Simulated raters: they do over HTTP what a rater's browser does, for tests, demonstrations and load runs.

A simulated rater opens the personal link, agrees, fetches the task and its images, and answers with a key of its own
for each answer; where an answer is not acknowledged (connection lost, server restarted, too many requests), it sends
the same answer with the same key again, as the page does.
"""

from __future__ import annotations

import io
import random
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any, Literal, Protocol

from PIL import Image

from seedpo.errors import SeedpoError
from seedpo.study.records import Side

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
    """What the server lays before a rater.

    Attributes:
        rater: number of the simulated rater, from 0, so that a judge can have raters that differ.
        show: token of the show.
        question: text of the question.
        prompt: what the images were drawn from.
        layout: one image of each side, or a set of which the first is the reference.
        left, right: addresses of the images.
        choices: what may be answered.
    """

    rater: int
    show: str
    question: str
    prompt: str
    layout: Literal["image", "set"]
    left: tuple[str, ...]
    right: tuple[str, ...]
    choices: tuple[Side, ...]


@dataclass(frozen=True, kw_only=True)
class Vote:
    """An answer that the server has acknowledged.

    Attributes:
        rater: number of the simulated rater.
        show: what was answered.
        key: of the answer; the same for all attempts.
        side: the answer.
        attempts: requests until the acknowledgement.
    """

    rater: int
    show: str
    key: str
    side: Side
    attempts: int


class Judge(Protocol):
    """Decides from what is seen."""

    def __call__(self, task: Task, left: Sequence[Image.Image], right: Sequence[Image.Image]) -> Side:
        """The answer; called from several threads at the same time."""


Observer = Callable[[str, float], None]
"""Told of each request that succeeded: its kind (page, task, image, vote) and how long it took in seconds."""


class SimulatedRater:
    """One rater with an own connection.

    Args:
        base_url: address of the server, such as ``http://127.0.0.1:8000``.
        token: of the personal link.
        number: of this rater, from 0.
        patience: seconds for which a request that fails is tried again.
        observer: told of each request.
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
        self.close()

    def close(self) -> None:
        """Closes the connection."""
        self._client.close()

    def begin(self) -> None:
        """Opens the personal link, and agrees if consent is asked for.

        Raises:
            SimulationError: if the link is not valid or the server cannot be reached.
        """
        page, _ = self._request("page", "GET", self._home)
        fields = _form_fields(page.text, "consent")
        if fields is not None:
            self._request("page", "POST", f"{self._home}/consent", data=fields)

    def task(self) -> Task | None:
        """The task that is open; none if all is done."""
        answer, _ = self._request("task", "GET", f"{self._home}/task")
        content = answer.json()
        self._csrf = content["csrf"]
        return self._read_task(content["task"])

    def images(self, addresses: Sequence[str]) -> list[Image.Image]:
        """Fetches and decodes images."""
        images = []
        for address in addresses:
            answer, _ = self._request("image", "GET", address)
            with Image.open(io.BytesIO(answer.content)) as image:
                images.append(image.convert("RGB"))
        return images

    def vote(self, task: Task, side: Side, *, seconds: float | None = None) -> tuple[Vote, Task | None]:
        """Answers, again and again with the same key until it is acknowledged.

        Args:
            task: what is answered.
            side: the answer.
            seconds: between display and answer.

        Returns:
            The acknowledged vote and the next task, none if all is done.

        Raises:
            SimulationError: if the server refuses, or ``patience`` is over.
        """
        key = str(uuid.uuid4())
        body = {"show": task.show, "side": side, "key": key, "seconds": seconds}
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
        return Task(
            rater=self._number,
            show=content["show"],
            question=content["question"],
            prompt=content["prompt"],
            layout=content["layout"],
            left=tuple(content["left"]),
            right=tuple(content["right"]),
            choices=tuple(content["choices"]),
        )

    def _request(self, kind: str, method: str, address: str, **content: Any) -> tuple[httpx.Response, int]:
        """One request, repeated while the server cannot be reached, is in trouble or asks to wait."""
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
                # The address holds the rater's token, which is a secret: it is not part of the message.
                raise SimulationError(f"simulated rater {self._number}: {kind}: {trouble}")
            time.sleep(wait)
            wait = min(2.0 * wait, _LONGEST_WAIT)


def join(base_url: str) -> str:
    """Enrols in a study that is open to whoever comes, as the form of its first page does.

    Returns:
        The token of the new personal link.

    Raises:
        SimulationError: if the study has personal links only, or the server cannot be reached.
    """
    with httpx.Client(base_url=base_url, timeout=30.0, trust_env=False) as client:
        try:
            page = client.get("/")
            fields = _form_fields(page.text, "join")
            answer = client.post("/join", data=fields or {})
        except httpx.TransportError as error:
            raise SimulationError(f"no study answers at {base_url}: {error}") from error
    target = answer.headers.get("location", "")
    if answer.status_code != 303 or "/r/" not in target:
        raise SimulationError(f"the study at {base_url} enrols by personal link only: {_trouble(answer)}")
    return str(target).rsplit("/r/", 1)[1].strip("/")


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
    """Lets one simulated rater per token answer until nothing is left, all at the same time, a thread for each.

    Args:
        base_url: address of the server.
        tokens: of the personal links.
        judge: decides.
        votes: at most so many answers of each rater; none: all that the study has for it.
        pause: mean seconds between the display and the answer, exponentially distributed; 0: at once.
        seed: of the pauses.
        timed: whether they tell how long an answer took; raters without a pause would look careless.
        patience: seconds for which a request that fails is tried again.
        observer: told of each request.
        on_vote: told of each vote as soon as it is acknowledged; called by one thread at a time.

    Returns:
        The acknowledged votes, by rater and in the order of the answers.

    Raises:
        SimulationError: if a rater is refused, or the server stays away for longer than ``patience``.
    """
    turn = threading.Lock()

    def told(vote: Vote) -> None:
        if on_vote is not None:
            with turn:
                on_vote(vote)

    def rate(number: int) -> list[Vote]:
        waits = random.Random(f"{seed}:{number}")
        given: list[Vote] = []
        with SimulatedRater(base_url, tokens[number], number=number, patience=patience, observer=observer) as rater:
            rater.begin()
            task = rater.task()
            while task is not None and (votes is None or len(given) < votes):
                start = time.monotonic()
                side = judge(task, rater.images(task.left), rater.images(task.right))
                if pause > 0.0:
                    time.sleep(waits.expovariate(1.0 / pause))
                vote, task = rater.vote(task, side, seconds=time.monotonic() - start if timed else None)
                told(vote)
                given.append(vote)
        return given

    if not tokens:
        return []
    with ThreadPoolExecutor(max_workers=len(tokens), thread_name_prefix="rater") as pool:
        return [vote for own in pool.map(rate, range(len(tokens))) for vote in own]


def _trouble(answer: httpx.Response) -> str:
    """What is wrong with an answer, as the server says it; empty if nothing is."""
    if answer.status_code < 400:
        return ""
    try:
        said = answer.json()["error"]
    except (ValueError, KeyError, TypeError):
        said = answer.reason_phrase
    return f"{answer.status_code}: {said}"


def _form_fields(page: str, form: str) -> dict[str, str] | None:
    """Names and values of the inputs of a form, by its id; none if the page has no such form."""
    reader = _FormReader(form)
    reader.feed(page)
    return reader.fields


class _FormReader(HTMLParser):
    def __init__(self, form: str) -> None:
        super().__init__()
        self.fields: dict[str, str] | None = None
        self._form = form
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        if tag == "form" and known.get("id") == self._form:
            self.fields, self._inside = {}, True
        elif tag in ("input", "button") and self._inside and self.fields is not None and known.get("name"):
            self.fields[str(known["name"])] = known.get("value") or "on"

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._inside = False
