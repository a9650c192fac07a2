"""Files that survive a crash: written aside, flushed to the disk, then renamed (POSIX)."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seedpo.errors import RunFolderError

ASIDE = ".tmp"
"""Ending of files and folders that are not complete, or no longer wanted; always safe to delete."""

_FULL = ("No space left on device", "Disk quota exceeded")


def flush(path: Path) -> None:
    """Forces a file's content, or a folder's list of names, onto the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def files_below(folder: Path) -> list[Path]:
    """All files below a folder, sorted by their path."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def flush_below(folder: Path) -> None:
    """Flushes every file and folder below ``folder``, and the folder itself."""
    for path in folder.rglob("*"):
        flush(path)
    flush(folder)


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    """Replaces a file's content: after a crash it holds the old content or the new, whole."""
    aside = path.with_name(path.name + ASIDE)
    with aside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    flush(path.parent)


def remove_folder(folder: Path) -> None:
    """Removes a folder: a crash never leaves a part of it under its own name."""
    if not folder.exists():
        return
    aside = folder if folder.name.endswith(ASIDE) else folder.with_name(folder.name + ".old" + ASIDE)
    if aside != folder:
        shutil.rmtree(aside, ignore_errors=True)
        folder.replace(aside)
    shutil.rmtree(aside)


def publish_folder(aside: Path, folder: Path) -> None:
    """Flushes a complete folder and gives it its name, in place of any folder that had it."""
    flush_below(aside)
    remove_folder(folder)
    aside.replace(folder)
    flush(folder.parent)


def remove_leftovers(folder: Path) -> None:
    """Removes what a killed process left half-written directly below ``folder``."""
    for path in folder.glob(f"*{ASIDE}"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def is_disk_full(error: BaseException) -> bool:
    """Whether an error says that the disk or the quota is full; safetensors reports this in words only."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return any(phrase in str(error) for phrase in _FULL)


@contextmanager
def until_full(what: str, folder: Path, *, mend: str) -> Iterator[None]:
    """Turns a full disk into an error that names the folder and the mend; other errors pass.

    Raises:
        RunFolderError: if what is done inside fails for want of space.
    """
    try:
        yield
    except Exception as error:
        if is_disk_full(error):
            raise RunFolderError(f"no space left in {folder} for {what}; free some space; {mend}") from error
        raise


@contextmanager
def writing(what: str, folder: Path, *, mend: str) -> Iterator[None]:
    """Turns a full disk or an unwritable folder into an error that names the folder and the mend.

    Raises:
        RunFolderError: if what is done inside fails for want of space or with another error of the file system.
    """
    try:
        with until_full(what, folder, mend=mend):
            yield
    except OSError as error:
        raise RunFolderError(f"{what} cannot be written into {folder} ({error}); {mend}") from error
