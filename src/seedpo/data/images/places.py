"""Where the images of a row are: paths as any system writes them, or files that the text itself holds.

A name is taken as it stands first. Only if there is no such file are Windows' separators, ``file:`` addresses, paths of
Label Studio's server and the other Unicode form of a name tried.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import unicodedata
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote, unquote_to_bytes

from seedpo.data.images.signatures import is_image
from seedpo.data.text import shown, value_fault
from seedpo.errors import DataError

SMALLEST_ENCODED = 40
"""Characters of base64 below which no image file can be."""

LONGEST_NAME = 255
"""Bytes of the longest name of a file on the usual file systems."""

_DATA = re.compile(r"data:([^,]*),", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/_\s-]++[=\s]*")
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_DRIVE = re.compile(r"[A-Za-z]:[/\\]|\\\\")
_FILE = re.compile(r"file:(?://([^/\\]*))?(?=[/\\])", re.IGNORECASE)
_SERVED = re.compile(r"/data/(?:local-files/\?d=(.+)|(upload/.+))", re.DOTALL)
"""Where Label Studio serves files of its document root, and of its folder of media, from."""

_FOLDER = "set pairs.image_folder to the folder that holds the images"
_FROM_TABLE = f"write it from the table's folder on, or {_FOLDER}"


def embedded_file(text: str) -> bytes | None:
    """The file that a text holds, as a data URI or as bare base64; `None` if the text is a path.

    Raises:
        DataError: if it is a data URI that cannot be decoded.
    """
    head = _DATA.match(text)
    if head:
        encoded = head[1].lower().split(";")[-1].strip() == "base64"
        content = unquote_to_bytes(text[head.end() :])
        return _decoded(content, text) if encoded else content
    if len(text) < SMALLEST_ENCODED or not _BASE64.fullmatch(text):
        return None
    longest = max(map(len, re.split(r"[/\s]", text)))
    if longest <= LONGEST_NAME and len(text) <= 4 * LONGEST_NAME and not _begins_as_image(text):
        return None
    return _decoded(text.encode(), text)


def _begins_as_image(text: str) -> bool:
    try:
        return is_image(_decoded("".join(text.split())[:96].encode(), text))
    except DataError:
        return False


def _decoded(content: bytes, text: str) -> bytes:
    """Base64 of either alphabet, with line ends or blanks in it, whatever its padding."""
    plain = b"".join(content.split()).rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
    try:
        return base64.b64decode(plain + b"=" * (-len(plain) % 4), validate=True)
    except binascii.Error as error:
        raise DataError(f"{named(text)} is no whole base64 ({error}); write the data again") from error


def located(content: str | Path, folder: Path | None) -> Path:
    """The path of a file that a row names.

    Args:
        content: a path, or a ``file:`` address; what the reader found itself is a `Path`.
        folder: where relative paths begin and within which all must lie; links in it may lead out of it. `None`: there
            can be no paths.

    Raises:
        DataError: if it can be no path here, or lies outside the folder; the caller adds where.
    """
    text = str(content)
    if isinstance(content, str) and (fault := value_fault(text)):
        raise DataError(f"{named(text)} is no path: it {fault}")
    address = _FILE.match(text)
    if _ADDRESS.match(text) and not address:
        raise DataError(f"{named(text)} is an address: download the file first")
    if folder is None:
        raise DataError(f"{named(text)} is a path, and there is no folder for it; {_FOLDER}")
    name = _file_path(text, address) if address else text
    served = _SERVED.match(name)
    if served and not _exists(folder / name):
        name = unquote(served[1] or served[2]).lstrip("/")
        if fault := value_fault(name):
            raise DataError(f"{named(text)} is no path: it {fault}")
    path = _within(folder, name, text)
    if _exists(path):
        return path
    if os.name != "nt" and _DRIVE.match(name):
        raise DataError(f"{named(text)} is a path on a drive of Windows; {_FROM_TABLE}")
    path = _within(folder, name.replace("\\", "/"), text)
    return path if _exists(path) else _same_name(path, folder) or path


def existing(text: str, folder: Path) -> Path | None:
    """The file that a list beside images names, in whatever form; `None` if there is none within the folder."""
    try:
        path = _within(folder, text, text)
        path = path if path.is_file() else located(text, folder)
        return path if path.is_file() else None
    except (DataError, OSError, ValueError):
        return None


def named(path: str | Path) -> str:
    """A path as messages name it: as it is, if it is short and can be printed."""
    text = str(path)
    return text if text.isprintable() and len(text) <= LONGEST_NAME else shown(text, LONGEST_NAME)


def plain_name(text: str) -> str:
    """A path as two are compared: with ``/``, without ``./`` at its beginning, composed (Unicode's form NFC)."""
    address = _FILE.match(text)
    path = unquote_to_bytes(text[address.end() :]).decode(errors="surrogateescape") if address else text
    return unicodedata.normalize("NFC", re.sub(r"^(?:\./+)+", "", path.replace("\\", "/")))


def _file_path(text: str, address: re.Match[str]) -> str:
    """The path of a ``file:`` address."""
    if (address[1] or "localhost").lower() != "localhost":
        raise DataError(
            f"{named(text)} names a machine, {named(address[1])}; a path follows file:/// with three slashes"
        )
    path = unquote_to_bytes(text[address.end() :]).decode(errors="surrogateescape")
    if "\0" in path:
        raise DataError(f"{named(text)} is no path: it holds a NUL character")
    return path[1:] if _DRIVE.match(path[1:]) else path


def _within(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    if not Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder)):  # noqa: PTH100
        raise DataError(f"{named(text)} lies outside the folder {folder}; {_FOLDER}")
    return path


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that is too long
        return False


def _same_name(path: Path, folder: Path) -> Path | None:
    """The one file whose path is equal in Unicode's composed form; `None` if there is none."""
    if path.as_posix().isascii():
        return None
    here = folder
    for part in Path(os.path.relpath(path, folder)).parts:
        names = [part] if _exists(here / part) else _names(here).get(unicodedata.normalize("NFC", part), [])
        if len(names) > 1:
            raise DataError(f"{path} could be either of {len(names)} files whose names look the same; rename one")
        if not names:
            return None
        here = here / names[0]
    return here


def _names(folder: Path) -> dict[str, list[str]]:
    try:
        return _listed(folder, folder.stat().st_mtime_ns)
    except OSError:
        return {}


@lru_cache(maxsize=64)
def _listed(folder: Path, _changed: int) -> dict[str, list[str]]:
    """The names in a folder by their composed form."""
    names: dict[str, list[str]] = {}
    for name in os.listdir(folder):  # noqa: PTH208
        names.setdefault(unicodedata.normalize("NFC", name), []).append(name)
    return names
