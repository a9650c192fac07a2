"""Pairs in two folders, ``chosen`` and ``rejected``, with files of equal names and captions beside them."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from seedpo.data.files.file_kinds import ENDINGS as RECORDS
from seedpo.data.files.inventory import Inventory, printable
from seedpo.data.files.search import PassedOver, passed_over, search, visible_folders
from seedpo.data.files.splits import SplitWish, chosen_split, split_of
from seedpo.data.images.image_files import is_image_file
from seedpo.data.images.places import plain_name
from seedpo.data.images.signatures import ENDINGS
from seedpo.data.layouts import PROMPT_COLUMNS
from seedpo.data.layouts.columns import Shape
from seedpo.data.text import read_text, records, shown, value_fault
from seedpo.errors import DataError

SIDES = ("chosen", "rejected")
SIDE_NAMES = (SIDES, ("w", "l"))
"""Names of the two folders: ours, and those of kohya's scripts."""

CAPTION_ENDINGS = (".txt", ".caption")
"""Endings of texts beside images."""

CAPTION_FILES = ("metadata.jsonl", "metadata.csv", "captions.csv")
"""Files that hold all captions: one record with ``file_name`` and ``prompt`` (or ``caption``) for each pair."""

DEPTH = 2
"""Levels below a folder on which its splits may lie: ``train/chosen``, or ``data/train/chosen``."""


def sides_of(folder: Path) -> tuple[str, str] | None:
    """The names of the two folders with the images of pairs; `None` if there are none."""
    return next((names for names in SIDE_NAMES if all((folder / name).is_dir() for name in names)), None)


def folders_of_pairs(root: Path) -> list[Path]:
    """The folders that hold two such folders: ``root`` itself, or else some below it.

    Below it they are not looked for where a table lies beside them: it may name the images in them.
    """
    if sides_of(root):
        return [root]
    if any((root / side).is_dir() for side in SIDES):
        return []
    level = [root]
    for _ in range(DEPTH):
        if any(_is_table(name) for folder in level for name in os.listdir(folder)):  # noqa: PTH208
            return []
        level = [inner for folder in level for inner in visible_folders(folder)]
        if folders := [folder for folder in level if sides_of(folder)]:
            return [] if any(_is_table(path.name) for folder in folders for path in folder.iterdir()) else folders
    return []


def lacks_a_side(root: Path) -> bool:
    """Whether a folder holds one of the two folders, and no table that names what is in it."""
    names = [path.name for path in root.iterdir()]
    return any(side in names for side in SIDES) and not sides_of(root) and not any(map(_is_table, names))


def _is_table(name: str) -> bool:
    return Path(name).suffix.lower() in RECORDS and name not in CAPTION_FILES


def open_folders(root: Path, wish: SplitWish) -> FolderRows:
    """The pairs of a folder, or of one split of it (``train/chosen``, ``test/chosen``).

    Raises:
        DataError: if it holds no pairs, no such split, or several sets.
    """
    folders = folders_of_pairs(root)
    if not folders:
        missing = [side for side in SIDES if not (root / side).is_dir()]
        names = sorted(printable(path.name) + ("/" if path.is_dir() else "") for path in root.iterdir())
        raise DataError(
            f"{root} lacks the folder {' and '.join(missing)}; it holds {', '.join(names[:6]) or 'nothing'}"
        )
    splits = {folder: None if folder == root else split_of(folder / "image", root) for folder in folders}
    split = chosen_split(splits.values(), wish, origin=str(root))
    chosen = [folder for folder in folders if splits[folder] == split]
    if len(chosen) > 1:
        raise DataError(
            f"{root} holds several sets, {', '.join(printable(folder.relative_to(root)) for folder in chosen[:4])}; "
            "name one of them, or all in a list: data=[a/, b/]"
        )
    rows = FolderRows(chosen[0], root=root)
    others = [(folder, f"folders of the split {splits[folder] or '(none told)'}") for folder in folders]
    passed = passed_over(place for place in others if place[0] != chosen[0])
    if chosen[0] != root:
        passed += _beside(root, {folder.relative_to(root).parts[0] for folder in folders})
    notes = (f"split: {split}", *rows.inventory.notes) if split else rows.inventory.notes
    rows.inventory = replace(rows.inventory, notes=notes, passed=(*passed, *rows.inventory.passed))
    return rows


