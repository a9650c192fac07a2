"""What all routes of the application share."""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import jinja2

from seedpo.study.errors import ENDED_LINK, NO_IMAGE, TOO_FAST, UNKNOWN_LINK, Refusal
from seedpo.study.folder import Study
from seedpo.study.paragraphs import blocks
from seedpo.study.records import Rater
from seedpo.study.security import Limits, Pace, Secret
from seedpo.study.store import Store


class Paces:
    """One pace for each kind of request; see :class:`Limits`."""

    def __init__(self, limits: Limits) -> None:
        self.requests = Pace(limits.requests, limits.requests_burst)
        self.images = Pace(limits.images, limits.images_burst)
        self.strangers = Pace(limits.strangers, limits.strangers_burst)
        self.logins = Pace(limits.logins, limits.logins_burst)


@dataclass(frozen=True, kw_only=True)
class Site:
    """A study on the web.

    Attributes:
        store: the study's votes.
        secret: the key from which tokens and names of images are made.
        admin_token: opens the admin page.
        paces: limits on requests.
        pages: the templates.
        version: of the static files, part of their addresses.
        preloads: images that each rater's browser was told to load ahead of time, by rater id.
    """

    store: Store
    secret: Secret
    admin_token: str
    paces: Paces
    pages: jinja2.Environment
    version: str
    preloads: dict[str, list[str]] = field(default_factory=dict)

    @property
    def study(self) -> Study:
        """The study with all groups that its folder has now."""
        return self.store.study

    def page(self, name: str, **values: Any) -> str:
        """A page from its template, with everything escaped."""
        title = self.study.settings.title
        return self.pages.get_template(f"{name}.html.j2").render(title=title, version=self.version, **values)

    def slow_down(self, pace: Pace, key: str = "") -> None:
        """Takes one request from a pace.

        Raises:
            Refusal: 429, with the time to wait.
        """
        wait = pace.wait(key)
        if wait:
            raise Refusal(429, TOO_FAST, wait=wait)

    def rater(self, token: str, *, pace: Pace | None = None) -> Rater:
        """The rater with this link.

        Raises:
            Refusal: the link is unknown or has ended, or too many requests came with it.
        """
        rater = self.store.rater(token) if len(token) <= 100 else None
        if rater is None:
            self.slow_down(self.paces.strangers)
            raise Refusal(404, UNKNOWN_LINK)
        self.slow_down(pace or self.paces.requests, rater.id)
        if rater.expired or rater.revoked:
            raise Refusal(410, ENDED_LINK)
        return rater

    def needs_consent(self, rater: Rater) -> bool:
        """Whether the rater still has to agree to the study's text."""
        return self.study.settings.asks_consent and not rater.consented

    def image(self, rater: Rater, name: str) -> bytes:
        """The image that a rater gets under a name.

        Raises:
            Refusal: the rater was not given such a name, or has not agreed yet.
        """
        image = None
        if not self.needs_consent(rater):
            names = ((image, self.secret.image_name(rater.id, image)) for image in self._images_of(rater.id))
            image = next((image for image, known in names if hmac.compare_digest(known.encode(), name.encode())), None)
        try:
            if image is not None:
                return self.study.image(image).read_bytes()
        except (OSError, LookupError, ValueError):
            pass
        raise Refusal(404, NO_IMAGE)

    def _images_of(self, rater_id: str) -> Iterator[str]:
        """Images that a rater has been shown, the latest first, or may load ahead of time."""
        yield from self.preloads.get(rater_id, ())
        for show in self.store.shows(rater_id):
            candidates = self.study.group(show.group).candidates
            yield from (image for index in show.order for image in candidates[index].images)
        if rater_id not in self.preloads:  # another process of the server may have given the names
            yield from self.images_ahead(rater_id)

    def images_ahead(self, rater_id: str) -> list[str]:
        """Images that a rater will probably see next, sorted by id: the order says nothing about sides."""
        study = self.study
        return sorted(
            {
                image
                for proposal in self.store.upcoming(rater_id)
                for index in proposal.order
                for image in study.group(proposal.group).candidates[index].images
            }
        )

    def is_admin(self, *, bearer: str, cookie: str) -> bool:
        """Whether a request may see the admin page: by the token itself or by the cookie of a login."""
        scheme, _, token = bearer.partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(token.strip().encode(), self.admin_token.encode()):
            return True
        return self.secret.is_session(self.admin_token, cookie)


def templates() -> jinja2.Environment:
    """The pages' templates; they escape everything, and an unknown name is an error."""
    pages = jinja2.Environment(
        loader=jinja2.PackageLoader("seedpo.study", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters["blocks"] = blocks
    return pages
