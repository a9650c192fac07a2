"""What a study refuses: errors of the store, and requests, which get an HTTP status and one plain sentence."""

from __future__ import annotations

import math

from seedpo.errors import SeedpoError


class StoreError(SeedpoError):
    """The database cannot be used or belongs to another study; nothing of the failed transaction was stored."""


class UnknownRater(SeedpoError):
    """The study has no such rater."""


class NotShown(StoreError):
    """This was never shown to this rater."""


class NotOffered(StoreError):
    """The question does not offer this answer, or the key of the answer is empty or too long."""


class LinkEnded(StoreError):
    """The rater's link has expired or was revoked."""


class NoConsent(StoreError):
    """The study asks for consent, and the rater has not given it."""


class Refusal(Exception):
    """A request that is refused. Its sentence names no model, file or group.

    Attributes:
        status: of HTTP.
        sentence: what the person at the browser reads.
        wait: seconds after which the request may be repeated; `None` if that does not help.
    """

    def __init__(self, status: int, sentence: str, *, wait: float | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.wait = wait

    @property
    def headers(self) -> dict[str, str]:
        """What the answer says beside its sentence."""
        return {} if self.wait is None else {"retry-after": str(math.ceil(self.wait))}


UNKNOWN_LINK = "We do not know this link. Please check that it was copied completely."
ENDED_LINK = "This link has ended. Please ask whoever sent it to you for a new one. Your answers are kept."
INVITATION = "This study is by invitation: please use your personal link."
TOO_FAST = "That was a little too fast. It continues by itself in a moment."
NO_CONSENT = "Please agree to take part first."
NOT_YOURS = "This was not shown to you."
NO_CHOICE = "This answer is not among the choices."
OLD_PAGE = "This page is out of date. Please reload it."
NO_RATER = "There is no such rater."
NO_ADMIN = "This page needs the admin token."
NO_IMAGE = "There is no such image."
NO_PAGE = "There is no such page."
UNREADABLE = "The server could not read this request."
NOT_STORED = "The server cannot store answers at the moment. Nothing is lost: the page keeps yours and tries again."
BROKEN = "Something went wrong on the server. Please try again in a moment."