class FolderRows:
    """Pairs of ``chosen/NAME.*`` and ``rejected/NAME.*``, sorted by name; subfolders belong to the name.

    The prompt is in ``chosen/NAME.txt`` or ``rejected/NAME.txt`` (or ``.caption``), else in ``metadata.jsonl`` or
    ``captions.csv`` in the folder, or above the folder of a split. A name that lacks an image or a prompt is a row that
    cannot be read. Names are compared in Unicode's composed form (NFC): macOS writes them decomposed.

    Args:
        folder: that holds both.
        root: folder above it in which a file of captions may lie too; `None`: none.

    Raises:
        DataError: if a subfolder is missing or holds no image, there are no captions, or their file cannot be used.
    """

    columns: Sequence[str] = ("prompt", *SIDES)

    def __init__(self, folder: Path, *, root: Path | None = None) -> None:
        self.origin = str(folder)
        self._root = folder
        self._sides = dict(zip(SIDES, sides_of(folder) or SIDES, strict=True))
        self._images: dict[str, dict[str, list[Path]]] = {}
        self._texts: dict[str, list[Path]] = {}
        passed: list[PassedOver] = []
        for side, name in self._sides.items():
            self._images[side], texts, left_out = _files(folder / name)
            passed += left_out
            for key, paths in texts.items():
                self._texts.setdefault(key, []).extend(paths)
        names: dict[str, str] = {}  # as they are written on the first side that has them
        for side, name in self._sides.items():
            for key, files in self._images[side].items():
                names.setdefault(key, _name(files[0].relative_to(folder / name)))
        self._names, keys = sorted(names.values()), names.keys()
        passed += passed_over(
            (path, "captions of no image") for key, paths in self._texts.items() if key not in keys for path in paths
        )
        self._captions = _Captions(folder, root)
        if not self._captions.prompts and not self._texts.keys() & keys:
            raise DataError(f"{folder} holds {len(self._names)} pairs and no caption; {self._missing(self._names[0])}")
        counts = ", ".join(
            f"{sum(map(len, self._images[side].values()))} in {name}/" for side, name in self._sides.items()
        )
        self.inventory = Inventory(
            origin=self.origin,
            notes=(f"images: {counts}", *self._captions.notes(keys)),
            passed=(*_beside(folder, self._sides.values()), *passed),
        )

    def __len__(self) -> int:
        return len(self._names)

    def values(self, column: str) -> Sequence[Any]:
        """A column, whole; `None` where it cannot be read."""
        return [self._value(row, column) for row in range(len(self))]

    def _value(self, row: int, column: str) -> Any:
        if column != "prompt":
            files = self._images[column].get(_key(self._names[row]), [])
            return files[0].relative_to(self._root) if len(files) == 1 else None
        try:
            return self.row(row, [column])[column]
        except DataError:
            return None

    def is_light(self, column: str) -> bool:
        """Always: images are given by their paths."""
        return True

    def shape(self) -> Shape:
        """One image in each cell."""
        return Shape()

    def lengths(self, column: str) -> Sequence[int | None]:
        """No lists."""
        return [-1] * len(self)

    def faults(self) -> Mapping[int, str]:
        """Names that lack an image or a prompt, or have several images on a side."""
        faults = {row: self._fault(name) for row, name in enumerate(self._names)}
        return {row: fault for row, fault in faults.items() if fault}

    def _fault(self, name: str) -> str | None:
        key = _key(name)
        for side, folder in self._sides.items():
            files = self._images[side].get(key, [])
            if len(files) != 1:
                names = [file.name for file in files] or _others(self._root / folder / name)
                seen = " and ".join(map(printable, names)) or "none"
                return f"{folder}/ must hold one image of this name; it holds {seen}"
        prompts = () if key in self._texts else self._captions.prompts.get(key, ())
        if not prompts and key not in self._texts:
            why = f" ({self._captions.faults[0]})" if self._captions.faults else ""
            return f"there is no prompt{why}; {self._missing(name)}"
        return f"the captions give it {len(prompts)} different prompts; keep one" if len(prompts) > 1 else None

    def file_sizes(self) -> Sequence[int]:
        """None: images have files of their own."""
        return ()

    def row(self, row: int, columns: Sequence[str]) -> dict[str, Any]:
        """Some columns of a pair: its prompt, and the paths of its images from the folder on."""
        name = self._names[row]
        if fault := self._fault(name):
            raise DataError(f"{self.place(row)}: {fault}")
        return {
            column: self._prompt(name)
            if column == "prompt"
            else self._images[column][_key(name)][0].relative_to(self._root)
            for column in columns
        }

    def _prompt(self, name: str) -> str:
        key = _key(name)
        if key not in self._texts:
            return next(iter(self._captions.prompts[key]))
        files = self._texts[key]
        texts = [read_text(path).strip() for path in files]
        other = next((file for file, text in zip(files, texts, strict=True) if text != texts[0]), None)
        if other is not None:
            fault: str | None = f"{files[0]} and {other} hold different prompts; keep one"
        else:
            fault = f"{files[0]} {wrong}; fix it" if (wrong := value_fault(texts[0])) else None
        if fault:
            raise DataError(f"{self.origin} pair {printable(name)}: {fault}")
        return texts[0]

    def _missing(self, name: str) -> str:
        files = " or ".join(CAPTION_FILES)
        return f"write it into {self._sides['chosen']}/{printable(name)}.txt, or a line for it into {files}"

    def place(self, row: int) -> str:
        """Folder and name of a pair."""
        return f"{self.origin} pair {printable(self._names[row])}"

    def folder(self, row: int) -> Path | None:
        """The folder that holds both."""
        return self._root


