"""Prompts by a registered name or from a file, whose content says which format it has; its ending never decides alone.

=====================  ===================================================================================
content                prompts
=====================  ===================================================================================
text                   each line that is not blank
JSON                   a list of texts or objects, an object that holds one, or JSON lines
YAML                   a list: every line begins with ``-``, or the file ends in ``.yaml``
CSV, TSV               a column ``prompt`` (else ``caption``), of any case, in the first line
parquet                a column ``prompt`` (else ``caption``)
a table of questions   ``text``, once for all rows of an ``item_id``: DSG (arXiv 2310.18235) and DPG-Bench
=====================  ===================================================================================

Text that begins with a bracket and is no JSON, such as ``[portrait] of a fox``, is text. JSON that is damaged is an
error: prompts are few, and none is left out in silence.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from seedpo.data.catalogue import PROMPTS
from seedpo.data.layouts import PROMPT_COLUMNS
from seedpo.data.layouts.prompts import prompt_text
from seedpo.data.text import read_text, shown, value_fault
from seedpo.data.text.delimited import delimited, first_line
from seedpo.data.text.objects import ROWS, is_open_list, json_value
from seedpo.data.text.records import TABLE, has_object_line
from seedpo.documents import parse_yaml_texts
from seedpo.errors import ConfigError, DataError
from seedpo.files import exists, read_head
from seedpo.registry import unknown

logger = logging.getLogger(__name__)

CATEGORY = "category"
"""Column of what kind a prompt is, for tables of results."""

ITEM, ITEM_TEXT, QUESTION = "item_id", "text", "question_natural_language"
"""Columns of DSG's tables (arXiv 2310.18235), to which DPG-Bench belongs: a row for each question about an image."""

ITEM_ROWS = "propositions"
"""Key of the rows of such a table that belong to one prompt."""

LONGEST = 100_000
"""Characters of a prompt at most; a file with longer lines holds something else."""

LINES, YAML = frozenset({".jsonl", ".ndjson"}), frozenset({".yaml", ".yml"})
"""Endings of files in which a line, or an entry, may be a text that is quoted or not."""

_SIGNS = re.compile(r'\s*(?:[\[{]\s*$|\[?\s*\{\s*"(?:[^"\\\n]|\\.)*"\s*:|\[\s*"(?s:.*)"\s*\]\s*\Z)', re.MULTILINE)
"""How only JSON looks: it begins with a bracket alone on its line, or with a key, or is a list of texts to its end."""


@dataclass(frozen=True)
class PromptRecord:
    """A prompt of a file.

    Attributes:
        text: the prompt itself.
        category: of what kind it is, for tables; may be empty.
        line: number of its line or entry, from 1, or of its row in parquet, from 0.
        values: of its record, by key; empty if the file holds texts.
    """

    text: str
    category: str = ""
    line: int = 1
    values: Mapping[str, Any] = field(default_factory=dict)


def names_a_file(name: str) -> bool:
    """Whether a text stands for a file of prompts, or for nothing, and not for a registered set."""
    return name not in PROMPTS and (name.partition("@")[0] not in PROMPTS or (exists(name) and Path(name).is_file()))


def load_prompts(name: str, *, count: int | None = None, seed: int = 0, count_key: str = "--num-prompts") -> list[str]:
    """The texts of :func:`load_prompt_records`."""
    return [record.text for record in load_prompt_records(name, count=count, seed=seed, count_key=count_key)]


