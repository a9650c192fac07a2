"""What all routes of the application share."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Any

import jinja2

from seedpo.study.folder import Study
from seedpo.study.refusals import ENDED_LINK, TOO_FAST, UNKNOWN_LINK, Refusal
from seedpo.study.secret import Secret
from seedpo.study.security import Limits, Pace
from seedpo.study.store import Store
from seedpo.study.store_records import Rater


@dataclass(frozen=True)
class Paces:
    """One for each kind of request; see :class:`Limits`."""

    requests: Pace
    images: Pace
    strangers: Pace
    logins: Pace


def paces(limits: Limits) -> Paces:
    """Fresh ones."""
    return Paces(
        requests=Pace(limits.requests, limits.requests_burst),
        images=Pace(limits.images, limits.images_burst),
        strangers=Pace(limits.strangers, limits.strangers_burst),
        logins=Pace(limits.logins, limits.logins_burst),
    )


@dataclass(frozen=True, kw_only=True)
class Site:
    """A study on the web.

    Attributes:
        store: of the study's votes.
        secret: from which tokens and image names are made.
        admin_token: opens the admin page.
        paces: limits on requests.
        pages: the templates.
        version: of the static files, in their addresses.
    """

    store: Store
    secret: Secret
    admin_token: str
    paces: Paces
    pages: jinja2.Environment
    version: str

    @property
    def study(self) -> Study:
        """With all groups that its folder has now."""
        return self.store.study

    def page(self, name: str, **values: Any) -> str:
        """A page from its template; everything in it is escaped."""
        title = self.study.settings.title
        return self.pages.get_template(f"{name}.html.j2").render(title=title, version=self.version, **values)

    def slow_down(self, pace: Pace, key: str) -> None:
        """Takes one request from a pace.

        Raises:
            Refusal: 429, with the time to wait.
        """
        wait = pace.wait(key)
        if wait:
            raise Refusal(429, TOO_FAST, wait=wait)

    def rater(self, token: str, *, pace: Pace | None = None) -> Rater:
        """Whose link this is.

        Raises:
            Refusal: nobody's, or it has ended, or too many requests came with it.
        """
        rater = self.store.rater(token) if len(token) <= 100 else None
        if rater is None:
            self.slow_down(self.paces.strangers, "")
            raise Refusal(404, UNKNOWN_LINK)
        self.slow_down(pace or self.paces.requests, rater.id)
        if rater.expired or rater.revoked:
            raise Refusal(410, ENDED_LINK)
        return rater

    def needs_consent(self, rater: Rater) -> bool:
        """Whether the rater still has to agree to the study's text."""
        return bool(self.study.settings.consent.strip()) and not rater.consented

    def is_admin(self, *, bearer: str, cookie: str) -> bool:
        """Whether a request may see the admin page: by the token itself or by the cookie of a login."""
        scheme, _, offered = bearer.partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(offered.strip().encode(), self.admin_token.encode()):
            return True
        return self.secret.is_session(self.admin_token, cookie)


def templates() -> jinja2.Environment:
    """The pages' templates: escaped always, and an unknown name is an error."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("seedpo.study", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
