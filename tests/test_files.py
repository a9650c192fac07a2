from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import SafetensorError

from seedpo.errors import RunFolderError
from seedpo.files import (
    LARGEST,
    is_disk_full,
    publish_folder,
    read_bytes,
    read_head,
    remove_leftovers,
    sha256,
    write_aside,
    write_folder_aside,
    write_text,
    writing,
)


def test_text_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "note.json"
    write_text(path, "old")

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", crash)
    with pytest.raises(KeyboardInterrupt):
        write_text(path, "new" * 1000)
    assert path.read_text() == "old"
    monkeypatch.undo()
    write_text(path, "new")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["new"]


def test_a_published_folder_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    for name, content in (("final", "old"), ("final.tmp", "new")):
        (tmp_path / name).mkdir()
        (tmp_path / name / content).write_text(content)
    publish_folder(tmp_path / "final.tmp", tmp_path / "final")
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["final", "final/new"]


def test_several_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    with write_aside(tmp_path / "a", unique=True) as first, write_aside(tmp_path / "a", unique=True) as second:
        first.write_text("first")
        second.write_text("second")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "first")]


def test_a_folder_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    def write(name: str, *, fails: bool) -> None:
        with write_folder_aside(tmp_path / "final") as aside:
            (aside / name).touch()
            if fails:
                raise ZeroDivisionError

    write("old", fails=False)
    with pytest.raises(ZeroDivisionError):
        write("new", fails=True)
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["final", "final/old"]


def test_leftovers_go_and_the_rest_stays(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-000001.tmp" / "policy").mkdir(parents=True)
    (tmp_path / "metrics.jsonl.tmp").write_text("x")
    (tmp_path / "metrics.jsonl").write_text("y")
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_hash_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"seedpo")
    assert sha256(tmp_path / "file") == hashlib.sha256(b"seedpo").hexdigest()


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        # What safetensors says: it does not raise an OSError.
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_recognised(error: Exception) -> None:
    assert is_disk_full(error)
    message = "no space left in runs/a for the weights; free some space; try again"
    with pytest.raises(RunFolderError, match=message), writing("the weights", Path("runs/a"), fix="try again"):
        raise error


def test_other_errors_of_the_file_system_name_the_folder() -> None:
    message = r"the weights cannot be written into runs/a \(.*denied.*\); try again"
    with pytest.raises(RunFolderError, match=message), writing("the weights", Path("runs/a"), fix="try again"):
        raise PermissionError(errno.EACCES, "Permission denied")


def test_faults_in_the_code_are_not_disguised() -> None:
    with pytest.raises(ZeroDivisionError), writing("the weights", Path("runs/a"), fix="try again"):
        raise ZeroDivisionError


@pytest.mark.parametrize(
    "make",
    [
        os.mkfifo,
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.symlink_to(path),
        lambda path: path.mkdir(),
        lambda path: os.truncate(path.touch() or path, LARGEST + 1),
    ],
    ids=["pipe", "device", "loop", "folder", "vast"],
)
def test_what_never_ends_is_not_read(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "a")
    with pytest.raises(OSError, match=r"."):
        read_bytes(tmp_path / "a")
    (tmp_path / "b").write_bytes(b"abc")
    assert (read_bytes(tmp_path / "b"), read_head(tmp_path / "b", 2)) == (b"abc", b"ab")


def test_a_text_has_no_holes(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"a")
    os.truncate(path, 1 << 20)
    assert len(read_bytes(path)) == 1 << 20
    with path.open("rb") as file:
        knows_holes = os.lseek(file.fileno(), 0, os.SEEK_HOLE) < 1 << 20
    if not knows_holes:
        pytest.skip("this file system does not tell holes")
    with pytest.raises(OSError, match="holes"):
        read_bytes(path, text=True)
