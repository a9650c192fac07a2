from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from seedpo.errors import DataError
from seedpo.study.image_folders import read_images


def write(folder: Path, *names: str, kind: str | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", (4, 4)).save(folder / name, format=kind)


def listed(folder: Path) -> dict[str, list[str]]:
    return {item.prompt: [path.name for path in item.images] for item in read_images(folder)}


def test_images_with_a_text_beside_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, "2.png", "10.avif", "sheet.png")
    write(tmp_path, "3", kind="PNG")
    for name in ("2", "3", "10"):
        (tmp_path / f"{name}.txt").write_text(name)
    (tmp_path / "._2.png").write_bytes(b"?")
    (tmp_path / "notes.md").write_text("?")
    caplog.set_level("INFO")
    assert listed(tmp_path) == {"2": ["2.png"], "3": ["3"], "10": ["10.avif"]}
    assert "hidden files: 1" in caplog.text
    assert "files .md: 1" in caplog.text


def test_folders_of_prompts_linked_ones_too(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", "a.png")
    (tmp_path / "elsewhere" / "prompt.txt").write_text("linked")
    write(tmp_path / "set" / "1", "b.png")
    (tmp_path / "set" / "1" / "prompt.txt").write_text("here")
    (tmp_path / "set" / "2").symlink_to(tmp_path / "elsewhere")
    write(tmp_path / "set" / ".ipynb_checkpoints", "c.png")
    assert listed(tmp_path / "set") == {"here": ["b.png"], "linked": ["a.png"]}


def test_a_folder_without_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no image"):
        read_images(tmp_path)
