"""Prompts from a file: text with one on each line, JSON lines, or CSV."""

from __future__ import annotations

from pathlib import Path

from seedpo.data.layouts import PROMPTS
from seedpo.data.text import Line, csv_lines, json_lines, read_text
from seedpo.errors import DataError

RECORDS = {".jsonl": json_lines, ".csv": csv_lines}
"""Files of records by the ending of their names; any other file is plain text."""


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
            found = [_prompt(line) for line in RECORDS[path.suffix.lower()](path)]
        else:
            found = read_text(path).splitlines()
    except DataError as error:
        raise DataError(f"prompt file {error}") from error
    prompts = [prompt.strip() for prompt in found if prompt.strip()]
    if not prompts:
        raise DataError(f"prompt file {path} holds no prompt; write one per line")
    return prompts


def _prompt(line: Line) -> str:
    if line.fault:
        raise DataError(f"{line.path} line {line.number} {line.fault}; mend or remove it")
    key = next((key for key in PROMPTS if key in line.values), None)
    if key is None:
        raise DataError(
            f"{line.path} line {line.number} has the keys {sorted(line.values)}; expected is {PROMPTS[0]!r}"
        )
    prompt = line.values[key]
    if not isinstance(prompt, str):
        raise DataError(f"{line.path} line {line.number}: {key} is not text but {type(prompt).__name__}")
    return prompt
