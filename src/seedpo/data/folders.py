"""Pairs in two folders, ``chosen`` and ``rejected``, with files of equal names and captions beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seedpo.data.layouts import PROMPT_COLUMNS
from seedpo.data.rgb import ENDINGS
from seedpo.data.text import csv_lines, json_lines, read_text
from seedpo.errors import DataError

SIDES = ("chosen", "rejected")
CAPTION_FILES = {"metadata.jsonl": json_lines, "captions.csv": csv_lines}
"""Files that hold all captions: one record with ``file_name`` and ``prompt`` (or ``caption``) for each pair."""


class FolderRows:
    """Pairs of ``chosen/NAME.*`` and ``rejected/NAME.*``, sorted by name; subfolders belong to the name.

    The prompt is in ``chosen/NAME.txt`` or ``rejected/NAME.txt``, else in ``metadata.jsonl`` or ``captions.csv`` in the
    folder. A name that lacks an image or a prompt is a row that cannot be read.

    Args:
        root: folder that holds both.

    Raises:
        DataError: if a subfolder is missing or holds no image, there are no captions, or their file cannot be used.
    """

    columns: Sequence[str] = ("prompt", *SIDES)

    def __init__(self, root: Path) -> None:
        self.origin = str(root)
        self._root = root
        self._images = {side: _images(root / side) for side in SIDES}
        self._names = sorted(set().union(*self._images.values()))
        self._captions = _captions(root)
        if not self._captions and not any(self._captions_beside(name) for name in self._names):
            raise DataError(f"{root} holds {len(self._names)} pairs and no caption; {_missing_prompt(self._names[0])}")

    def __len__(self) -> int:
        return len(self._names)

    def values(self, column: str) -> Sequence[Any]:
        """A column, whole; `None` where it cannot be read."""
        return [self._value(row, column) for row in range(len(self))]

    def _value(self, row: int, column: str) -> Any:
        try:
            return self.row(row, [column])[column]
        except DataError:
            return None

    def is_light(self, column: str) -> bool:
        """Always: images are given by their paths."""
        return True

    def lists(self) -> Sequence[str]:
        """None."""
        return ()

    def faults(self) -> Mapping[int, str]:
        """None are known before the rows are read."""
        return {}

    def file_sizes(self) -> Sequence[int]:
        """None: images have files of their own."""
        return ()

    def row(self, row: int, columns: Sequence[str]) -> dict[str, Any]:
        """Some columns of a pair: its prompt, and the paths of its images from the folder on."""
        name = self._names[row]
        return {column: self._prompt(name) if column == "prompt" else self._image(name, column) for column in columns}

    def _image(self, name: str, side: str) -> Path:
        files = self._images[side].get(name, [])
        if len(files) != 1:
            seen = " and ".join(file.name for file in files) or "none"
            raise DataError(f"{self._root} pair {name}: {side}/ must hold one image of this name; it holds {seen}")
        return files[0].relative_to(self._root)

    def _prompt(self, name: str) -> str:
        files = self._captions_beside(name)
        texts = {read_text(path).strip() for path in files}
        if len(texts) == 1:
            return texts.pop()
        if texts:
            raise DataError(f"{self._root} pair {name}: {files[0]} and {files[1]} hold different prompts; keep one")
        if name in self._captions:
            return self._captions[name]
        raise DataError(f"{self._root} pair {name}: there is no prompt; {_missing_prompt(name)}")

    def _captions_beside(self, name: str) -> list[Path]:
        return [path for side in SIDES if (path := self._root / side / f"{name}.txt").is_file()]

    def place(self, row: int) -> str:
        """Folder and name of a pair."""
        return f"{self._root} pair {self._names[row]}"

    def folder(self, row: int) -> Path | None:
        """The folder that holds both."""
        return self._root


def _missing_prompt(name: str) -> str:
    return f"write it into chosen/{name}.txt, or a line for it into {' or '.join(CAPTION_FILES)}"


def _images(folder: Path) -> dict[str, list[Path]]:
    images: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        hidden = path.name.startswith(".")  # macOS writes ._NAME.jpg beside NAME.jpg
        if path.suffix.lower() in ENDINGS and path.is_file() and not hidden:
            images.setdefault(_name(path.relative_to(folder)), []).append(path)
    if not images:
        raise DataError(f"{folder} holds no image; expected are {', '.join(sorted(ENDINGS))}")
    return images


def _name(path: Path) -> str:
    return path.with_suffix("").as_posix() if path.suffix.lower() in ENDINGS else path.as_posix()


def _captions(root: Path) -> dict[str, str]:
    captions: dict[str, str] = {}
    for file, read in CAPTION_FILES.items():
        if not (root / file).is_file():
            continue
        for line in read(root / file):
            prompt = next((line.values[key] for key in PROMPT_COLUMNS if line.values.get(key)), None)
            name = line.values.get("file_name")
            if line.fault or not isinstance(prompt, str) or not isinstance(name, str):
                fault = line.fault or f"has {sorted(line.values)}; expected are file_name and prompt (or caption)"
                raise DataError(f"{root / file} line {line.number} {fault}")
            captions[_name(Path(name.removeprefix("chosen/").removeprefix("rejected/")))] = prompt
    return captions
