"""What all routes of the application share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

import jinja2
from starlette.requests import Request

from seedpo.errors import DataError
from seedpo.study.errors import ENDED_LINK, NO_IMAGE, OLD_PAGE, TOO_FAST, UNKNOWN_LINK, Refusal, UnknownRater
from seedpo.study.folder import Study
from seedpo.study.records import Rater
from seedpo.study.settings import StudySettings
from seedpo.study.votes.store import Store
from seedpo.study.web.gallery import Gallery
from seedpo.study.web.paragraphs import blocks
from seedpo.study.web.security import Limits, Pace, Secret, is_same, network
from seedpo.study.web.sessions import Sessions
from seedpo.study.web.threads import Outage, Threads
from seedpo.study.web.visitors import Visitors

Result = TypeVar("Result")

SLOWED = 64
"""Wrong admin tokens that wait for their answers at the same time."""


class Paces:
    """One pace for each kind of request; see :class:`Limits`."""

    def __init__(self, limits: Limits) -> None:
        self.requests = Pace(limits.requests, limits.requests_burst)
        self.images = Pace(limits.images, limits.images_burst)
        self.strangers = Pace(limits.strangers, limits.strangers_burst)
        self.guesses = Pace(limits.guesses, limits.guesses_burst)
        self.all_guesses = Pace(limits.all_guesses, limits.all_guesses_burst)
        self.guess_seconds = limits.guess_seconds
        self.slowed = asyncio.Semaphore(SLOWED)


@dataclass(frozen=True, kw_only=True)
class Site:
    """A study on the web.

    Attributes:
        store: the study's votes.
        settings: of the study.
        secret: the key from which tokens and names of images are made.
        admin_token: opens the admin page.
        sessions: of the owner.
        paces: limits on requests.
        pages: the templates.
        version: of the static files, part of their addresses.
        reads, writes, files: threads in which the store is read and written, and files are. None waits for another.
        gallery: the images.
        visitors: raters who were here lately.
        outage: what the log says when the store fails.
    """

    store: Store
    settings: StudySettings
    secret: Secret
    admin_token: str
    sessions: Sessions
    paces: Paces
    pages: jinja2.Environment
    version: str
    reads: Threads
    writes: Threads
    files: Threads
    gallery: Gallery
    visitors: Visitors
    outage: Outage

    def page(self, name: str, **values: Any) -> str:
        """A page from its template, with everything escaped."""
        template = self.pages.get_template(f"{name}.html.j2")
        return template.render(title=self.settings.title, version=self.version, **values)

    async def read(self, call: Callable[..., Result], *arguments: object) -> Result:
        """What a call returns that reads the store."""
        result = await self.reads.run(call, *arguments)
        self.outage.succeeded()
        return result

    async def write(self, call: Callable[..., Result], *arguments: object) -> Result:
        """What a call returns that writes to the store."""
        result = await self.writes.run(call, *arguments)
        self.outage.succeeded()
        return result

    async def stored(self, future: Future[Result]) -> Result:
        """What comes of a rater's request, as soon as it is on the disk.

        Raises:
            Refusal: the rater's data were deleted.
        """
        try:
            result = await asyncio.wrap_future(future)
        except UnknownRater:
            raise Refusal(404, UNKNOWN_LINK) from None
        self.outage.succeeded()
        return result

    async def study_with(self, *, group: str = "", image: str = "") -> Study:
        """The study, read again if the groups that this process knows lack a group or an image."""
        study = self.store.known_study
        if (group and group not in study.by_id) or (image and image not in study.images):
            return await self.read(lambda: self.store.study)
        return study

    def slow_down(self, pace: Pace, key: str = "") -> None:
        """Takes one request from a pace.

        Raises:
            Refusal: 429, with the time to wait.
        """
        wait = pace.wait(key)
        if wait:
            raise Refusal(429, TOO_FAST, wait=wait)

    def require_form_token(self, holder: str, token: str) -> None:
        """Checks what only a page of this site knows.

        Raises:
            Refusal: 403.
        """
        if not self.secret.is_form_token(holder, token):
            raise Refusal(403, OLD_PAGE)

    # Raters.

    async def rater_id(self, token: str) -> str:
        """The id of the rater with this link, which may have ended: the store knows, and says so.

        Raises:
            Refusal: the link is unknown, or too many requests came with it.
        """
        name = await self.visitors.id(token)
        if name is None:
            raise self._unknown()
        self.slow_down(self.paces.requests, name)
        return name

    async def rater(self, token: str) -> Rater:
        """The rater with this link, as the store knows the rater now.

        Raises:
            Refusal: the link is unknown or has ended, or too many requests came with it.
        """
        return self._allowed(await self.visitors.look_up(token), self.paces.requests)

    def needs_consent(self, rater: Rater) -> bool:
        """Whether the rater still has to agree to the study's text."""
        return self.settings.asks_consent and not rater.consented

    async def image(self, token: str, name: str) -> bytes:
        """The image that a rater got under a name. It is sent also while the database does not answer.

        Raises:
            Refusal: the rater was not given such a name, or has not agreed yet; or as :meth:`rater`.
        """
        rater = await self.visitors.lately(token)
        if rater is not None and self.needs_consent(rater):
            rater = await self.visitors.look_up(token)
        rater = self._allowed(rater, self.paces.images)
        image = None if self.needs_consent(rater) else self.secret.image_of(rater.id, name)
        if image is None:
            raise Refusal(404, NO_IMAGE)
        try:
            return await self.gallery.file((await self.study_with(image=image)).image(image))
        except (OSError, DataError):
            raise Refusal(404, NO_IMAGE) from None

    def _allowed(self, rater: Rater | None, pace: Pace) -> Rater:
        if rater is None:
            raise self._unknown()
        self.slow_down(pace, rater.id)
        if rater.expired or rater.revoked:
            raise Refusal(410, ENDED_LINK)
        return rater

    def _unknown(self) -> Refusal:
        self.slow_down(self.paces.strangers)
        return Refusal(404, UNKNOWN_LINK)

    # The owner.

    def is_admin_token(self, token: str) -> bool:
        """Whether a token opens the admin page."""
        return is_same(token, self.admin_token)

    async def slow_down_guess(self, request: Request) -> None:
        """Takes a wrong admin token from the paces of its network and of everybody; over them, it waits.

        A right token is accepted before, so nobody can keep the owner out.

        Raises:
            Refusal: 429, with the time to wait.
        """
        try:
            self.slow_down(self.paces.guesses, network(request.client.host if request.client else ""))
            self.slow_down(self.paces.all_guesses)
        except Refusal:
            if not self.paces.slowed.locked():  # a flood must not hold connections that raters need
                async with self.paces.slowed:
                    await asyncio.sleep(self.paces.guess_seconds)
            raise

    def close(self) -> None:
        """Ends the threads, and closes the store."""
        for threads in (self.reads, self.writes, self.files):
            threads.close()
        self.store.close()


def wants_page(request: Request) -> bool:
    """Whether a browser asks for a page; scripts get JSON."""
    return "text/html" in request.headers.get("accept", "")


def templates() -> jinja2.Environment:
    """The pages' templates; they escape everything, and an unknown name is an error."""
    pages = jinja2.Environment(
        loader=jinja2.PackageLoader("seedpo.study.web", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters["blocks"] = blocks
    return pages
