"""Rewards of a server that speaks the protocol of `seedpo reward serve`; docs/remote-rewards.md describes it.

A server repeats of each image what it scored: the hash of the image, the prompt and the time step. So one that changes
the order of rows, drops, repeats or invents some is found out.
"""

from __future__ import annotations

import base64
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seedpo.data.text import shown
from seedpo.protocols import Images
from seedpo.rewards.remote.cache import ScoreCache, cache_key
from seedpo.rewards.remote.images import check_sendable, image_hash, png_files
from seedpo.rewards.remote.transport import Answer, Transport
from seedpo.rewards.settings import HttpSettings

logger = logging.getLogger(__name__)

PROTOCOL = 1
"""Version of the protocol."""

_RIGHT_SERVER = "check that it is a server of `seedpo reward serve` or one that speaks its protocol"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One image that is scored.

    Attributes:
        number: of the image in the call.
        file: of the image, PNG.
        image: its hash.
        prompt: what it was made for.
        timestep: when the preview was made; `None` of a finished image.
    """

    number: int
    file: bytes
    image: str
    prompt: str
    timestep: int | float | None

    def echo(self) -> dict[str, Any]:
        """What the server repeats of it."""
        return {"image": self.image, "prompt": self.prompt, "timestep": self.timestep}

    def __str__(self) -> str:
        return f"the score of image {self.number}, prompt {shown(self.prompt)},"


class HttpReward:
    """A reward that a server computes. Images travel as PNG files of 8 bits.

    The server is asked at once which version of the reward it offers, and every answer must be of that version.

    Args:
        name: as the user wrote it.
        settings: how the server is asked.
        transport: asks it; `None`: one of the settings.

    Raises:
        RewardServerError: if the server does not answer, or does not offer the reward.
    """

    def __init__(self, name: str, settings: HttpSettings, transport: Transport | None = None) -> None:
        self.name = name
        self.settings = settings
        self.transport = transport or Transport(name, settings)
        self.cache = None if settings.cache is None else ScoreCache(Path(settings.cache))
        offer = self._offer()
        self.version: str = offer["version"]
        """Of the reward, as the server states it."""
        self.step_aware: bool = offer["step_aware"]
        """Whether the time step of previews is sent."""
        self.batch_size = min(settings.batch_size, offer["max_images"])
        logger.info(
            "reward %s: images and prompts are sent to %s, which scores them by %s, version %s",
            name,
            settings.url,
            settings.reward,
            self.version,
        )

    @torch.no_grad()
    def __call__(self, images: Images, prompts: Sequence[str], *, timestep: Tensor | None = None) -> Tensor:
        """Scores (B,) float32, on the images' device; on the CPU for PIL images.

        Args:
            images: (B, 3, H, W) in [0, 1], which are rounded to 8 bits; or B PIL images of any sizes.
            prompts: B prompts.
            timestep: of previews, (B,); sent if the reward takes it.

        Raises:
            DataError: if the counts differ, an element is not an image, or a prompt cannot be sent.
            RewardServerError: if the server does not answer as it should.
        """
        check_sendable(images, prompts)
        times = None if timestep is None or not self.step_aware else timestep.tolist()
        rows = [
            Row(
                number=number,
                file=file,
                image=image_hash(file),
                prompt=prompt,
                timestep=None if times is None else times[number],
            )
            for number, (file, prompt) in enumerate(zip(png_files(images), prompts, strict=True))
        ]
        scores = self._scores(rows)
        return torch.tensor(scores, dtype=torch.float32, device=images.device if isinstance(images, Tensor) else "cpu")

    def _scores(self, rows: Sequence[Row]) -> list[float]:
        """One score for each row; equal rows are scored once.

        Rows are divided into requests before the cache is asked. So an image is scored in the same company by a run
        and by the run that resumes it.
        """
        keys = [
            cache_key(row.image, row.prompt, self.version, "" if row.timestep is None else repr(row.timestep))
            for row in rows
        ]
        known = self.cache.find(keys) if self.cache else {}
        different = list(dict(zip(keys, rows, strict=True)).items())
        requests = [different[start : start + self.batch_size] for start in range(0, len(different), self.batch_size)]
        missing = [{key: row for key, row in request if key not in known} for request in requests]
        parts = [part for part in missing if part]

        def take(number: int, answer: Answer) -> None:
            part = parts[number]
            scores = dict(zip(part, self._read(answer, list(part.values())), strict=True))
            known.update(scores)
            if self.cache is not None:
                self.cache.keep(scores)

        self.transport.post_all("/score", [self._body(list(part.values())) for part in parts], on_answer=take)
        return [known[key] for key in keys]

    def _body(self, rows: Sequence[Row]) -> dict[str, Any]:
        body: dict[str, Any] = {
            "reward": self.settings.reward,
            "images": [base64.b64encode(row.file).decode() for row in rows],
            "prompts": [row.prompt for row in rows],
        }
        return body if rows[0].timestep is None else {**body, "timesteps": [row.timestep for row in rows]}

    def _read(self, answer: Answer, rows: Sequence[Row]) -> list[float]:
        """The scores of an answer.

        Raises:
            RewardServerError: if it is not the answer to these rows.
        """
        version, scored = answer.get("version"), answer.get("scores")
        if version != self.version:
            raise self.transport.error(
                f"the reward's version changed from {self.version} to {shown(version)}, so that old and new scores "
                "cannot be compared; serve the first version again, or start a new run"
            )
        if not isinstance(scored, list) or len(scored) != len(rows):
            count = len(scored) if isinstance(scored, list) else "no"
            raise self.transport.error(f"it returned {count} scores for {len(rows)} images; {_RIGHT_SERVER}")
        return [self._score(entry, row) for entry, row in zip(scored, rows, strict=True)]

    def _score(self, entry: Any, row: Row) -> float:
        if not isinstance(entry, dict):
            raise self.transport.error(f"{row} is {shown(entry)}, not an object; {_RIGHT_SERVER}")
        for fact, sent in row.echo().items():
            if (repeated := entry.get(fact)) != sent or isinstance(repeated, bool):
                raise self.transport.error(
                    f"{row} is that of another row: {fact} {shown(repeated)} instead of {shown(sent)}; the server must "
                    "keep the order of the images"
                )
        score = entry.get("score")
        if isinstance(score, bool) or not isinstance(score, int | float) or not _is_finite(score):
            raise self.transport.error(f"{row} is {shown(score)}; a score is a finite number")
        return float(score)

    def _offer(self) -> dict[str, Any]:
        """What the server says of the reward."""
        answer = self.transport.get("/rewards")
        if answer.get("protocol") != PROTOCOL or not isinstance(answer.get("rewards"), list):
            raise self.transport.error(f"it does not speak protocol {PROTOCOL}; {_RIGHT_SERVER}")
        offers = [offer for offer in answer["rewards"] if isinstance(offer, dict)]
        offer: dict[str, Any] | None = next((o for o in offers if o.get("name") == self.settings.reward), None)
        if offer is None:
            names = ", ".join(shown(offer.get("name")) for offer in offers[:20]) or "nothing"
            raise self.transport.error(f"it does not offer {self.settings.reward!r}; it offers {names}")
        whole = {"version": str, "step_aware": bool, "max_images": int}
        wrong = [key for key, kind in whole.items() if type(offer.get(key)) is not kind]
        sound = not wrong and 0 < len(offer["version"]) <= 200 and offer["version"].isprintable()
        if not sound or offer["max_images"] < 1:
            raise self.transport.error(
                f"what it says of {self.settings.reward} lacks {', '.join(wrong) or 'sense'}; {_RIGHT_SERVER}"
            )
        return offer


@cache
def http_reward(name: str, settings: HttpSettings) -> HttpReward:
    """The reward of a server; it is asked for its version once per process.

    Raises:
        ConfigError: if the settings cannot be used here.
        RewardServerError: if the server does not answer, or does not offer the reward.
    """
    return HttpReward(name, settings)


def _is_finite(score: float) -> bool:
    """Whether a number is finite as float32."""
    try:
        return math.isfinite(torch.tensor(score, dtype=torch.float32).item())
    except (OverflowError, RuntimeError):
        return False
