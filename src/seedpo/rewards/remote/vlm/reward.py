"""The reward: images and prompts go to a vision-language model, and its answers become scores.

An answer that cannot be read is asked for again, then counted by its reason; what its image then scores, the settings
say. It is never taken for a low score in silence.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from seedpo.data.prompts.questions import load_questions
from seedpo.errors import ConfigError, DataError
from seedpo.protocols import Images
from seedpo.rewards.remote.cache import ScoreCache, cache_key
from seedpo.rewards.remote.images import check_sendable, image_hash, png_files
from seedpo.rewards.remote.transport import Transport
from seedpo.rewards.remote.vlm.answers import Unanswered, answer_of
from seedpo.rewards.remote.vlm.judging import Ask, Questions, asks_of, reader_of, reads_tokens, scores_of
from seedpo.rewards.remote.vlm.messages import messages, request
from seedpo.rewards.remote.vlm.templates import (
    ChecklistTemplate,
    Question,
    Template,
    check_aspect,
    check_question,
    load_template,
)
from seedpo.rewards.settings import VlmSettings

logger = logging.getLogger(__name__)

TEMPERATURE = 0.7
"""Of a question that is asked again: at 0 the answer would be the same."""

FIRST_ANSWERS = 50
"""Answers before which their share that cannot be read says little."""

QUOTED = 80
"""Characters of an answer that a message repeats."""

_AT_ONCE = 64
"""Requests that are built together at least: each holds its images."""


class VlmReward:
    """A reward that a vision-language model gives.

    Args:
        name: as the user wrote it.
        settings: where the model is served, and what it is asked.
        transport: asks the server; `None`: one of the settings.

    Raises:
        ConfigError: if template, aspect and questions do not fit.
        DataError: if the questions cannot be read.
    """

    step_aware = False

    def __init__(self, name: str, settings: VlmSettings, transport: Transport | None = None) -> None:
        self.name = name
        self.settings = settings
        self.transport = transport or Transport(name, settings)
        try:
            self.template = load_template(settings.template)
            check_aspect(self.template, settings.aspect)
            self.questions = _questions(self.template, settings.questions)
        except ConfigError as error:
            raise ConfigError(f"reward {name}: {error}") from error
        self.cache = None if settings.cache is None else ScoreCache(Path(settings.cache))
        self.version = _version(self.template, settings)
        self._lock = Lock()
        self.asked = 0
        """Answers so far."""
        self.unanswered: Counter[str] = Counter()
        """Those of them that could not be read, by their reason."""
        logger.info(
            "reward %s: images and prompts are sent to %s, where %s judges them by the template %s",
            name,
            settings.url,
            settings.model,
            settings.template,
        )

    @torch.no_grad()
    def __call__(self, images: Images, prompts: Sequence[str]) -> Tensor:
        """Scores (B,) float32, on the images' device; on the CPU for PIL images.

        With a template of the kind pair, images of equal prompts are compared with each other.

        Args:
            images: (B, 3, H, W) in [0, 1], which are rounded to 8 bits; or B PIL images of any sizes.
            prompts: B prompts.

        Raises:
            DataError: if the counts differ, an element is not an image, a prompt cannot be sent, or there is nothing to
                compare an image with.
            RewardServerError: if the server does not answer as it should, or too few answers can be read.
        """
        check_sendable(images, prompts)
        try:
            asks = asks_of(self.template, prompts, self.questions)
        except (ConfigError, DataError) as error:
            raise type(error)(f"reward {self.name}: {error}") from error
        files = png_files(images, prepare=partial(_within, side=self.settings.max_side))
        answers = self._answers(asks, files)
        values = [None if isinstance(answer, Unanswered) else answer for answer in answers]
        scores = scores_of(self.template, prompts, asks, values, aspect=self.settings.aspect, questions=self.questions)
        unread = [(ask, answer) for ask, answer in zip(asks, answers, strict=True) if isinstance(answer, Unanswered)]
        self._report(unread, len(answers), scores)
        whole = self._filled(scores, prompts)
        return torch.tensor(whole, dtype=torch.float32, device=images.device if isinstance(images, Tensor) else "cpu")

    def _answers(self, asks: Sequence[Ask], files: Sequence[bytes]) -> list[float | Unanswered]:
        """The value of each answer; equal questions are asked once."""
        hashes = [image_hash(file) for file in files]
        keys = [
            cache_key(*(hashes[row] for row in ask.rows), ask.prompt, ask.question, ask.answer, self.version)
            for ask in asks
        ]
        known: dict[str, float | Unanswered] = dict(self.cache.find(keys)) if self.cache else {}
        missing = {key: ask for key, ask in zip(keys, asks, strict=True) if key not in known}
        for again in range(1 if reads_tokens(self.template) else self.settings.ask_again + 1):
            pending = [(key, ask) for key, ask in missing.items() if not isinstance(known.get(key), float)]
            size = max(_AT_ONCE, 4 * self.settings.concurrency)
            for start in range(0, len(pending), size):
                self._ask(pending[start : start + size], files, again, known)
        return [known[key] for key in keys]

    def _ask(
        self, asks: Sequence[tuple[str, Ask]], files: Sequence[bytes], again: int, known: dict[str, float | Unanswered]
    ) -> None:
        read = reader_of(self.template, self.settings.aspect)

        def take(row: int, reply: Mapping[str, Any]) -> None:
            key, ask = asks[row]
            try:
                answer = answer_of(reply)
            except ValueError as error:
                raise self.transport.error(f"its answer cannot be used: {error}; check that it serves chats") from error
            if reads_tokens(self.template) and answer.tokens is None and answer.text:
                raise self.transport.error(
                    f"its answers hold no logprobs, which the template {self.settings.template} needs; serve the model "
                    "with them (vLLM: --max-logprobs 20), or take a template whose answers are read as text"
                )
            known[key] = value = read(answer, ask)
            if self.cache is not None and isinstance(value, float):
                self.cache.keep({key: value})

        bodies = [self._body(ask, files, again) for _, ask in asks]
        self.transport.post_all("/chat/completions", bodies, on_answer=take)

    def _body(self, ask: Ask, files: Sequence[bytes], again: int) -> dict[str, Any]:
        settings, template = self.settings, self.template
        shown = [files[row] for row in ask.rows]
        return request(
            settings.model,
            messages(template.system, template.text, shown, prompt=ask.prompt, question=ask.question),
            max_tokens=settings.max_tokens or template.max_tokens,
            temperature=max(settings.temperature, TEMPERATURE) if again else settings.temperature,
            seed=settings.seed + again,
            logprobs=reads_tokens(template),
            more=settings.body,
        )

    def _report(self, unread: Sequence[tuple[Ask, Unanswered]], count: int, scores: Sequence[float | None]) -> None:
        """Counts what could not be read, and says it.

        Raises:
            RewardServerError: if the settings want that, or there was too much of it.
        """
        with self._lock:  # another thread may score the next images
            self.asked += count
            self.unanswered.update(answer.reason for _, answer in unread)
        if not unread:
            return
        reasons = Counter(answer.reason for _, answer in unread).most_common()
        ask, answer = next((one for one in unread if one[1].text), unread[0])
        example = " ".join(answer.text.split())[:QUOTED]
        fault = (
            f"{len(unread)} of {count} answers cannot be read ({', '.join(f'{n} x {why}' for why, n in reasons)}), "
            f"{self.unanswered.total()} of {self.asked} so far"
            f"; for example {example!r}, {ask}"
        )
        mend = "check prompts, template and max_tokens"
        if self.settings.unanswered == "error":
            raise self.transport.error(f"{fault}; {mend}, or set unanswered to mean or lowest for this reward")
        missing = sum(score is None for score in scores)
        if missing == len(scores):
            raise self.transport.error(f"{fault}, so that no image has a score; {mend}")
        if self.unanswered.total() > self.settings.most_unanswered * max(self.asked, FIRST_ANSWERS):
            most = f"most_unanswered = {self.settings.most_unanswered:g}"
            raise self.transport.error(f"{fault}, more than {most} allows; {mend}")
        kind = self.settings.unanswered
        logger.warning("%s", self.transport.error(f"{fault}; {missing} images take the {kind} of the others"))

    def _filled(self, scores: Sequence[float | None], prompts: Sequence[str]) -> list[float]:
        """The scores, with those that are missing as the settings say; some are there."""
        given = [(prompt, score) for prompt, score in zip(prompts, scores, strict=True) if score is not None]
        whole = []
        for prompt, score in zip(prompts, scores, strict=True):
            if score is None:
                others = [other for theirs, other in given if theirs == prompt] or [other for _, other in given]
                score = min(others) if self.settings.unanswered == "lowest" else math.fsum(others) / len(others)
            whole.append(score)
        return whole


def vlm_reward(name: str, settings: VlmSettings) -> VlmReward:
    """The reward of a vision-language model, made once per process; nothing is asked yet.

    Raises:
        ConfigError: if the settings cannot be used.
        DataError: if the questions cannot be read.
    """
    return _made(name, settings.model_dump_json())


@cache
def _made(name: str, settings: str) -> VlmReward:
    return VlmReward(name, VlmSettings.model_validate_json(settings))


def _questions(template: Template, name: str | None) -> Questions | None:
    """The questions of each prompt of a set or file; `None` if the template needs none."""
    needs_them = isinstance(template, ChecklistTemplate) and not template.questions
    if name is None or not isinstance(template, ChecklistTemplate) or not needs_them:
        if needs_them or name is not None:
            raise ConfigError(
                "its template asks about each prompt; name their set or file with the key questions"
                if needs_them
                else "its template has its own questions; leave out the key questions"
            )
        return None
    found: dict[str, list[Question]] = {}
    for prompt, asked in load_questions(name).items():
        found[prompt] = [Question(text=one.text, answer=one.answer, needs=one.needs) for one in asked]
        for one in found[prompt]:
            try:
                check_question(one, template.among, f"{name}, prompt {prompt!r}")
            except ValueError as error:
                raise DataError(str(error)) from error
    return found


def _version(template: Template, settings: VlmSettings) -> str:
    """What a score depends on besides images, prompt and question."""
    asked = settings.model_dump_json(
        include={"model", "aspect", "max_side", "max_tokens", "temperature", "seed", "ask_again", "body"}
    )
    return hashlib.sha256(f"{asked}{template.model_dump_json()}".encode()).hexdigest()


def _within(image: Tensor, side: int) -> Tensor:
    """An image (3, H, W) uint8 whose longer side has at most so many pixels; smaller ones stay as they are."""
    height, width = image.shape[1:]
    if max(height, width) <= side:
        return image
    scale = side / max(height, width)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    small = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).resize(size, Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1)
