"""Prompts by a registered name or from a file: text with one on each line, JSON lines, or CSV."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from seedpo.data.catalogue import PROMPTS
from seedpo.data.layouts import PROMPT_COLUMNS
from seedpo.data.text import Line, csv_lines, json_lines, read_text
from seedpo.errors import ConfigError, DataError
from seedpo.registry import unknown

RECORDS = {".jsonl": json_lines, ".csv": csv_lines}


def names_a_file(name: str) -> bool:
    """Whether a text stands for a file of prompts, or for nothing, and not for a registered set."""
    return name.partition("@")[0] not in PROMPTS


def load_prompts(name: str, *, count: int | None = None, seed: int = 0, count_key: str = "--num-prompts") -> list[str]:
    """Prompts of a registered set, of ``NAME@PLACE``, or of a text, JSON lines or CSV file.

    Args:
        name: as the user wrote it.
        count: how many are taken from the head of the set; `None`: all.
        seed: of sets that are drawn.
        count_key: what sets ``count``, for the message.

    Raises:
        ConfigError: if there is no such set, or it has fewer prompts.
        DataError: if it cannot be read.
    """
    head, at, place = name.partition("@")
    if head in PROMPTS and (not at or PROMPTS[head].published):
        if at and not place:
            raise ConfigError(f"prompt set {name}: after @ stands a file or folder, for example {head}@prompts/")
        options: dict[str, Any] = {"place": place} if at else {}
        options |= {"seed": seed} if PROMPTS[head].drawn else {}
        prompts: list[str] = PROMPTS.load(head)(**options)
    elif Path(name).suffix or Path(name).exists():
        prompts = read_prompts(Path(name))
    else:
        raise unknown("prompt set", name, PROMPTS.names(), also="; or a .txt, .jsonl or .csv file")
    if count is not None and count > len(prompts):
        raise ConfigError(f"{count_key} = {count}, but {name} holds {len(prompts)} prompts; ask for fewer")
    return prompts[:count]


def read_prompts(path: Path) -> list[str]:
    """Reads prompts: the lines of a text file, or ``prompt`` (else ``caption``) of each record of a JSONL or CSV file.

    Empty lines are left out; a byte order mark does no harm.

    Raises:
        DataError: if the file is missing, is not UTF-8 text, holds no prompt, or has a record without one.
    """
    if not path.exists():
        where = "" if path.is_absolute() else f" in {Path.cwd()}"
        raise DataError(f"prompt file {path} does not exist{where}; write one, with a prompt on each line")
    try:
        if path.suffix.lower() in RECORDS:
            texts = [prompt_of(line) for line in RECORDS[path.suffix.lower()](path)]
        else:
            texts = read_text(path).splitlines()
    except DataError as error:
        raise DataError(f"prompt file {error}") from error
    prompts = [text.strip() for text in texts if text.strip()]
    if not prompts:
        raise DataError(f"prompt file {path} holds no prompt; write one per line")
    return prompts


def prompt_of(line: Line) -> str:
    """The prompt of a record.

    Raises:
        DataError: if the line cannot be read, or has no text there.
    """
    if line.fault:
        raise DataError(f"{line.path} line {line.number} {line.fault}; fix or remove it")
    key = next((key for key in PROMPT_COLUMNS if key in line.values), None)
    if key is None:
        raise DataError(
            f"{line.path} line {line.number} has the keys {sorted(line.values)}; expected is {PROMPT_COLUMNS[0]!r}"
        )
    prompt = line.values[key]
    if not isinstance(prompt, str):
        raise DataError(f"{line.path} line {line.number}: {key} is not text but {type(prompt).__name__}")
    return prompt
