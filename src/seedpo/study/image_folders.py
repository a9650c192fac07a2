"""Images of prompts as they lie in folders: those of ``seedpo sample``, of ``seedpo evaluate``, and any others.

=====================================  ==============================================================================
folder                                 prompts
=====================================  ==============================================================================
of ``seedpo sample``                   ``index.json``, in it
of ``seedpo evaluate``                 ``prompts.jsonl``, in it or above ``images/MODEL/00007-03.png``
names that begin with a number         ``--prompts``: line 1 is for 0 (007.png, 007-00.png, 007-01.png)
one folder for each prompt             ``--prompts``, in the order of the folders' names, or ``prompt.txt`` in each
any other names                        a text beside each image (cat.png, cat.txt)
=====================================  ==============================================================================
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from seedpo.data.rgb import ENDINGS
from seedpo.data.text import Line, csv_lines, json_lines, read_text
from seedpo.errors import DataError

_RECORDS = {".jsonl": json_lines, ".csv": csv_lines}

_NUMBER = re.compile(r"(\d+)(?:[-_ ](\d+))?")


@dataclass(frozen=True)
class Prompt:
    """A prompt.

    Attributes:
        text: of it.
        category: for tables; empty if there is none.
    """

    text: str
    category: str = ""


@dataclass(frozen=True)
class PromptImages:
    """The images of one prompt.

    Attributes:
        prompt: of them.
        images: files, in the order of their latents.
        category: of the prompt; empty if there is none.
    """

    prompt: str
    images: tuple[Path, ...]
    category: str = ""


def read_prompt_file(path: Path) -> list[Prompt]:
    """Prompts of a text file (one on each line), or of ``prompt`` or ``caption``, and ``category``, of JSONL or CSV.

    Raises:
        DataError: if it cannot be read, or a record has no prompt.
    """
    read = _RECORDS.get(path.suffix.lower())
    if read is None:
        prompts = [Prompt(line.strip()) for line in read_text(path).splitlines() if line.strip()]
    else:
        prompts = [_prompt(line) for line in read(path)]
    if not prompts:
        raise DataError(f"prompt file {path} holds no prompt; write one per line")
    return prompts


def read_images(folder: Path, prompts: Sequence[Prompt] | None = None) -> list[PromptImages]:
    """The images of a folder by their prompts.

    Args:
        folder: as the table above says.
        prompts: for folders whose files are told apart by numbers; for others they give the categories.

    Raises:
        DataError: if it holds no image, or an image's prompt is not known.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; name one with images, such as seedpo sample --out makes")
    categories = {prompt.text: prompt.category for prompt in prompts or ()}
    if (folder / "index.json").is_file():
        found = _grouped(_indexed(folder))
    elif evaluated := _evaluation(folder):
        found = _numbered(folder, evaluated)
    else:
        found = _plain(folder, prompts)
    return [PromptImages(item.prompt, item.images, item.category or categories.get(item.prompt, "")) for item in found]


def evaluated_models(folder: Path) -> Mapping[str, Path]:
    """Folders with the images of each target of ``seedpo evaluate``.

    Raises:
        DataError: if it is no such folder.
    """
    images = folder / "images"
    models = {path.name: path for path in sorted(images.iterdir()) if path.is_dir()} if images.is_dir() else {}
    if not models or not (folder / "prompts.jsonl").is_file():
        raise DataError(f"{folder} is no folder of seedpo evaluate (prompts.jsonl and images/TARGET); check the path")
    return models


def _indexed(folder: Path) -> list[tuple[str, Path]]:
    path = folder / "index.json"
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error}); draw the images again") from error
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("file"), str) and isinstance(entry.get("prompt"), str)
        for entry in entries
    ):
        raise DataError(f'{path} is no list of {{"file": ..., "prompt": ...}} such as seedpo sample writes')
    found = [(entry["prompt"], folder / entry["file"]) for entry in entries]
    for _, file in found:
        if not file.is_file():
            raise DataError(f"{path} names {file.name}, which is not there; draw the images again")
    return found


def _evaluation(folder: Path) -> list[Prompt] | None:
    """Prompts of the evaluation to which ``images/TARGET`` belongs, if it is one."""
    path = folder.parent.parent / "prompts.jsonl"
    return read_prompt_file(path) if folder.parent.name == "images" and path.is_file() else None


def _plain(folder: Path, prompts: Sequence[Prompt] | None) -> list[PromptImages]:
    files = _files(folder)
    inner = sorted((path for path in folder.iterdir() if path.is_dir() and _files(path)), key=_counted)
    if files and prompts is not None:
        return _numbered(folder, prompts)
    if files:
        return _grouped([(_caption(file), file) for file in files])
    if not inner:
        raise DataError(f"{folder} holds no image; looked for files that end in {', '.join(sorted(ENDINGS))}")
    if prompts is None:
        prompts = [Prompt(_text(path / "prompt.txt", path)) for path in inner]
    if len(prompts) != len(inner):
        raise DataError(f"{folder} holds {len(inner)} folders and --prompts {len(prompts)} prompts; give one for each")
    return [
        PromptImages(prompt.text, tuple(_files(path)), prompt.category)
        for prompt, path in zip(prompts, inner, strict=True)
    ]


def _numbered(folder: Path, prompts: Sequence[Prompt]) -> list[PromptImages]:
    found: dict[int, list[Path]] = {}
    for file in _files(folder):
        match = _NUMBER.fullmatch(file.stem)
        if match is None:
            raise DataError(f"{file} has no number of a prompt in its name (such as 00007-03.png); rename it")
        if int(match[1]) >= len(prompts):
            raise DataError(f"{file} is for prompt {int(match[1])}, and there are {len(prompts)}, counted from 0")
        found.setdefault(int(match[1]), []).append(file)
    if not found:
        raise DataError(f"{folder} holds no image; looked for files that end in {', '.join(sorted(ENDINGS))}")
    return [PromptImages(prompts[row].text, tuple(found[row]), prompts[row].category) for row in sorted(found)]


def _grouped(found: Sequence[tuple[str, Path]]) -> list[PromptImages]:
    by_prompt: dict[str, list[Path]] = {}
    for prompt, file in found:
        by_prompt.setdefault(prompt, []).append(file)
    return [PromptImages(prompt, tuple(files)) for prompt, files in by_prompt.items()]


def _files(folder: Path) -> list[Path]:
    files = [path for path in folder.iterdir() if path.suffix.lower() in ENDINGS and not path.name.startswith(".")]
    return sorted((path for path in files if path.name != "sheet.png"), key=_counted)


def _counted(path: Path) -> list[tuple[int, str]]:
    """As people count: 2 before 10."""
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts if part]


def _caption(file: Path) -> str:
    return _text(file.with_suffix(".txt"), file)


def _text(path: Path, of: Path) -> str:
    if not path.is_file():
        raise DataError(f"{of} has no prompt: give --prompts FILE, or write it into {path}")
    return read_text(path).strip()


def _prompt(line: Line) -> Prompt:
    place = f"{line.path} line {line.number}"
    if line.fault:
        raise DataError(f"{place} {line.fault}; mend or remove it")
    text = line.values.get("prompt", line.values.get("caption"))
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{place} has no prompt; its keys are {', '.join(map(str, line.values))}")
    return Prompt(text.strip(), str(line.values.get("category") or "").strip())
