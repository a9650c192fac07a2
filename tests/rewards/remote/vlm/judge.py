"""A stand-in for a server of a vision-language model: what it is shown and asked, and how it answers."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image

from seedpo.rewards.remote.transport import Transport
from seedpo.rewards.remote.vlm.reward import VlmReward
from seedpo.rewards.settings import VlmSettings
from tests.rewards.remote.stand_in import StandIn, as_json, served

Judge = Callable[[list[Image.Image], str], Any]
"""From the images shown and the words of the question to the answer: a text, or a chat completion."""


def chat(text: str | None, tokens: Mapping[str, float] | None = None, **choice: Any) -> dict[str, Any]:
    """A chat completion; ``tokens`` are probabilities of the first token."""
    top = [{"token": token, "logprob": float(np.log(value)), "bytes": None} for token, value in (tokens or {}).items()]
    logprobs = {"content": [{**top[0], "top_logprobs": top}]} if top else None
    message = {"role": "assistant", "content": text, **choice.pop("message", {})}
    row = {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": "stop", **choice}
    return {"id": "chat-1", "object": "chat.completion", "choices": [row], "usage": {"total_tokens": 9}}


def shown(body: Any) -> list[Image.Image]:
    """The images of a request, in their order."""
    parts = body["messages"][-1]["content"]
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    return [Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,")))) for url in urls]


def said(body: Any) -> str:
    """The words of a request."""
    return "".join(part["text"] for part in body["messages"][-1]["content"] if part["type"] == "text")


@contextmanager
def judged_by(judge: Judge) -> Iterator[StandIn]:
    """A server that gives a judge's answers; its ``url`` ends in /v1."""

    def answer(method: str, path: str, body: Any) -> Any:
        assert (method, path) == ("POST", "/v1/chat/completions")
        given = judge(shown(body), said(body))
        return (
            given
            if isinstance(given, tuple) or callable(given)
            else as_json(chat(given) if isinstance(given, str) else given)
        )

    with served(answer) as server:
        server.url += "/v1"
        yield server


def reward_of(server: StandIn, template: str, **keys: Any) -> VlmReward:
    """The reward ``judge`` of a server."""
    settings = VlmSettings.model_validate({"url": server.url, "model": "m", "template": template, **keys})
    return VlmReward("judge", settings, Transport("judge", settings, first_wait=0.01))
