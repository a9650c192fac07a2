"""``study.yaml``: written with a comment to each key, read strictly, with errors that name file, line and key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from seedpo.errors import ConfigError
from seedpo.study.settings import StudySettings

NAME = "study.yaml"

COMMENTS: Mapping[str, str] = {
    "id": "Names this study in its database. Leave it as it is.",
    "title": "What raters see above the page.",
    "kind": "collect: preferences for training. study: blinded comparisons of models.",
    "questions": (
        "What is asked. key: its name in groups.jsonl and tables. text: what the rater reads. shows: image (one on\n"
        "each side) or set (a reference and other images). choices: any of left, right, tie, bad, skip."
    ),
    "raters_per_pair": "How many raters each pair gets.",
    "tasks_per_rater": "At most so many pairs for each rater, attention checks and repeats included; null: no limit.",
    "order": (
        "Of several questions: blocks (a rater answers one for all pairs before the next one comes; raters begin with\n"
        "different ones) or mixed (any question at any pair)."
    ),
    "tournament": (
        "Of more than two images of a prompt: full (every pair: k (k - 1) / 2 questions) or knockout (the better one\n"
        "stays: k - 1 questions, which say which image is best, not how the others rank)."
    ),
    "repeats": "Share of a rater's pairs that are shown a second time with the sides exchanged, 0 to 0.5.",
    "checks": "Share of a rater's pairs that are attention checks, 0 to 0.5; shown only if the study has some.",
    "seed": "Of everything that is drawn: which pair comes next, sides, checks and repeats.",
    "enrolment": "links: raters need a personal link that you made. open: whoever opens the page gets one.",
    "link_days": "Days after which a personal link ends; null: never.",
    "consent": "Raters agree to this before they begin; empty: nothing is asked.",
    "instructions": "Shown before the first pair and on demand.",
    "database": "Where votes are kept: null (votes.db in this folder) or a URL: postgresql+psycopg://user@host/name.",
}
"""The comment above each key."""

_HEAD = """\
# A study of seedpo. Texts may be edited at any time; restart the server afterwards. Change nothing else once votes
# are there: raters would have answered different questions.
"""


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, which people can edit."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def settings_text(settings: StudySettings) -> str:
    """The settings as the text of a file, each key with its comment."""
    values = settings.model_dump(mode="json")
    blocks = [_HEAD]
    for key, value in values.items():
        comment = "".join(f"# {line}\n" for line in COMMENTS[key].split("\n"))
        body = yaml.dump({key: value}, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
        blocks.append(f"{comment}{body}")
    return "\n".join(blocks)


def read_settings(path: Path) -> StudySettings:
    """The settings in a file.

    Raises:
        ConfigError: if it cannot be read, has a key twice, an unknown one, or a value that does not fit; the message
            names line and key.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path} does not exist; name the folder of a study, or make one: seedpo study create"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as UTF-8 text ({error})") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{where} is not YAML ({getattr(error, 'problem', None) or error})") from error
    if not isinstance(values, dict) or not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"{path} holds no keys; make a study anew with seedpo study create, or mend it")
    lines = dict(_lines(root, (), path))
    try:
        settings = StudySettings(**values)
    except ValidationError as error:
        raise ConfigError(_said(error, path, lines)) from error
    _require_sense(settings, path, lines)
    return settings


def _lines(node: yaml.Node, at: tuple[str | int, ...], path: Path) -> Iterator[tuple[tuple[str | int, ...], int]]:
    """The line of every key and item below a node."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.value in seen:
                raise ConfigError(f"{path} line {line}: {key.value} is there twice; remove one")
            seen.add(key.value)
            yield (*at, key.value), line
            yield from _lines(value, (*at, key.value), path)
    elif isinstance(node, yaml.SequenceNode):
        for row, item in enumerate(node.value):
            yield (*at, row), item.start_mark.line + 1
            yield from _lines(item, (*at, row), path)


def _said(error: ValidationError, path: Path, lines: Mapping[tuple[str | int, ...], int]) -> str:
    first = error.errors()[0]
    place: tuple[Any, ...] = tuple(first["loc"])
    key = ".".join(str(part) for part in place)
    known = place
    while known and known not in lines:
        known = known[:-1]
    where = f" line {lines[known]}" if known in lines else ""
    if first["type"] == "extra_forbidden":
        return f"{path}{where}: unknown key {key}; known are {', '.join(StudySettings.model_fields)}"
    if first["type"] == "missing":
        return f"{path}{where}: {key} is missing"
    return f"{path}{where}: {key} is {first['input']!r}: {first['msg'].lower()}"


def _require_sense(settings: StudySettings, path: Path, lines: Mapping[tuple[str | int, ...], int]) -> None:
    def fail(place: tuple[str | int, ...], message: str) -> None:
        where = f" line {lines[place]}" if place in lines else ""
        raise ConfigError(f"{path}{where}: {message}")

    if not settings.id.strip():
        fail(("id",), "id is empty; any unique text will do")
    seen: set[str] = set()
    for row, question in enumerate(settings.questions):
        place = ("questions", row, "key")
        if not question.key or any(sign.isspace() for sign in question.key):
            fail(place, f"question key {question.key!r}: use letters, digits, - and _")
        if question.key in seen:
            fail(place, f"question {question.key!r} is there twice; remove one")
        seen.add(question.key)
        if not {"left", "right"} <= set(question.choices) or len(set(question.choices)) < len(question.choices):
            fail(("questions", row, "choices"), f"choices of {question.key!r} need left and right, each choice once")
    if settings.repeats + settings.checks > 0.5:
        fail(("repeats",), "repeats and checks together are more than 0.5; lower one")
