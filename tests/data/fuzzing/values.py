"""Values and rows as they come: near those of a sound set, and some that no reader expects."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from hypothesis import strategies as st

from tests.data.pictures import BLUE, RED, image_file

Row = dict[str, Any]

PATHS = st.sampled_from(
    [
        "red.png",
        "blue.png",
        "./red.png",
        ".\\blue.png",
        "no.png",
        "",
        " red.png ",
        "../red.png",
        "/red.png",
        "C:\\pictures\\red.png",
        "file:///red.png",
        "file://red.png",
        "file://%00%ff",
        "https://host/red.png",
        "data:image/png;base64,iVBORw0KGgo=",
        "data:,",
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==",
        "A" * 6000,
        "red.png\0",
        "\ud83d.png",
        "r\u00e9d.png",
        "re\u0301d.png",
        "a/" * 600 + "red.png",
        "n" * 300 + ".png",
        "~/red.png",
        "~nobody/red.png",
        ".",
        "..",
        "sub",
        "pairs.jsonl",
        "red.png/inner.png",
        "\nred.png",
        "\x1b[31mred.png",
    ]
)
"""Names of images: of files that are there, and of all sorts."""

WORDS = st.one_of(
    st.sampled_from(
        [
            "",
            " ",
            "a star",
            "a \ud83d star",
            "\udc00\ud800",
            "nul\0",
            "two\nlines",
            "line\u2028separator\u2029\x85\x0b\x0c",
            'a 50" tv',
            '"',
            "tab\there",
            "a;b,c",
            "=1+1",
            "[]",
            "{",
            "\ufeff",
            "\u202e",
            "\x1b[2J",
            "nan",
            "1e999",
            "9" * 400,
            "x" * 9000,
        ]
    ),
    st.text(st.characters(), max_size=12),
)

NUMBERS = st.one_of(
    st.integers(-2, 2),
    st.sampled_from([0.5, 0.7, 1.0, -1.0, 1.5, 1e308, -1e308, 2**63, -(2**63) - 1, 2**64, 10**400, 10**4000, -0.0]),
    st.floats(),
)

SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, WORDS, PATHS)


def _deep(depth: int, kind: str) -> Any:
    value: Any = "end"
    for _ in range(depth):
        value = [value] if kind == "list" else {"key": value}
    return value


VALUES = st.one_of(
    SCALARS,
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "bytes", "path", ""]), inner),
        max_leaves=5,
    ),
    st.builds(_deep, st.sampled_from([5, 99, 101, 300]), st.sampled_from(["list", "map"])),
)
"""Anything that JSON can say, and more."""


@cache
def picture(kind: str = "PNG", colour: tuple[int, int, int] = RED) -> bytes:
    return image_file(colour, kind=kind)


def files() -> Mapping[str, bytes]:
    """The images that tables name."""
    return {"red.png": picture(), "blue.png": picture(colour=BLUE), "red.webp": picture("WEBP")}


SOUND: Mapping[str, Row] = {
    "plain": {"prompt": "a star", "chosen": "red.png", "rejected": "blue.png"},
    "probability": {"caption": "a star", "chosen": "red.png", "rejected": "blue.png", "chosen_probability": 0.8},
    "pickapic": {"caption": "a star", "jpg_0": "red.png", "jpg_1": "blue.png", "label_0": 1, "label_1": 0},
    "judged": {"prompt": "a star", "chosen": "red.png", "rejected": "blue.png", "has_label": True},
    "one label": {"caption": "a star", "jpg_0": "red.png", "jpg_1": "blue.png", "label_0": 1},
    "hpdv2": {"prompt": "a star", "image_path": ["red.png", "blue.png"], "human_preference": [1, 0]},
    "hpdv3": {"prompt": "a star", "path1": "red.png", "path2": "blue.png", "confidence": 0.9, "choice_dist": [9, 1]},
    "rewarddb": {"prompt": "a star", "prompt_id": "p", "image_path": "red.png", "rank": 1},
    "ranked": {"prompt": "a star", "images": ["red.png", "blue.png", "red.webp"], "ranks": [1, 2, 3]},
    "rejected list": {"prompt": "a star", "chosen": "red.png", "rejected": ["blue.png", "red.webp"]},
    "rapidata": {
        "prompt": "a star",
        "image1": "red.png",
        "image2": "blue.png",
        "weighted_results_image1_preference": 3.0,
        "weighted_results_image2_preference": 1.0,
    },
    "likes": {"prompt": "a star", "image": "red.png", "liked": 1},
    "talk": {"prompt": [{"role": "user", "content": "a star"}], "chosen": "red.png", "rejected": "blue.png"},
    "score": {"prompt": "a star", "image": "red.png", "score": 3.5},
    "file": {"prompt": "a star", "file": "red.png", "file_name": "red.png", "category": "sky"},
}
"""A sound row of each layout."""

KEYS = sorted({key for row in SOUND.values() for key in row} | {"", "split", "source", "a\nb", "\ud800"})


@st.composite
def tables(draw: st.DrawFn, values: st.SearchStrategy[Any] = VALUES, most: int = 6) -> list[Row]:
    """Rows of one layout; in some of them a value is another one, a key is missing, or one is added."""
    sound = SOUND[draw(st.sampled_from(sorted(SOUND)))]
    rows = [dict(sound) for _ in range(draw(st.integers(1, most)))]
    for row in rows:
        for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2]))):
            key = draw(st.sampled_from(sorted(sound)) | st.sampled_from(KEYS))
            what = draw(st.sampled_from(["change", "change", "change", "remove", "add"]))
            if what == "remove":
                row.pop(key, None)
            else:
                row[key] = draw(values | PATHS | WORDS)
    return rows


def as_json_lines(rows: Sequence[Row], *, ascii_only: bool) -> str:
    return "".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in rows)


def as_json_list(rows: Sequence[Row], *, indent: int | None) -> str:
    return json.dumps(rows, indent=indent)


def as_separated(rows: Sequence[Row], *, separator: str, ends: str, quoting: int) -> str:
    """CSV with any separator; nested values as JSON."""
    text = io.StringIO(newline="")
    names = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.writer(text, delimiter=separator, lineterminator=ends, quoting=quoting, escapechar="\\")  # type: ignore[arg-type]
    writer.writerow(names)
    for row in rows:
        cells = [row.get(name) for name in names]
        writer.writerow([json.dumps(cell) if isinstance(cell, list | dict) else _cell(cell) for cell in cells])
    return text.getvalue()


def _cell(value: Any) -> Any:
    return (
        f"{value:.3e}"[:20]
        if isinstance(value, int) and abs(value) < 1e300 and abs(value) > 1e15
        else ("9" * 500 if isinstance(value, int) and abs(value) >= 1e300 else value)
    )


@st.composite
def texts(draw: st.DrawFn, rows: st.SearchStrategy[list[Row]]) -> str:
    """Rows as text, in one of the forms in which they are met."""
    content = draw(rows)
    form = draw(st.sampled_from(["lines", "lines", "list", "named list", "csv", "csv", "tsv", "semicolons", "deep"]))
    if form == "lines":
        return as_json_lines(content, ascii_only=draw(st.booleans()))
    if form == "list":
        return as_json_list(content, indent=draw(st.sampled_from([None, 1])))
    if form == "named list":
        return json.dumps({draw(st.sampled_from(["data", "rows", "x", "annotations"])): content, "version": 1})
    if form == "deep":  # as no writer makes it
        return as_json_lines(content, ascii_only=True) + f'{{"prompt": {DEEP.decode()}}}\n'
    separator = {"csv": ",", "tsv": "\t", "semicolons": ";"}[form]
    quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    return as_separated(content, separator=separator, ends=draw(st.sampled_from(["\n", "\r\n", "\r"])), quoting=quoting)


DEEP = b"<deep>"
"""Stands for lists within lists, more of them than Python can follow."""


def expanded(content: bytes) -> bytes:
    """A file with what :data:`DEEP` stands for."""
    return content.replace(DEEP, b"[" * 20_000 + b"]" * 20_000)


ENCODINGS = st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "cp1252", "latin-1"])


def encoded_text(text: str, encoding: str) -> bytes:
    """Text as bytes; half an emoji stays as three bytes that are not UTF-8."""
    return text.encode(encoding, "surrogatepass" if encoding.startswith("utf") else "replace")
