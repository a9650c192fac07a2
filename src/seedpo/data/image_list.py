"""Image files that a user names, in one order, each with its prompt."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from glob import has_magic
from pathlib import Path, PurePosixPath
from typing import Protocol, TypeVar

from PIL import Image

from seedpo.data.files.inventory import Inventory
from seedpo.data.files.patterns import matches
from seedpo.data.files.search import PassedOver, passed_over, search
from seedpo.data.images.image_files import is_image_file
from seedpo.data.images.places import existing, named, plain_name
from seedpo.data.images.rgb import decoded, size_of_file
from seedpo.data.prompts.reading import PromptRecord, read_prompts
from seedpo.data.text import shown, value_fault
from seedpo.documents import read_json
from seedpo.errors import DataError
from seedpo.files import exists, read_bytes

logger = logging.getLogger(__name__)

Read = TypeVar("Read")

INDEX = "index.json"
"""File that `seedpo sample` writes beside its images: a list of ``{"file": ..., "prompt": ...}``."""

FILES = ("file", "file_name", "image", "path")
"""Keys of a record that name its image."""

_FORMS = "give one line for each image, or records with file and prompt"


class Picture(Protocol):
    """An image that is read when it is needed."""

    @property
    def name(self) -> str:
        """Where it lies, for messages; that of no other."""

    @property
    def prompt(self) -> str | None:
        """What it was made for; `None` if that is not known."""

    def state(self) -> str:
        """What changes with its file."""

    def size(self) -> tuple[int, int]:
        """Width and height in pixels as it stands upright.

        Raises:
            DataError: if it is not an image; the message names it.
        """

    def pixels(self) -> Image.Image:
        """The image, upright, in RGB.

        Raises:
            DataError: if it cannot be read; the message names it.
        """


@dataclass(frozen=True, kw_only=True)
class ListedImage:
    """An image file, a :class:`Picture`.

    Attributes:
        path: as the user's words lead to it.
        prompt: what it was made for; `None` until it is known.
    """

    path: Path
    prompt: str | None = None

    @property
    def name(self) -> str:
        """The path."""
        return str(self.path)

    def state(self) -> str:
        """Bytes and time of the last change; empty if there is no file."""
        try:
            facts = self.path.stat()
        except OSError:
            return ""
        return f"{facts.st_size} {facts.st_mtime_ns}"

    def size(self) -> tuple[int, int]:
        """Width and height; see :func:`size_of`."""
        return size_of(self.path)

    def pixels(self) -> Image.Image:
        """The image; see :func:`pixels_of`."""
        return pixels_of(self.path)


def find_images(places: Sequence[str]) -> list[ListedImage]:
    """All images of some files, folders, patterns and folders of `seedpo sample`, each once.

    They are sorted by their paths as people count, 2 before 10, whatever the order of the places. Folders are searched
    to any depth, linked ones too. Hidden files and folders are left out; the log counts what is passed over.

    Args:
        places: a file; a folder; a pattern with ``*``, ``?`` or ``**``; or a folder with ``index.json``, whose images
            are those that it names, with their prompts.

    Raises:
        DataError: if there is no image; the message names the place.
    """
    images: dict[Path, ListedImage] = {}
    for place in places:
        for image in _at(place):
            images.setdefault(image.path.resolve(), image)
    return sorted(images.values(), key=lambda image: [_as_counted(part) for part in image.path.parts])


def _at(place: str) -> list[ListedImage]:
    path = Path(place)
    if exists(path) and path.is_file():
        return [ListedImage(path=path)]
    if exists(path) and path.is_dir():
        if (path / INDEX).is_file():
            return _indexed(path)
        result = search(path, is_image_file)
        files, passed = result.files, result.passed
    elif has_magic(place):
        files, passed = _matches(place)
    else:
        raise DataError(f"{place} does not exist; name image files, a folder of them, or a pattern such as 'out/*.png'")
    lines = Inventory(origin=place, passed=passed).lines()
    if not files:
        raise DataError(f"{place} holds no image{''.join(f'; {line}' for line in lines)}; name a folder that does")
    for line in lines:
        logger.info("%s: %s", place, line)
    return [ListedImage(path=file) for file in files]


def _matches(pattern: str) -> tuple[tuple[Path, ...], tuple[PassedOver, ...]]:
    """The images that a pattern stands for, and other files that it matches."""
    verdicts = {path: is_image_file(path) for path in matches(pattern) if path.is_file()}
    others = [(path, verdict) for path, verdict in verdicts.items() if isinstance(verdict, str)]
    return tuple(path for path, verdict in verdicts.items() if verdict is True), passed_over(others)


def _indexed(folder: Path) -> list[ListedImage]:
    path = folder / INDEX
    try:
        entries = read_json(path)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read as JSON ({error}); remove it to score all images of the folder"
        ) from error
    if fault := value_fault(entries):
        raise DataError(f"{path} {fault}; remove it to score all images of the folder")
    if isinstance(entries, dict) and "tile" in entries:
        raise DataError(
            f"{folder} holds sheets of many images; draw single ones with `seedpo sample --run RUN --out FOLDER`"
        )
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("file"), str) and isinstance(entry.get("prompt"), str)
        for entry in entries
    ):
        raise DataError(f'{path} is not a list of {{"file": ..., "prompt": ...}}; remove it to score all images there')
    if not entries:
        raise DataError(f"{path} names no image; draw some with `seedpo sample --out {folder}`")
    files = [existing(entry["file"], folder) for entry in entries]
    if None in files:
        absent = entries[files.index(None)]["file"]
        raise DataError(f"{path} names {named(absent)}, which is not there; draw the images again")
    pairs = zip(filter(None, files), entries, strict=True)
    return [ListedImage(path=file, prompt=entry["prompt"]) for file, entry in pairs]


def _as_counted(text: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", text)
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts if part]


def with_prompts(images: Sequence[ListedImage], file: Path) -> list[ListedImage]:
    """Images with the prompts of a file.

    Args:
        images: in the order in which lines are counted.
        file: any that :mod:`seedpo.data.prompts.reading` reads; an empty line is an empty prompt, but for those at the
            end. To go by names rather than by order, records also have ``file``: the end of an image's path, at least
            its name.

    Raises:
        DataError: if the file cannot be read, counts differ, or an image has no prompt or several.
    """
    prompts = read_prompts(file, empty=True)
    names = [_file_of(prompt) for prompt in prompts]
    if not any(names):
        return _in_order(images, [prompt.text for prompt in prompts], file)
    return _by_name(images, [(name, prompt.text) for name, prompt in zip(names, prompts, strict=True)], file)


def _file_of(prompt: PromptRecord) -> str | None:
    """The image that a record names."""
    return next((str(value) for key in FILES if (value := prompt.values.get(key))), None)


def _in_order(images: Sequence[ListedImage], prompts: Sequence[str], file: Path) -> list[ListedImage]:
    if len(prompts) < len(images):
        raise DataError(
            f"{file} holds {len(prompts)} prompts for {len(images)} images; the first without one is "
            f"{images[len(prompts)].path}: {_FORMS}"
        )
    if len(prompts) > len(images):
        raise DataError(
            f"{file} holds {len(prompts)} prompts for {len(images)} images; the first without an image is "
            f"{shown(prompts[len(images)])}, number {len(images) + 1}: {_FORMS}"
        )
    return [replace(image, prompt=prompt) for image, prompt in zip(images, prompts, strict=True)]


def _by_name(images: Sequence[ListedImage], records: Sequence[tuple[str | None, str]], file: Path) -> list[ListedImage]:
    by_name: dict[str, list[int]] = {}
    parts = [tuple(map(_composed, image.path.resolve().parts)) for image in images]
    for row, image in enumerate(images):
        by_name.setdefault(_composed(image.path.name), []).append(row)
    prompts: dict[int, str] = {}
    for name, prompt in records:
        if name is None:
            raise DataError(f"{file}: the prompt {shown(prompt)} names no file, though others do; add its file")
        end = PurePosixPath(plain_name(name)).parts
        end = tuple(part for part in end if part not in (".", "/"))
        rows = [row for row in by_name.get(end[-1] if end else "", []) if parts[row][-len(end) :] == end]
        if len(rows) > 1:
            raise DataError(
                f"{file}: {shown(name)} could be {images[rows[0]].path} or {images[rows[1]].path}; write more "
                "of its path"
            )
        for row in rows:
            if prompts.setdefault(row, prompt) != prompt:
                raise DataError(
                    f"{file} gives {shown(name)} two prompts, {shown(prompts[row])} and {shown(prompt)}; keep one"
                )
    lacking = [image.path for row, image in enumerate(images) if row not in prompts]
    if lacking:
        raise DataError(
            f"{file} holds prompts for {len(prompts)} of {len(images)} images; the first without one is {lacking[0]}: "
            "add its file and prompt"
        )
    return [replace(image, prompt=prompts[row]) for row, image in enumerate(images)]


def _composed(name: str) -> str:
    """A name in one Unicode form (NFC): files of a Mac have another one than tables."""
    return unicodedata.normalize("NFC", name)


def size_of(path: Path) -> tuple[int, int]:
    """Width and height of an image in pixels as it stands upright; its pixels are not decoded.

    Raises:
        DataError: if it is not an image; the message names it.
    """
    return _read(path, size_of_file)


def pixels_of(path: Path) -> Image.Image:
    """An image, upright, in RGB.

    Raises:
        DataError: if it cannot be read; the message names it.
    """
    return _read(path, decoded)


def _read(path: Path, read: Callable[[bytes], Read]) -> Read:
    try:
        return read(read_bytes(path))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    except DataError as error:
        raise DataError(f"{path} is {error}") from error
