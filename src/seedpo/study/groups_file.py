"""``groups.jsonl``: one group on each line, only ever appended to."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from seedpo.errors import DataError
from seedpo.study.images import ID
from seedpo.study.records import Candidate, Group

NAME = "groups.jsonl"

_GROUP = {"id", "question", "prompt", "candidates", "category", "expected"}
_CANDIDATE = {"source", "images"}


def group_line(group: Group) -> str:
    """A group as its line, without the line's end."""
    values = asdict(group)
    if group.expected is None:
        del values["expected"]
    return json.dumps(values, ensure_ascii=False)


def read_groups(path: Path) -> tuple[tuple[Group, ...], tuple[int, ...], int]:
    """All groups of a file. A last line without its end, which a killed writer left, is passed over.

    Returns:
        The groups, the number of each one's line from 1, and how many bytes were read.

    Raises:
        DataError: if the file or one of its lines cannot be used; the message names line and key.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); is this the folder of a study?") from error
    whole = content[: _whole(content)]
    try:
        text = whole.decode("utf-8")
    except UnicodeDecodeError as error:
        line = whole[: error.start].count(b"\n") + 1
        raise DataError(f"{path} line {line} is not UTF-8 text; save the file as UTF-8") from error
    groups: list[Group] = []
    numbers: list[int] = []
    first: dict[str, int] = {}
    for number, written in enumerate(text.split("\n"), start=1):
        if not written.strip():
            continue
        place = f"{path} line {number}"
        group = _group(written, place)
        if group.id in first:
            raise DataError(f"{place}: id {group.id!r} is that of line {first[group.id]}; give each group its own")
        first[group.id] = number
        groups.append(group)
        numbers.append(number)
    return tuple(groups), tuple(numbers), len(whole)


def append_lines(path: Path, groups: Iterable[Group]) -> None:
    """Appends groups in one write and flushes it to the disk; cuts off a torn last line before.

    One process may append at a time; others may read meanwhile.

    Raises:
        DataError: if it cannot be written; the file then holds what it held.
    """
    block = "".join(f"{group_line(group)}\n" for group in groups).encode("utf-8")
    try:
        with path.open("r+b") as file:
            content = file.read()
            whole = _whole(content)
            if content[:whole] and not content[:whole].endswith(b"\n"):
                block = b"\n" + block
            try:
                file.truncate(whole)
                file.seek(whole)
                file.write(block)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                file.truncate(whole)
                raise
    except OSError as error:
        raise DataError(f"{path} cannot be appended to ({error.strerror}); free some space or mend it") from error


def _whole(content: bytes) -> int:
    """How many bytes of a file are whole lines; a last one without its end counts if it is a whole JSON object."""
    end = content.rfind(b"\n") + 1
    try:
        return len(content) if isinstance(json.loads(content[end:]), dict) else end
    except ValueError:
        return end


def _group(line: str, place: str) -> Group:
    try:
        values = json.loads(line)
    except ValueError as error:
        raise DataError(f"{place} is not JSON ({error}); mend or remove it") from error
    values = _keys(values, _GROUP, {"id", "question", "prompt", "candidates"}, place)
    for key in ("id", "question", "prompt", "category"):
        if not isinstance(values.get(key, ""), str):
            raise DataError(f"{place}: {key} is not text but {type(values[key]).__name__}")
    if not values["id"]:
        raise DataError(f"{place}: id is empty; give each group its own")
    if not isinstance(values["candidates"], list):
        raise DataError(f"{place}: candidates is no list")
    candidates = [_candidate(item, f"{place}: candidates[{row}]") for row, item in enumerate(values["candidates"])]
    if len(candidates) < 2:
        raise DataError(f"{place}: candidates has {len(candidates)}; at least two are compared")
    expected = values.get("expected")
    if expected is not None and (type(expected) is not int or not 0 <= expected < len(candidates)):
        raise DataError(f"{place}: expected is {expected!r}; it is the number of a candidate from 0, or not there")
    return Group(
        id=values["id"],
        question=values["question"],
        prompt=values["prompt"],
        candidates=tuple(candidates),
        category=values.get("category", ""),
        expected=expected,
    )


def _candidate(item: object, place: str) -> Candidate:
    values = _keys(item, _CANDIDATE, _CANDIDATE, place)
    if not isinstance(values["source"], str):
        raise DataError(f"{place}.source is not text but {type(values['source']).__name__}")
    images = values["images"]
    if not isinstance(images, list) or not images:
        raise DataError(f"{place}.images is no list of ids of images")
    for image in images:
        if not isinstance(image, str) or not ID.fullmatch(image):
            raise DataError(f"{place}.images: {image!r} is no id of an image (32 digits 0-9 a-f)")
    return Candidate(source=values["source"], images=tuple(images))


def _keys(item: object, known: set[str], needed: set[str], place: str) -> Mapping[str, Any]:
    if not isinstance(item, dict):
        raise DataError(f"{place} is not an object {{...}}")
    unknown: Sequence[str] = sorted(set(item) - known)
    if unknown:
        raise DataError(f"{place}: unknown key {unknown[0]!r}; known are {', '.join(sorted(known))}")
    missing = sorted(needed - set(item))
    if missing:
        raise DataError(f"{place}: {missing[0]} is missing")
    return item
