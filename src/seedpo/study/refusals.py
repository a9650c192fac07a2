"""What a request is refused with: a status and one plain sentence that names no model, file or group."""

from __future__ import annotations


class Refusal(Exception):
    """A request that is not answered.

    Attributes:
        status: of HTTP.
        sentence: what the person at the browser reads.
        wait: seconds after which it may be tried again, if that helps.
    """

    def __init__(self, status: int, sentence: str, *, wait: float | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.wait = wait


UNKNOWN_LINK = "We do not know this link. Please check that it was copied completely."
ENDED_LINK = "This link has ended. Please ask whoever sent it to you for a new one. What you answered is kept."
TOO_FAST = "That was a little too fast. It goes on by itself in a moment."
NO_CONSENT = "Please agree to take part first."
NOT_YOURS = "This pair is not among those that were shown to you."
NO_CHOICE = "This answer is not among the choices."
OLD_PAGE = "This page is out of date. Please reload it."
NO_IMAGE = "There is no such image."
NO_PAGE = "There is no such page."
UNREADABLE = "The server could not read this request."
NOT_STORED = "The server cannot store answers at the moment. Nothing is lost: the page keeps yours and tries again."
BROKEN = "Something went wrong on the server. Please try again in a moment."
