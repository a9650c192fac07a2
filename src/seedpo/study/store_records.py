"""What the store tells of raters."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Rater:
    """A rater as the pages need it; nothing of it tells who the person is, unless the label does.

    Attributes:
        id: pseudonymous.
        label: what the owner of the study wrote beside the link.
        consented: whether the consent text was agreed to.
        expired: whether the link's days are over.
        revoked: whether the link was taken back.
        excluded: whether the answers are left out of counts, analyses and exports.
        created, expires: ISO 8601, UTC; ``expires`` is empty if the link never ends.
    """

    id: str
    label: str
    consented: bool
    expired: bool
    revoked: bool
    excluded: bool
    created: str
    expires: str


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a rater is.

    Attributes:
        done: shows that the rater has answered.
        total: shows that the rater will have answered at the end, as far as it is known now.
    """

    done: int
    total: int


@dataclass(frozen=True, kw_only=True)
class RaterFigures:
    """One line of the overview.

    Attributes:
        rater: who.
        answered: shows answered, checks and repeats included.
        skipped: of these, those answered with "skip".
        checks, checks_passed: attention checks answered, and those answered as expected.
        repeats, repeats_agreed: repeated shows answered, and those answered as the first time.
        median_seconds: of the answers; none if the page measured none.
        last: time of the last answer, ISO 8601, UTC; empty if there is none.
    """

    rater: Rater
    answered: int
    skipped: int
    checks: int
    checks_passed: int
    repeats: int
    repeats_agreed: int
    median_seconds: float | None
    last: str
