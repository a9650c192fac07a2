"""What a vision-language model answered, as a chat completion says it, and why an answer may say nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_UNKNOWN = -1000.0
"""Servers write -9999 for a log-probability that they do not know."""

REFUSAL, EMPTY, CUT, TOO_LONG = "refused", "empty", "cut off", "too long"
NO_NUMBER, SEVERAL, OUT_OF_RANGE = "no number", "several numbers", "number out of range"
COPIED = "a number that the prompt states"
NO_CHOICE, BOTH, NEITHER = "no choice", "several choices", "neither yes nor no among the likely tokens"
"""Why an answer cannot be read."""

_TAG = r"[<\[\u25c1]{}(?:\w+:)?(?:think(?:ing)?|thoughts?|reasoning)\s*[>\]\u25b7]"
_OPENING, _CLOSING = (re.compile(_TAG.format(slash), re.IGNORECASE) for slash in ("", "/"))
"""What models write before and after their thoughts: ``<think>``, ``[THINK]``, ``<seed:think>`` and the like."""

_MOST = 1.01
"""Sum of probabilities at most, since servers round them."""

Tokens = Sequence[tuple[str, float]]
"""Likely first tokens of an answer with their log-probabilities; a text may occur more than once."""


@dataclass(frozen=True)
class Answer:
    """An answer of the model.

    Attributes:
        text: without what the model thought before.
        refused: whether the server says that the model, or a filter, refused.
        cut: whether it was longer than allowed.
        tokens: the likely first tokens; ``None`` if the server gave none.
    """

    text: str
    refused: bool = False
    cut: bool = False
    tokens: Tokens | None = None


@dataclass(frozen=True)
class Unanswered:
    """An answer that says nothing that counts.

    Attributes:
        reason: one of the constants above.
        text: the answer.
    """

    reason: str
    text: str


def answer_of(reply: Mapping[str, Any]) -> Answer:
    """The answer in a chat completion.

    Raises:
        ValueError: if it is none.
    """
    choices = reply.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise ValueError("it is no chat completion with choices and a message")
    content = message.get("content")
    if not isinstance(content, str | None):
        raise ValueError("the message's content is no text")
    finish = choice.get("finish_reason")
    return Answer(
        text=_after_thoughts(content or ""),
        refused=bool(message.get("refusal")) or finish == "content_filter",
        cut=finish == "length",
        tokens=_first_tokens(choice.get("logprobs")),
    )


def _after_thoughts(text: str) -> str:
    """What follows the last thoughts, up to further ones that did not end."""
    rest = _CLOSING.split(text)[-1]
    return _OPENING.split(rest)[0].strip()


def _first_tokens(logprobs: Any) -> Tokens | None:
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    top = (
        content[0].get("top_logprobs") if isinstance(content, list) and content and isinstance(content[0], dict) else 0
    )
    if not isinstance(top, list) or not top:
        return None
    tokens = []
    for entry in top:
        token, value = (entry.get("token"), entry.get("logprob")) if isinstance(entry, dict) else (None, None)
        if not isinstance(token, str) or not isinstance(value, int | float) or isinstance(value, bool):
            raise ValueError("its logprobs have another form than token and logprob")
        if math.isnan(value) or value > 1e-3:
            raise ValueError(f"its logprobs hold {value}, which is no logarithm of a probability")
        if value > _UNKNOWN:
            tokens.append((token, min(float(value), 0.0)))
    if math.fsum(math.exp(value) for _, value in tokens) > _MOST:
        raise ValueError("the probabilities of its logprobs have a sum above 1")
    return tokens or None
