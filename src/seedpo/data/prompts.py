"""Prompts from a text file, one on each line."""

from __future__ import annotations

from pathlib import Path

from seedpo.errors import DataError


def read_prompts(path: Path) -> list[str]:
    """Reads prompts, leaving out empty lines.

    Raises:
        DataError: if the file is missing, is not UTF-8 text, or holds no prompt.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()  # some editors put a mark before the first line
    except FileNotFoundError as error:
        raise DataError(f"prompt file {path} does not exist; write one prompt per line") from error
    except (UnicodeDecodeError, OSError) as error:
        raise DataError(f"prompt file {path} cannot be read as UTF-8 text: {error}") from error
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise DataError(f"prompt file {path} holds no prompt; write one per line")
    return prompts