class _Captions:
    """The prompts of the files of captions in a folder, or in one above it.

    Attributes:
        prompts: different prompts of each pair, by the key of its name.
        faults: what is wrong with single lines.
    """

    def __init__(self, folder: Path, root: Path | None) -> None:
        self.prompts: dict[str, dict[str, None]] = {}
        self.faults: list[str] = []
        self._sides = sides_of(folder) or SIDES
        above = [] if root in (None, folder) else [part for part in folder.parents if root in (part, *part.parents)]
        for place in (folder, *above):
            for path in [place / file for file in CAPTION_FILES if (place / file).is_file()]:
                self._read(path, "" if place == folder else f"{folder.relative_to(place).as_posix()}/")

    def _read(self, path: Path, prefix: str) -> None:
        lines = records(path)
        faults = []
        for line in lines:
            prompt = next((line.values[key] for key in PROMPT_COLUMNS if line.values.get(key)), None)
            name = line.values.get("file_name")
            if line.fault or not isinstance(prompt, str) or not isinstance(name, str):
                fault = (
                    line.fault or f"has {shown(sorted(line.values))}; expected are file_name and prompt (or caption)"
                )
                faults.append(f"{line.place} {fault}")
            elif name.startswith(prefix):
                key = _key_of_record(name.removeprefix(prefix), self._sides)
                self.prompts.setdefault(key, {})[prompt] = None
        if faults and len(faults) == len(lines):
            raise DataError(faults[0])
        self.faults += faults

    def notes(self, keys: Collection[str]) -> tuple[str, ...]:
        """What is not used of the files: lines with a fault, and those of no image."""
        notes = [f"lines of captions that cannot be used: {len(self.faults)} ({self.faults[0]})"] if self.faults else []
        if unused := sorted(key for key in self.prompts if key not in keys):
            notes.append(f"lines of captions of no image: {len(unused)} ({printable(unused[0])})")
        return tuple(notes)


def _files(folder: Path) -> tuple[dict[str, list[Path]], dict[str, list[Path]], tuple[PassedOver, ...]]:
    """The images of a side and its texts, by the keys of their names, and what is neither."""
    images: dict[str, list[Path]] = {}
    texts: dict[str, list[Path]] = {}

    def wanted(path: Path) -> bool | str:
        return path.suffix.lower() in CAPTION_ENDINGS or is_image_file(path)

    result = search(folder, wanted)
    for path in result.files:
        is_text = path.suffix.lower() in CAPTION_ENDINGS
        name = path.relative_to(folder)
        key = _key(name.with_suffix("").as_posix() if is_text else _name(name))
        (texts if is_text else images).setdefault(key, []).append(path)
    if not images:
        lines = "".join(f"; {line}" for line in Inventory(origin="", passed=result.passed).lines())
        raise DataError(f"{folder} holds no image{lines}; put the images of pairs there")
    return images, texts, result.passed


def _name(path: Path) -> str:
    return path.with_suffix("").as_posix() if path.suffix.lower() in ENDINGS else path.as_posix()


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _key_of_record(file_name: str, sides: Collection[str]) -> str:
    path = Path(plain_name(file_name))
    inner = Path(*path.parts[1:]) if len(path.parts) > 1 and path.parts[0] in sides else path
    return _key(_name(inner))


def _others(image: Path) -> list[str]:
    """Files of an image's name that are none, such as ``fox.heic``."""
    if not image.parent.is_dir():
        return []
    names = (path.name for path in image.parent.iterdir() if path.suffix.lower() not in CAPTION_ENDINGS)
    return sorted(name for name in names if name.startswith(f"{image.name}."))


def _beside(folder: Path, sides: Iterable[str]) -> tuple[PassedOver, ...]:
    """What else lies in the folder that holds both."""
    result = search(folder, lambda path: path.name not in CAPTION_FILES and "files beside the folders", deep=False)
    known = set(sides)
    others = [path for path in visible_folders(folder) if path.name not in known]
    return (*result.passed, *passed_over((path, "other folders") for path in others))
