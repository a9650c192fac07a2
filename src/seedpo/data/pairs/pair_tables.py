"""The generic table of pairs, written: parquet with the images in it, JSON lines or CSV with paths, or a folder.

All have the columns ``prompt``, ``chosen``, ``rejected``, ``chosen_probability`` and ``source``. A pair is checked
before anything of it is written, so that one that cannot be used costs itself alone.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from seedpo.data.files.inventory import printable
from seedpo.data.images.reading import read_file, read_image, stored_path
from seedpo.data.images.signatures import FORMATS, HEAD, image_format
from seedpo.data.pairs.sets import StoredImage
from seedpo.data.text import csv_lines, value_fault, write_csv
from seedpo.errors import ConfigError, DataError
from seedpo.files import read_head


class TextRow(NamedTuple):
    """A row of a text file; images are paths."""

    prompt: str
    chosen: str
    rejected: str
    chosen_probability: float
    source: str


COLUMNS = TextRow._fields

ROW_GROUP, ROW_GROUP_BYTES = 100, 256 * 2**20
"""Rows, and bytes of images, after which a row group of parquet ends: rows in shuffled order are then read fast."""

TABLE_NAME, IMAGES_NAME = "pairs.jsonl", "images"
"""What a folder of pairs holds: the table, and the folder of its images."""

_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_FEATURES = {
    "prompt": {"dtype": "string", "_type": "Value"},
    "chosen": {"_type": "Image"},
    "rejected": {"_type": "Image"},
    "chosen_probability": {"dtype": "float64", "_type": "Value"},
    "source": {"dtype": "string", "_type": "Value"},
}
SCHEMA = pa.schema(
    [
        ("prompt", pa.string()),
        ("chosen", _IMAGE),
        ("rejected", _IMAGE),
        ("chosen_probability", pa.float64()),
        ("source", pa.string()),
    ],
    metadata={"huggingface": json.dumps({"info": {"features": _FEATURES}})},
)
"""Columns of parquet; the package ``datasets`` reads those of images as images."""

MARGIN = "margin"
"""Column of a table that a reward labelled: by how much it prefers the first image."""


@dataclass(frozen=True, kw_only=True)
class TablePair:
    """A pair as it is written.

    Attributes:
        prompt: what both images were made for.
        chosen: the preferred image.
        rejected: the other image.
        probability: that the first is preferred, 0.5 to 1.
        source: where it comes from.
        margin: by how much a reward prefers the first image; `None` if people chose.
    """

    prompt: str
    chosen: StoredImage
    rejected: StoredImage
    probability: float
    source: str
    margin: float | None = None


class PairTable(Protocol):
    """A table that is being written."""

    image_folder: Path | None
    """What ``pairs.image_folder`` must be for its readers, once it is finished; `None`: nothing."""

    def add(self, pair: TablePair) -> None:
        """Writes a pair.

        Raises:
            DataError: if an image of it cannot be used; nothing of it is written then.
            ConfigError: if such a table cannot hold it.
        """

    def finish(self) -> None:
        """Writes what is left.

        Raises:
            ConfigError: if such a table cannot hold what was added.
        """


class ParquetTable:
    """A parquet file that holds the images as they are stored.

    Args:
        path: where it is written.
        margins: whether it has a column of margins.
    """

    image_folder: Path | None = None

    def __init__(self, path: Path, *, margins: bool = False) -> None:
        self._schema = _with_margins(SCHEMA) if margins else SCHEMA
        self._writer = pq.ParquetWriter(path, self._schema, compression="none", use_dictionary=False)
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0

    def add(self, pair: TablePair) -> None:
        """Writes a pair."""
        images = [_image(pair.chosen, "chosen"), _image(pair.rejected, "rejected")]
        cells = (pair.prompt, *images, pair.probability, printable(pair.source))
        self._rows.append(dict(zip(COLUMNS, cells, strict=True)) | {MARGIN: pair.margin})
        self._bytes += sum(len(image["bytes"]) for image in images)
        if len(self._rows) == ROW_GROUP or self._bytes > ROW_GROUP_BYTES:
            self._flush()

    def finish(self) -> None:
        """Writes the last row group and the file's end."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, self._schema))
        self._rows, self._bytes = [], 0


def _with_margins(schema: pa.Schema) -> pa.Schema:
    features = _FEATURES | {MARGIN: {"dtype": "float64", "_type": "Value"}}
    return schema.append(pa.field(MARGIN, pa.float64())).with_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )


