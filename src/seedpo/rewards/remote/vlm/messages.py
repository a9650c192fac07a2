"""The request that a vision-language model gets: a template filled in, with the images in it."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

from seedpo.rewards.remote.vlm.templates import IMAGE, PROMPT

TOP_LOGPROBS = 20
"""Tokens whose probability is asked for; most servers give no more."""

_TAG = re.compile(r"<(?=[|/A-Za-z])")
_SLOTS = re.compile(r"\{(\w+)\}")


def harmless(prompt: str) -> str:
    """A prompt in which nothing looks like a special token or a tag: ``<|im_end|>`` becomes ``< |im_end|>``.

    Chat templates take such words in a message for what they stand for, so that a prompt could end the user's turn.
    """
    return _TAG.sub("< ", prompt)


def filled(text: str, **values: str) -> str:
    """A text with values in place of names in braces; what is filled in is not looked through again."""
    return _SLOTS.sub(lambda match: values.get(match[1], match[0]), text)


def messages(system: str, text: str, images: Sequence[bytes], *, prompt: str, question: str = "") -> list[Any]:
    """Messages of a chat completion.

    Args:
        system: the system message; empty: none.
        text: the user's message with places to fill in; images come first if it has no ``{image}``.
        images: PNG files, in the order in which they are shown.
        prompt: of the images.
        question: of a checklist, as it is asked.
    """
    values = {PROMPT: harmless(prompt), "question": question}
    shown = [_image(image) for image in images]
    parts = text.split(f"{{{IMAGE}}}")
    if len(parts) == 1:
        content = [*shown, _text(filled(text, **values))]
    else:
        content = [_text(filled(parts[0], **values))]
        for image, part in zip(shown, parts[1:], strict=True):
            content += [image, _text(filled(part, **values))]
    content = [part for part in content if part.get("text", "-").strip()]
    opening = [{"role": "system", "content": system.strip()}] if system.strip() else []
    return [*opening, {"role": "user", "content": content}]


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _image(image: bytes) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{b64encode(image).decode('ascii')}"}}


def request(
    model: str,
    conversation: Sequence[Any],
    *,
    max_tokens: int,
    temperature: float,
    seed: int,
    logprobs: bool,
    more: Mapping[str, Any],
) -> dict[str, Any]:
    """The body of a request for a chat completion.

    Args:
        model: its name on the server.
        conversation: see :func:`messages`.
        max_tokens: length of the answer at most.
        temperature: 0 for the most probable answer.
        seed: of the server's draws.
        logprobs: whether the probabilities of the first token are needed.
        more: fields beside the usual ones, which win over nothing.
    """
    usual = {
        "model": model,
        "messages": list(conversation),
        "max_tokens": max_tokens,
        "temperature": temperature,
        "seed": seed,
    }
    return {**more, **usual, **({"logprobs": True, "top_logprobs": TOP_LOGPROBS} if logprobs else {})}
