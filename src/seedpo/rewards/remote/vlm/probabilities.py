"""Probabilities of words as the first token of an answer, of which servers list some twenty."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from seedpo.rewards.remote.vlm.answers import Tokens

LEAST = 2.0**-24
"""The least probability that a list can leave over: that of rounding in float32."""


LEAST_SHARE = 0.01
"""Probability of yes and no together at least: below, the model was about to say something else."""


def log_probability(tokens: Tokens, words: Iterable[str]) -> float | None:
    """Log of the summed probability of tokens that are one of some words; ``None`` if none is among the likely ones.

    Case, and white space and its signs around a token, do not matter.
    """
    wanted = {word.casefold() for word in words}
    found = [value for token, value in tokens if _bare(token) in wanted]
    return _log_sum(found) if found else None


def unlisted(tokens: Tokens) -> float:
    """The highest log-probability that a token outside of the list can have.

    It is at most that of the least likely token in the list, and at most what the list leaves over.
    """
    listed = math.fsum(math.exp(value) for _, value in tokens)
    return min(min(value for _, value in tokens), math.log(max(1.0 - listed, LEAST)))


def log_odds(tokens: Tokens, yes: Iterable[str], no: Iterable[str]) -> float | None:
    """Logarithm of P(yes) / P(no); ``None`` if those listed have less than :data:`LEAST_SHARE` together.

    If one of them is not listed, it counts as the most that it can be, so that the true number is farther from 0.
    """
    agree, deny = log_probability(tokens, yes), log_probability(tokens, no)
    listed = [value for value in (agree, deny) if value is not None]
    if not listed or _log_sum(listed) < math.log(LEAST_SHARE):
        return None
    most = unlisted(tokens)
    return (most if agree is None else agree) - (most if deny is None else deny)


def probability(tokens: Tokens, words: Iterable[str]) -> float:
    """Probability of some words among all tokens; outside of the list it counts as the most it can be."""
    listed = log_probability(tokens, words)
    return min(math.exp(unlisted(tokens) if listed is None else listed), 1.0)


def _bare(token: str) -> str:
    return token.strip(" \t\r\n\u2581\u0120\u010a").casefold()


def _log_sum(values: Sequence[float]) -> float:
    top = max(values)
    return top + math.log(math.fsum(math.exp(value - top) for value in values))
