"""JSON and YAML as anyone may have written it: whatever is wrong with a text is one kind of error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

DIGITS = 300
"""Digits of a whole number at most; a float holds no larger one."""

DEPTH, VALUES = 100, 10**6
"""How deeply values of YAML may lie within each other, and how many there may be, each reference to one counted."""


def parse_json(text: str | bytes) -> Any:
    """What a text of JSON says.

    Raises:
        ValueError: if it is none, is nested too deeply for Python, or holds a number that no float can hold.
    """
    try:
        return json.loads(text, parse_int=_integer)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_json(path: Path) -> Any:
    """What a file of JSON, in UTF-8, says.

    Raises:
        OSError: if it cannot be read.
        ValueError: as :func:`parse_json`.
    """
    return parse_json(path.read_text(encoding="utf-8"))


def parse_yaml(text: str) -> Any:
    """What a text of YAML says, without objects of Python.

    Raises:
        ValueError: if it is none, holds a value that its type does not allow (a month 13), or is nested too deeply.
    """
    try:
        content = yaml.safe_load(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError) as error:  # its constructors raise all
        raise ValueError(str(error) or type(error).__name__) from error
    _check_extent(content)
    return content


def _check_extent(content: Any) -> None:
    """Walks through all values: a reference may lead back to where it stands, or multiply what it stands for."""
    waiting, seen = [(content, 0)], 0
    while waiting:
        value, depth = waiting.pop()
        seen += 1
        if depth > DEPTH or seen > VALUES:
            raise ValueError("nested too deeply" if depth > DEPTH else f"more than {VALUES:,} values")
        if isinstance(value, dict | list):
            waiting += [(part, depth + 1) for part in (value.values() if isinstance(value, dict) else value)]


def read_yaml(path: Path) -> Any:
    """What a file of YAML, in UTF-8, says.

    Raises:
        OSError: if it cannot be read.
        ValueError: as :func:`parse_yaml`.
    """
    return parse_yaml(path.read_text(encoding="utf-8"))


def _integer(digits: str) -> int:
    if len(digits) > DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)