def load_prompt_records(
    name: str, *, count: int | None = None, seed: int = 0, count_key: str = "--num-prompts"
) -> list[PromptRecord]:
    """Prompts of a registered set, of ``NAME@PLACE``, or of a file, with all that is said of them; see the table above.

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
    if not names_a_file(name) and (not at or PROMPTS[head].published):
        if at and not place:
            raise ConfigError(f"prompt set {name}: after @ stands a file or folder, for example {head}@prompts/")
        options: dict[str, Any] = {"place": place} if at else {}
        options |= {"seed": seed} if PROMPTS[head].drawn else {}
        given: Sequence[str | PromptRecord] = PROMPTS.load(head)(**options)
        prompts = [
            PromptRecord(prompt, line=number) if isinstance(prompt, str) else prompt
            for number, prompt in enumerate(given, start=1)
        ]
    elif Path(name).suffix or "/" in name or exists(name):
        prompts = read_prompts(Path(name))
    else:
        raise unknown("prompt set", name, PROMPTS.names(), also="; or a file of prompts")
    if count is not None and count > len(prompts):
        raise ConfigError(f"{count_key} = {count}, but {name} holds {len(prompts)} prompts; ask for fewer")
    return prompts[:count]


def read_prompts(path: Path, *, empty: bool = False) -> list[PromptRecord]:
    """Reads the prompts of a file; see the table above.

    Args:
        path: the file, whatever its ending.
        empty: whether empty prompts count, as they do where each belongs to an image: a blank line, but for those at
            the end, or an empty value. Otherwise blank lines of text are left out, and an empty value is an error.

    Raises:
        DataError: if the file is missing, cannot be read or holds no prompt, or if one of its records has none.
    """
    if not exists(path):
        where = "" if path.is_absolute() else f" in {Path.cwd()}"
        raise DataError(f"prompt file {path} does not exist{where}; write one, with a prompt on each line")
    if path.is_dir():
        raise DataError(f"prompt file {path} is a folder; name a file in it")
    try:
        kind, records = _recognised(path)
        records = _items(path, records)
        prompts = [_prompt(path, record, empty=empty) for record in records if empty or not record.is_blank]
    except DataError as error:
        raise DataError(f"prompt file {error}") from error
    if not prompts and not empty:
        raise DataError(f"prompt file {path} holds no prompt; write one per line")
    logger.info("%s: %d prompts, read as %s", path, len(prompts), kind)
    return prompts


@dataclass(frozen=True)
class _Record:
    """What stands at a place of a file: a text, an object, or what is neither."""

    number: int
    content: object
    unit: str = "line"
    fault: str | None = None
    is_blank: bool = False  # a line of plain text


def _recognised(path: Path) -> tuple[str, list[_Record]]:
    """In which format a file is, in words, and its records."""
    if _head(path) == b"PAR1":
        return "parquet", _parquet(path)
    text = read_text(path)
    content = _json(path, text)
    if content is not None:
        return "JSON", content
    if _is_table(path, text):
        return "a table", [_Record(row.number, row.values, "line", row.fault) for row in delimited(path, text)]
    filled = [line for line in text.split("\n") if line.strip()]
    if path.suffix.lower() in YAML or (filled and all(line.startswith("- ") for line in filled)):
        return "YAML", _entries(path, _yaml(path, text))
    tabs = {line.count("\t") for line in filled}
    if len(filled) > 1 and len(tabs) == 1 and tabs != {0}:
        raise DataError(f"{path} is a table with tabs; name its columns in the first line, one of them prompt")
    lines = enumerate(text.rstrip().split("\n") if filled else (), start=1)
    return "text with a prompt on each line", [_Record(row, line, is_blank=not line.strip()) for row, line in lines]


def _head(path: Path) -> bytes:
    try:
        return read_head(path, 4)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error


def _is_table(path: Path, text: str) -> bool:
    names = [name.strip(' \t"').lower() for name in re.split(r"[\t,;]", first_line(text))]
    return (
        path.suffix.lower() in TABLE.endings
        or any(name in PROMPT_COLUMNS for name in names)
        or {ITEM, ITEM_TEXT, QUESTION} <= set(names)
    )


def _json(path: Path, text: str) -> list[_Record] | None:
    """The records of JSON; `None` if it is something else.

    Raises:
        DataError: if it is damaged JSON, or it is not clear where its prompts are.
    """
    promised = path.suffix.lower() in LINES
    if not text.strip() or not (promised or text.lstrip().startswith(("[", "{")) or has_object_line(text)):
        return None
    try:
        content = json_value(text)
        return _entries(path, [content] if isinstance(content, str) else content)
    except DataError:
        raise
    except ValueError as error:
        fault = error
    lines = [_json_line(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if promised or any(isinstance(line.content, dict) for line in lines):
        return lines
    if _SIGNS.match(text) or is_open_list(text):
        raise DataError(f"{path} begins as JSON and is not ({fault}); fix it, or begin a file of text with a word")
    logger.warning("%s begins with %s and is no JSON: each line is a prompt", path, shown(text.strip()[:20]))
    return None


def _json_line(number: int, line: str) -> _Record:
    try:
        return _Record(number, json_value(line))
    except ValueError as error:
        return _Record(number, None, fault=f"is not JSON ({error})")


def _yaml(path: Path, text: str) -> object:
    """The content of YAML in which every scalar is text; a few lines of references could stand for any number."""
    try:
        return parse_yaml_texts(text)
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} is not a YAML list ({reason[:200]}); write '- ' before each prompt") from error


def _entries(path: Path, content: object) -> list[_Record]:
    """The records of a list, or of an object that holds one.

    Raises:
        DataError: if it is not clear which list holds the prompts.
    """
    if isinstance(content, Mapping):
        key = _key(content)
        if key is not None:
            content = content[key] if isinstance(content[key], list) else [content]
        else:
            lists = {key: value for key, value in content.items() if isinstance(value, list) and value}
            names = list(lists) if len(lists) == 1 else [key for key in lists if key.lower() in ROWS]
            if len(names) != 1:
                raise DataError(f"{path} has the keys {shown(sorted(content), 300)}; write a list of prompts into it")
            content = lists[names[0]]
    if not isinstance(content, list):
        raise DataError(f"{path} is not a list of prompts but {shown(content)}")
    return [_Record(number, entry, "entry") for number, entry in enumerate(content, start=1)]


def _parquet(path: Path) -> list[_Record]:
    """The light columns of a parquet file; images beside prompts are not read."""
    import pyarrow.parquet as pq

    from seedpo.data.tables.parquet import UNREADABLE, require_rows
    from seedpo.data.tables.rows import is_light

    try:
        require_rows(path)
        file = pq.ParquetFile(path)
        names = [column.name for column in file.schema_arrow if is_light(column.type)]
        rows = file.read(columns=names).to_pylist()
    except UNREADABLE as error:
        raise DataError(f"{path} cannot be read as parquet ({error}); write it again") from error
    return [_Record(number, row, "row") for number, row in enumerate(rows)]


def _items(path: Path, records: list[_Record]) -> list[_Record]:
    """One record for each item of a table of questions; the records themselves, if they are something else.

    Raises:
        DataError: if a row is damaged or has other columns, or an item has two texts.
    """
    if not records or not _is_item_row(records[0].content):
        return records
    items: dict[str, _Record] = {}
    for record in records:
        row: Any = _content(path, record)
        place = f"{path} {record.unit} {record.number}"
        if not _is_item_row(row):
            raise DataError(f"{place} has no {ITEM}, {ITEM_TEXT} or {QUESTION}, as the rows before it have; add them")
        prompt = {"prompt": row[ITEM_TEXT], ITEM: row[ITEM], ITEM_ROWS: []}
        item: Any = items.setdefault(str(row[ITEM]), replace(record, content=prompt)).content
        if row[ITEM_TEXT] != item["prompt"]:
            raise DataError(f"{place} gives {ITEM} {shown(row[ITEM])} another text than a row before it; keep one")
        item[ITEM_ROWS].append(row)
    return list(items.values())


def _is_item_row(content: object) -> bool:
    return isinstance(content, Mapping) and {ITEM, ITEM_TEXT, QUESTION} <= set(content)


def _key(values: Mapping[str, Any], names: Sequence[str] = PROMPT_COLUMNS) -> str | None:
    """The key of a record that has one of some names; in any case of letters, if none has it exactly."""
    lower = {str(key).lower(): key for key in reversed(list(values))}
    return next((name for name in names if name in values), None) or next(
        (lower[name] for name in names if name in lower), None
    )


def _content(path: Path, record: _Record) -> object:
    """What a record holds.

    Raises:
        DataError: if it is damaged.
    """
    if fault := record.fault or value_fault(record.content):
        raise DataError(f"{path} {record.unit} {record.number} {fault}; fix or remove it")
    return record.content


def _prompt(path: Path, record: _Record, *, empty: bool) -> PromptRecord:
    place, content = f"{path} {record.unit} {record.number}", _content(path, record)
    values: Mapping[str, Any] = {}
    if isinstance(content, Mapping):
        key = _key(content)
        if key is None:
            raise DataError(f"{place} has the keys {shown(sorted(content), 300)}; expected is {PROMPT_COLUMNS[0]!r}")
        values, content, place = content, content[key], f"{place}: {key}"
    if content is None and empty:
        content = ""
    text = prompt_text(content)
    if text is None:
        raise DataError(f"{place} is not text but {type(content).__name__}; write a prompt")
    text = text.strip()
    if not text and not empty:
        raise DataError(f"{place} is an empty prompt; write it or remove it")
    if len(text) > LONGEST:
        raise DataError(f"{place} has {len(text):,} characters, more than {LONGEST:,}; name a file of prompts")
    category = _key(values, [CATEGORY])
    return PromptRecord(text, str(values[category] or "").strip() if category else "", record.number, values)
