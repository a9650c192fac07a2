"""JSON and YAML as anyone may have written it, within bounds: whatever is wrong with a text is one kind of error.

No other module of the package parses YAML, or JSON that it did not write itself. A short text can stand for more than
any machine holds: references that multiply each other, brackets within brackets, numbers of a million digits. Such a
text is refused before anything is built of it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from seedpo.files import read_bytes

DEPTH = 100
"""How deeply values may lie within each other."""

DIGITS = 250
"""Characters of a number at most, in YAML of any value that is no text: whatever the base, a float can hold it."""

JSON_BYTES, JSON_VALUES = 1 << 26, 5 * 10**6
"""Bytes of a text of JSON, and values in it."""

YAML_SIZE, YAML_VALUES = 1 << 18, 20_000
"""Characters of a text of YAML, and values in it, of which each reference counts as all that it stands for."""

UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError)
"""What reading a document raises if it is missing or damaged, and using it if it has another shape than expected."""

_TEXT = "tag:yaml.org,2002:str"


def parse_json(text: str | bytes) -> Any:
    """What a text of JSON says.

    Raises:
        ValueError: if it is none, gives a key two values, exceeds a bound, or holds NUL or half a surrogate pair.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    if text.count(",") > JSON_VALUES:
        raise ValueError(f"more than {JSON_VALUES:,} values")
    try:
        content = _DECODER.decode(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if text.count("[") + text.count("{") > DEPTH or "\\u" in text:
        _check(content)
    return content


def read_json(path: Path) -> Any:
    """What a file of JSON, in UTF-8, says.

    Raises:
        OSError: if it cannot be read, is no regular file, or is larger than :data:`JSON_BYTES`.
        ValueError: as :func:`parse_json`.
    """
    return parse_json(read_bytes(path, largest=JSON_BYTES, text=True))


def parse_yaml(text: str) -> Any:
    """What a text of YAML says, without objects of Python.

    Raises:
        ValueError: if it is none, gives a key twice, holds a value that its type does not allow (a month 13), exceeds a
            bound, or holds NUL or half a surrogate pair. What PyYAML says of the place is the cause.
    """
    return _loaded(_Values, text)


def parse_yaml_texts(text: str) -> Any:
    """What a text of YAML says if every value is taken for text, whatever it looks like.

    Raises:
        ValueError: as :func:`parse_yaml`, and for every reference.
    """
    return _loaded(_Texts, text)


def compose_yaml(text: str) -> yaml.Node | None:
    """The nodes of a text of YAML, which tell the lines of its values; ``None`` if it holds nothing.

    Raises:
        ValueError: as :func:`parse_yaml`, but for values that their types do not allow.
    """
    node: yaml.Node | None = _loaded(_Values, text, "get_single_node")
    return node


def read_yaml(path: Path) -> Any:
    """What a file of YAML, in UTF-8, says.

    Raises:
        OSError: if it cannot be read, is no regular file, or is larger than four bytes for each of :data:`YAML_SIZE`.
        ValueError: as :func:`parse_yaml`.
    """
    return parse_yaml(read_bytes(path, largest=4 * YAML_SIZE, text=True).decode("utf-8"))


class _Values(yaml.SafeLoader):
    """Builds values of a text, and refuses it as soon as a bound is passed."""

    references = True
    values = YAML_VALUES
    size = YAML_SIZE

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._count = 0
        self._counts: dict[str, int] = {}
        """Values that each complete anchor stands for."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """The next node; a reference to what it lies in, or to nothing, is refused."""
        event, before = self.peek_event(), self._count  # type: ignore[no-untyped-call]
        refers = isinstance(event, yaml.AliasEvent)
        if refers and not self.references:
            raise _fault(f"the alias *{event.anchor} may not be used here; write out what it stands for", event)
        if refers and event.anchor not in self._counts:
            raise _fault(f"the alias *{event.anchor} stands for nothing that is complete before it", event)
        self._depth += 1
        self._count += self._counts[event.anchor] if refers else 1
        if self._depth > DEPTH or self._count > self.values:
            raise _fault("nested too deeply" if self._depth > DEPTH else f"more than {self.values:,} values", event)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if event.anchor is not None and not refers:
            self._counts[event.anchor] = self._count - before
        _check_node(node)
        return node


class _Texts(_Values):
    """Takes each scalar for text, of which there may be more: prompts are many."""

    references = False
    values = 10 * YAML_VALUES
    size = 1 << 24

    def resolve(self, kind: type[yaml.Node], value: str, implicit: Any) -> str:
        """The tag of a value, which its looks do not change."""
        return _TEXT if kind is yaml.ScalarNode else super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]


def _loaded(kind: type[_Values], text: str, what: str = "get_single_data") -> Any:
    try:
        if len(text) > kind.size:
            raise ValueError(f"{len(text):,} characters are more than the {kind.size:,} of the longest text")
        content = getattr(kind(text), what)()
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError) as error:  # its constructors raise all
        raise ValueError(str(error) or type(error).__name__) from error
    if not isinstance(content, yaml.Node):
        _check(content)
    return content


def _check_node(node: yaml.Node | None) -> None:
    if isinstance(node, yaml.ScalarNode) and node.tag != _TEXT and len(node.value) > DIGITS:
        raise _fault(f"{len(node.value):,} characters are too many for a value that is no text", node)
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise _fault(f"{key.value[:80]} occurs twice; remove one", key)
            seen.add(key.value)


def _fault(problem: str, place: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=place.start_mark)


def _check(content: Any) -> None:
    """Walks through all values, level by level: they must not lie too deep, and their texts be such."""
    level = [content]
    for _ in range(DEPTH + 1):
        below: list[Any] = []
        for value in level:
            if isinstance(value, str):
                value.encode()  # raises a ValueError for half a surrogate pair
                if "\0" in value:
                    raise ValueError("a text holds a NUL character")
            elif isinstance(value, dict):
                below += [*value, *value.values()]
            elif isinstance(value, list | tuple | set):
                below += value
        if not below:
            return
        level = below
    raise ValueError("nested too deeply")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        double = next((key for key, value in pairs if value != values[key]), None)
        if double is not None:
            raise ValueError(f"it gives {double[:80]!r} two values")
    return values


def _integer(digits: str) -> int:
    if len(digits) > DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer)
