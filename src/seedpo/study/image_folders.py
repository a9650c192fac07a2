"""Images and their prompts in folders: of ``seedpo sample``, of ``seedpo evaluate``, and any others.

=================================  ============================================================================
folder                             prompts
=================================  ============================================================================
of ``seedpo sample``               ``index.json`` in it
of ``seedpo evaluate``             ``prompts.jsonl`` in it or above ``images/MODEL/00007-03.png``
names that begin with a number     ``--prompts``: line 1 is for 0 (007.png, 007-00.png, 007-01.png)
one folder for each prompt         ``--prompts``, in the order of the folders' names, or ``prompt.txt`` in each
any other names                    a text beside each image (cat.png, cat.txt)
=================================  ============================================================================
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from seedpo.data.files.inventory import Inventory
from seedpo.data.files.search import search, visible_folders
from seedpo.data.images.image_files import is_image_file
from seedpo.data.images.places import existing, named
from seedpo.data.prompts.reading import PromptRecord, read_prompts
from seedpo.data.text import read_text, value_fault
from seedpo.documents import read_json
from seedpo.errors import DataError

logger = logging.getLogger(__name__)

_NUMBER = re.compile(r"(\d+)(?:[-_ ](\d+))?")


@dataclass(frozen=True)
class PromptImages:
    """The images of one prompt.

    Attributes:
        prompt: text of the prompt.
        images: files, in the order of their latents.
        category: of the prompt; may be empty.
    """

    prompt: str
    images: tuple[Path, ...]
    category: str = ""


def read_images(folder: Path, prompts: Sequence[PromptRecord] | None = None) -> list[PromptImages]:
    """The images of a folder by prompt.

    Args:
        folder: see the table above.
        prompts: for folders whose files are numbered; other folders take only categories from them.

    Raises:
        DataError: the folder holds no image, or the prompt of an image is unknown.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; name one with images, for example from seedpo sample --out")
    if (folder / "index.json").is_file():
        items = _grouped(_indexed(folder))
    elif folder.parent.name == "images" and (folder.parent.parent / "prompts.jsonl").is_file():
        items = _numbered(folder, read_prompts(folder.parent.parent / "prompts.jsonl"))
    else:
        items = _plain(folder, prompts)
    categories = {prompt.text: prompt.category for prompt in prompts or ()}
    return [replace(item, category=item.category or categories.get(item.prompt, "")) for item in items]


def evaluated_models(folder: Path) -> Mapping[str, Path]:
    """Folders with the images of each target of ``seedpo evaluate``.

    Raises:
        DataError: it is not such a folder.
    """
    images = folder / "images"
    models = {path.name: path for path in visible_folders(images)} if images.is_dir() else {}
    if not models or not (folder / "prompts.jsonl").is_file():
        raise DataError(f"{folder} is not from seedpo evaluate (prompts.jsonl and images/TARGET); check the path")
    return models


def _indexed(folder: Path) -> list[tuple[str, Path]]:
    path = folder / "index.json"
    try:
        entries = read_json(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error}); draw the images again") from error
    if fault := value_fault(entries):
        raise DataError(f"{path} {fault}; draw the images again")
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("file"), str) and isinstance(entry.get("prompt"), str)
        for entry in entries
    ):
        raise DataError(f'{path} is not a list of {{"file": ..., "prompt": ...}} as seedpo sample writes it')
    images: list[tuple[str, Path]] = []
    for entry in entries:
        file = existing(entry["file"], folder)
        if file is None:
            raise DataError(f"{path} names {named(entry['file'])}, which does not exist; draw the images again")
        images.append((entry["prompt"], file))
    return images


def _plain(folder: Path, prompts: Sequence[PromptRecord] | None) -> list[PromptImages]:
    files = _files(folder)
    inner = sorted((path for path in visible_folders(folder) if _files(path)), key=_natural_order)
    _report([folder, *([] if files else inner)])
    if files and prompts is not None:
        return _numbered(folder, prompts)
    if files:
        return _grouped([(_text(file.with_suffix(".txt"), file), file) for file in files])
    if not inner:
        raise _no_image(folder)
    if prompts is None:
        prompts = [PromptRecord(_text(path / "prompt.txt", path)) for path in inner]
    if len(prompts) != len(inner):
        raise DataError(f"{folder} holds {len(inner)} folders and --prompts {len(prompts)} prompts; give one for each")
    return [
        PromptImages(prompt.text, tuple(_files(path)), prompt.category)
        for prompt, path in zip(prompts, inner, strict=True)
    ]


def _numbered(folder: Path, prompts: Sequence[PromptRecord]) -> list[PromptImages]:
    by_number: dict[int, list[Path]] = {}
    for file in _files(folder):
        match = _NUMBER.fullmatch(file.stem)
        if match is None:
            raise DataError(f"{file}: the name has no number of a prompt (such as 00007-03.png); rename it")
        if int(match[1]) >= len(prompts):
            raise DataError(f"{file} is for prompt {int(match[1])}, and there are {len(prompts)}, counted from 0")
        by_number.setdefault(int(match[1]), []).append(file)
    if not by_number:
        raise _no_image(folder)
    return [PromptImages(prompts[row].text, tuple(by_number[row]), prompts[row].category) for row in sorted(by_number)]


def _no_image(folder: Path) -> DataError:
    return DataError(f"{folder} holds no image; name a folder with images, or with one folder for each prompt")


def _grouped(files: Sequence[tuple[str, Path]]) -> list[PromptImages]:
    by_prompt: dict[str, list[Path]] = {}
    for prompt, file in files:
        by_prompt.setdefault(prompt, []).append(file)
    return [PromptImages(prompt, tuple(paths)) for prompt, paths in by_prompt.items()]


def _files(folder: Path) -> list[Path]:
    files = search(folder, is_image_file, deep=False).files
    return sorted((path for path in files if path.name != "sheet.png"), key=_natural_order)


def _report(folders: Sequence[Path]) -> None:
    """Says in the log what is passed over, but for the texts of prompts."""

    def wanted(path: Path) -> bool | str:
        return is_image_file(path) if path.suffix.lower() != ".txt" else False

    passed = tuple(entry for folder in folders for entry in search(folder, wanted, deep=False).passed)
    for line in Inventory(origin=str(folders[0]), passed=passed).lines():
        logger.info("%s: %s", folders[0], line)


def _natural_order(path: Path) -> list[tuple[int, str]]:
    """Sorts 2 before 10."""
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts if part]


def _text(path: Path, of: Path) -> str:
    if not path.is_file():
        raise DataError(f"{of} has no prompt: give --prompts FILE, or write it into {path}")
    text = read_text(path).strip()
    if fault := value_fault(text):
        raise DataError(f"{path} {fault}; fix it")
    return text
