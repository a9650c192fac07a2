"""The rewards that a server offers, and what it answers to one question; :mod:`.serving` knows HTTP."""

from __future__ import annotations

import base64
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from seedpo.data.images.rgb import decoded, size_of_file
from seedpo.documents import parse_json
from seedpo.errors import ConfigError, DataError, RewardServerError, SeedpoError, one_line
from seedpo.rewards.named import CheckedReward, build_reward
from seedpo.rewards.names import Definitions, check_definitions, check_name, latent_leaves
from seedpo.rewards.remote.images import image_hash
from seedpo.rewards.versions import version_of
from seedpo.settings import Precision

logger = logging.getLogger(__name__)

REQUEST_PIXELS = 1 << 28
"""Pixels of all images of a request at most, 800 MB in RGB: small files can stand for any number."""

PROMPT = 100_000
"""Characters of a prompt at most."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one request may bring.

    Attributes:
        images: how many.
        megabytes: of its body, in units of 2^20 bytes.
    """

    images: int = 64
    megabytes: int = 128


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A reward that is served.

    Attributes:
        reward: scores.
        version: changes with whatever may change a score.
    """

    reward: CheckedReward
    version: str


class Question(BaseModel):
    """What a client asks."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)

    reward: str
    images: list[str] = Field(min_length=1)
    prompts: list[str]
    timesteps: list[int | float] | None = None


class Refusal(Exception):
    """A request that is answered with an error.

    Args:
        status: of the answer.
        sentence: what is wrong with it.
    """

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def build_offers(
    names: Sequence[str],
    *,
    definitions: Definitions | None = None,
    device: str | None = None,
    precision: Precision = "no",
) -> dict[str, Offer]:
    """Loads rewards to serve them, by their names.

    Args:
        names: as users write them.
        definitions: weighted sums and rewards on other servers by their names.
        device: of the networks; `None`: the GPU if there is one.
        precision: of the networks.

    Raises:
        ConfigError: if there is no reward of a name, or one scores noisy latents.
        DataError: if one cannot be loaded.
    """
    definitions = definitions or {}
    check_definitions(definitions)
    for name in names:
        check_name(name, definitions)
        if latent := latent_leaves(name, definitions):
            raise ConfigError(
                f"reward {name}: {', '.join(latent)} scores noisy latents, and images travel; name another"
            )
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    rewards = {name: build_reward(name, definitions=definitions, device=device, precision=precision) for name in names}
    return {
        name: Offer(reward=reward, version=version_of(reward, torch.device(device).type, precision))
        for name, reward in rewards.items()
    }


def answer(question: Question, offers: Mapping[str, Offer], *, limits: Limits) -> dict[str, Any]:
    """Scores the images of a request in one batch.

    Raises:
        Refusal: if something of it cannot be used, or the reward fails.
    """
    offer = offers.get(question.reward)
    if offer is None:
        raise Refusal(404, f"there is no reward {question.reward[:80]!r} here; there are: {', '.join(offers)}")
    count, times = len(question.images), question.timesteps
    if count > limits.images:
        raise Refusal(413, f"{count} images are more than the {limits.images} of a request; send fewer (batch_size)")
    if len(question.prompts) != count or (times is not None and len(times) != count):
        raise Refusal(422, f"there are {count} images; send one prompt, and one time step or none, for each")
    if times is not None and not offer.reward.step_aware:
        raise Refusal(422, f"reward {question.reward} takes no time step; leave timesteps out")
    if times is not None and not all(math.isfinite(time) for time in times):
        raise Refusal(422, "a time step is not finite")
    if any(len(prompt) > PROMPT for prompt in question.prompts):
        raise Refusal(413, f"a prompt has more than {PROMPT:,} characters")
    try:
        files = [base64.b64decode(image, validate=True) for image in question.images]
    except ValueError as error:
        raise Refusal(422, f"an image is not base64 ({error})") from error
    pixels = 0
    images = []
    for row, file in enumerate(files):
        try:
            width, height = size_of_file(file)
            pixels += width * height
            if pixels > REQUEST_PIXELS:
                raise Refusal(413, f"the images have more than {REQUEST_PIXELS:,} pixels together; send fewer")
            images.append(decoded(file))
        except DataError as error:
            raise Refusal(422, f"image {row} is {error}") from error
    extra = {} if times is None else {"timestep": torch.tensor(times)}
    try:
        scores = offer.reward(images, question.prompts, **extra).tolist()
    except RewardServerError as error:
        raise Refusal(502, str(error)) from error
    except SeedpoError as error:
        raise Refusal(422, str(error)) from error
    except Exception as error:
        logger.error("reward %s failed with %s: %s", question.reward, type(error).__name__, one_line(str(error)))
        raise Refusal(500, f"reward {question.reward} failed with {type(error).__name__}; see the server") from error
    asked: Sequence[int | float | None] = [None] * count if times is None else times
    rows = zip(files, question.prompts, asked, scores, strict=True)
    return {
        "version": offer.version,
        "scores": [
            {"image": image_hash(file), "prompt": prompt, "timestep": time, "score": score}
            for file, prompt, time, score in rows
        ],
    }


def read_question(body: bytes) -> Question:
    """The question of a request's body.

    Raises:
        Refusal: if it is none; the sentence names the key.
    """
    try:
        return Question.model_validate(parse_json(body))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the request"
        raise Refusal(422, f"{place}: {first['msg']}") from error
    except ValueError as error:
        raise Refusal(422, f"the request is not JSON ({error})") from error
