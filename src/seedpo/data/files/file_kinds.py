"""What a file of records is: told by its first bytes, and by its ending only where they tell nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from seedpo.files import read_head

HEAD = 4096
"""Bytes from the beginning of a file that are looked at."""

PARQUET, TAR, JSON_LINES, CSV, JSON = "parquet", "webdataset", "jsonl", "csv", "json"

ENDINGS: Mapping[str, str] = {
    ".parquet": PARQUET,
    ".tar": TAR,
    ".jsonl": JSON_LINES,
    ".ndjson": JSON_LINES,
    ".csv": CSV,
    ".tsv": CSV,
    ".tab": CSV,
    ".json": JSON,
}
"""Kind of a file by the ending of its name."""

FOREIGN: Mapping[bytes, tuple[str, str]] = {
    b"\x1f\x8b": ("files compressed with gzip", "unpack it with gunzip"),
    b"PK\x03\x04": ("zip archives", "unpack it with unzip"),
    b"\x28\xb5\x2f\xfd": ("files compressed with zstd", "unpack it with unzstd"),
    b"BZh": ("files compressed with bzip2", "unpack it with bunzip2"),
    b"\xfd7zXZ\x00": ("files compressed with xz", "unpack it with unxz"),
    b"7z\xbc\xaf\x27\x1c": ("7z archives", "unpack it with 7z x"),
    b"Rar!": ("rar archives", "unpack it with unrar x"),
    b"ARROW1": ("Arrow files", "write it as parquet, or name the whole folder of save_to_disk"),
    b"\xff\xff\xff\xff": ("Arrow streams", "write it as parquet, or name the whole folder of save_to_disk"),
    b"version https://git-lfs": ("pointers of git-lfs", "fetch what they stand for with git lfs pull"),
    b"<": ("web pages", "download the file itself"),
}
"""First bytes of what is no format of pairs: what such files are, in the plural, and what to do with one."""

DESCRIPTIONS = frozenset({"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "config.json"})
"""Files that describe a data set or a model, and hold no rows."""

ROWS_ENDING = ".rows.csv"
"""Ending of the list of rows that `seedpo data convert` writes beside a table."""

_FIELD = re.compile(r'"[\w .:/-]{1,64}"|[\w .:/-]{1,64}')


def head_of(path: Path) -> bytes:
    """The first bytes of a file.

    Raises:
        OSError: if it cannot be read.
    """
    return read_head(path, HEAD)


def kind_of(name: str, head: bytes, *, named: bool = False) -> str | None:
    """The kind of a file; `None` if it is none that holds rows.

    Args:
        name: of the file; its ending decides where the content does not.
        head: its first bytes.
        named: whether the user names this very file: any text whose first line looks like names of columns is a table.
    """
    return _kind_of_content(name, head, named=named) or ENDINGS.get(ending_of(name))


def foreign(head: bytes) -> tuple[str, str] | None:
    """What a file is that is no format of pairs, in the plural, and what to do with one; `None`: unknown."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return next((row for start, row in FOREIGN.items() if head.startswith(start) or text.startswith(start)), None)


def contradicts(name: str, kind: str) -> bool:
    """Whether a file's ending says that it is binary and its content is text, or the other way round."""
    promised = ENDINGS.get(ending_of(name), kind)
    return promised != kind and not {promised, kind} <= {JSON_LINES, CSV, JSON}


def ending_of(name: str) -> str:
    """The ending of a name, in small letters."""
    stem, dot, ending = name.rpartition(".")
    return dot + ending.lower() if stem and ending else ""


def _kind_of_content(name: str, head: bytes, *, named: bool) -> str | None:
    if head.startswith(b"PAR1"):
        return PARQUET
    if head[257:262] == b"ustar":
        return TAR
    text = head.decode("utf-8-sig", errors="replace").lstrip()
    if text.startswith("["):
        return JSON
    if text.startswith("{"):  # an object on each line, or one object on many lines
        return JSON if ending_of(name) == ".json" else JSON_LINES
    is_table = (named or ending_of(name) in ENDINGS) and not _has_object(text) and _is_header(text)
    return CSV if is_table else None


def _has_object(text: str) -> bool:
    return any(line.lstrip().startswith("{") for line in text.split("\n"))


def _is_header(text: str) -> bool:
    """Whether the first line names columns."""
    line, newline, _ = text.partition("\n")
    fields = max((line.strip().split(sign) for sign in ",\t;"), key=len)
    return bool(newline) and len(fields) > 1 and all(_FIELD.fullmatch(field.strip()) for field in fields)