class PathTable:
    """A text file with paths of images that lie where they are.

    Paths begin in the folder of the table if all images lie in it, else in the folder that holds them all, which
    readers must be told.

    Args:
        path: where it is written.
        out: what it will be called.
    """

    def __init__(self, path: Path, out: Path) -> None:
        self.image_folder: Path | None = None
        self._path, self._out = path, out
        self._rows: list[TextRow] = []
        self._folder: str | None = None
        """The folder that holds all images so far."""

    def add(self, pair: TablePair) -> None:
        """Notes a pair."""
        paths = [self._place(pair.chosen, "chosen"), self._place(pair.rejected, "rejected")]
        folders = [os.path.dirname(path) for path in paths]  # noqa: PTH120
        if not all(folder == self._folder for folder in folders):
            self._folder = os.path.commonpath([*folders, *filter(None, [self._folder])])
        self._rows.append(_text_row(pair, *paths))

    def finish(self) -> None:
        """Writes the table."""
        folder, images = Path(os.path.abspath(self._out.parent)), Path(self._folder or "/")  # noqa: PTH100
        if not images.is_relative_to(folder):
            folder = self.image_folder = images
        rows = [
            row._replace(chosen=_name_in(folder, row.chosen), rejected=_name_in(folder, row.rejected))
            for row in self._rows
        ]
        TEXT_WRITERS[self._out.suffix.lower()](rows, self._path)

    def _place(self, image: StoredImage, name: str) -> str:
        path = stored_path(image.content, folder=image.folder)
        if path is None:
            raise ConfigError(
                f"--out {self._out} holds paths, and the images lie within the data; give a name that ends in "
                ".parquet, or a folder, which gets the images as files"
            )
        if not _is_known_image(path):
            _image_file(image, name)
        absolute = os.path.abspath(path)  # noqa: PTH100
        if fault := value_fault(absolute):
            raise DataError(f"{image.name or name}: its path {fault}; rename the file, or write parquet or a folder")
        return absolute


class FolderTable:
    """A folder with a table and with the images as files, each once.

    Args:
        folder: an empty one.
    """

    image_folder: Path | None = None

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rows: list[TextRow] = []
        (folder / IMAGES_NAME).mkdir()

    def add(self, pair: TablePair) -> None:
        """Writes the images of a pair and notes it."""
        files = [_image_file(pair.chosen, "chosen"), _image_file(pair.rejected, "rejected")]
        self._rows.append(_text_row(pair, *map(self._file, files)))

    def finish(self) -> None:
        """Writes the table."""
        _write_json_lines(self._rows, self._folder / TABLE_NAME)

    def _file(self, content: bytes) -> str:
        kind = image_format(content[:HEAD])
        ending = {"JPEG": ".jpg", "PNG": ".png"}.get(kind or "", FORMATS[kind][0] if kind else "")
        name = f"{IMAGES_NAME}/{hashlib.sha256(content).hexdigest()[:32]}{ending}"
        path = self._folder / name
        if not path.exists():
            path.write_bytes(content)
        return name


def _name_in(folder: Path, path: str) -> str:
    """The path from a folder on, which it lies in; both are absolute."""
    return path[len(str(folder)) :].lstrip(os.sep).replace(os.sep, "/")


def _text_row(pair: TablePair, chosen: str, rejected: str) -> TextRow:
    return TextRow(pair.prompt, chosen, rejected, pair.probability, printable(pair.source))


def _image(image: StoredImage, side: str) -> dict[str, Any]:
    content = _image_file(image, side)
    if isinstance(image.content, Mapping):
        path = image.content.get("path")
    else:
        path = stored_path(image.content, folder=image.folder)
    return {"bytes": content, "path": printable(Path(path).name) if isinstance(path, str | Path) else None}


def _is_known_image(path: Path) -> bool:
    """Whether the first bytes of a file tell that it is an image."""
    try:
        return image_format(read_head(path, HEAD)) is not None
    except OSError:
        return False


def _image_file(image: StoredImage, side: str) -> bytes:
    """The bytes of an image file, which is decoded only if its first bytes do not tell that it is one."""
    try:
        content = read_file(image.content, folder=image.folder)
        if image_format(content[:HEAD]) is None:
            read_image(content)
    except DataError as error:
        raise DataError(f"{image.name or side} is {error}") from error
    return content


def _write_json_lines(rows: Sequence[TextRow], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        file.writelines(json.dumps(row._asdict(), ensure_ascii=False) + "\n" for row in rows)


def _write_csv(rows: Sequence[TextRow], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        write_csv(file, [COLUMNS, *rows], quotes_texts=True)
    back = csv_lines(path)
    wrong = [
        row.source
        for row, line in zip(rows, back, strict=False)
        if [line.values.get(name) for name in COLUMNS] != list(map(str, row))
    ]
    if wrong or len(back) != len(rows):
        first = wrong[0] if wrong else rows[-1].source
        raise ConfigError(
            f"CSV cannot hold {len(wrong) or 1} of the pairs as they are, the first of {first}: a prompt or a name has "
            "line ends; give a name that ends in .jsonl or .parquet"
        )


TEXT_WRITERS: Mapping[str, Callable[[Sequence[TextRow], Path], None]] = {
    ".jsonl": _write_json_lines,
    ".csv": _write_csv,
}
"""How a table with paths is written, by the ending of its name."""
