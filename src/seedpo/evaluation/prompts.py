"""The prompts of an evaluation, by a name or a place."""

from __future__ import annotations

from pathlib import Path

from seedpo.data.catalogue import PROMPTS
from seedpo.data.prompts import read_prompts
from seedpo.errors import ConfigError
from seedpo.registry import unknown

FROM_FILES = ("pickapic-validation", "parti", "hpsv2", "study-300")
"""Sets that can also be read from the user's own files, as ``name@place``."""

DRAWN = ("study-300",)
"""Sets that are drawn by a seed."""


def evaluation_prompts(name: str, *, count: int | None = None, seed: int = 0) -> list[str]:
    """Prompts of a registered set, of ``name@place``, or of a text, JSON lines or CSV file.

    Args:
        name: as the user wrote it.
        count: how many are taken from the head of the set; none: all.
        seed: of sets that are drawn.

    Raises:
        ConfigError: if there is no such set, or it has fewer prompts.
        DataError: if it cannot be read.
    """
    head, at, place = name.partition("@")
    if head in PROMPTS and (not at or head in FROM_FILES):
        if at and not place:
            raise ConfigError(f"--prompts {name}: after @ stands a file or folder, for example {head}@prompts/")
        options = {"seed": seed} if head in DRAWN else {}
        load = PROMPTS.load(head)
        prompts: list[str] = load(place, **options) if at else load(**options)
    elif Path(name).suffix or Path(name).exists():
        prompts = read_prompts(Path(name))
    else:
        raise unknown("prompt set", name, PROMPTS.names(), also="; or a .txt, .jsonl or .csv file")
    if count is not None and count > len(prompts):
        raise ConfigError(f"--num-prompts {count}, but {name} holds {len(prompts)} prompts; ask for fewer")
    return prompts[:count]
