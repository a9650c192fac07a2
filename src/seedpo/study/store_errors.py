"""What the store of votes may refuse, each in one sentence."""

from __future__ import annotations

from seedpo.errors import SeedpoError


class StoreError(SeedpoError):
    """The database cannot be used, or does not belong to the study; nothing of the failed step was kept."""


class NotShown(StoreError):
    """A vote for, or a question about, something that was never shown to this rater."""


class NotOffered(StoreError):
    """An answer that the question does not offer, or a key that is none."""


class LinkEnded(StoreError):
    """The rater's link has expired or was revoked."""


class NoConsent(StoreError):
    """The study asks for consent, and the rater has not given it."""
