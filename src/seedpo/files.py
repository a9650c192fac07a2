"""Files that survive a crash: written aside, flushed to the disk, then renamed (POSIX)."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from seedpo.errors import RunFolderError

ASIDE = ".tmp"
"""Ending of files and folders that are not complete, or no longer wanted; always safe to delete."""

_FULL = ("No space left on device", "Disk quota exceeded")


LARGEST = 1 << 30
"""Bytes of a file at most that is read whole."""

LARGEST_DESCRIPTION = 1 << 28
"""Bytes of a file at most that describes a model, such as its tokenizer."""


def read_bytes(path: Path | str, *, largest: int | None = LARGEST, text: bool = False) -> bytes:
    """The content of a file that anyone may have put there.

    Whoever opens a pipe waits, a device never ends, and a file with holes, as a download leaves that broke off, can
    seem larger than the disk.

    Args:
        path: of the file.
        largest: bytes that it may have; ``None``: any number.
        text: whether it must be text, so that it has no holes, which read as NUL.

    Raises:
        OSError: if it cannot be read, is no regular file, is larger or has a hole; ``strerror`` says which.
    """
    with _regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if largest is not None and size > largest:
            raise OSError(errno.EFBIG, f"its {size:,} bytes are more than {largest:,}", str(path))
        if text and _has_hole(file.fileno(), size):
            raise OSError(errno.EINVAL, "it has holes, as a download leaves that broke off", str(path))
        return file.read()


def read_head(path: Path | str, size: int) -> bytes:
    """The first bytes of a regular file; see :func:`read_bytes`.

    Raises:
        OSError: if it cannot be read, or is no regular file.
    """
    with _regular(path) as file:
        return file.read(size)


@contextmanager
def _regular(path: Path | str) -> Iterator[BufferedReader]:
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123
        kind = os.fstat(file.fileno()).st_mode
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(kind):
            raise OSError(errno.EINVAL, "a pipe, socket or device, and no regular file", str(path))
        yield file


def _has_hole(descriptor: int, size: int) -> bool:
    """Whether a part of a file was never written. File systems that do not know say no."""
    if size == 0 or not hasattr(os, "SEEK_HOLE"):
        return False
    try:
        return os.lseek(descriptor, 0, os.SEEK_HOLE) < size
    except OSError:
        return False
    finally:
        os.lseek(descriptor, 0, os.SEEK_SET)


def require_regular(folder: Path) -> None:
    """Looks at the files below a folder before a library opens them: it would wait for a pipe, and read what is vast.

    Raises:
        OSError: if one is no regular file, or a description (JSON, text) is larger than :data:`LARGEST_DESCRIPTION`.
    """
    for path in folder.rglob("*"):
        if path.is_dir():
            continue
        if not path.is_file():
            raise OSError(errno.EINVAL, "no regular file", str(path))
        size = path.stat().st_size
        if path.suffix in (".json", ".txt", ".model") and size > LARGEST_DESCRIPTION:
            raise OSError(errno.EFBIG, f"its {size:,} bytes are more than {LARGEST_DESCRIPTION:,}", str(path))


def flush(path: Path) -> None:
    """Forces a file's content, or a folder's list of names, onto the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def exists(path: str | Path) -> bool:
    """Whether something lies there. Nothing can, where a name is too long or holds NUL, as a text that is no path."""
    return os.path.exists(path)  # noqa: PTH110 - Path.exists raises OSError for a name that is too long


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
    with _regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def aside_of(path: Path) -> Path:
    """Where a file or folder is written before it takes its name."""
    return path.with_name(path.name + ASIDE)


@contextmanager
def write_aside(path: Path, *, unique: bool = False, durable: bool = True) -> Iterator[Path]:
    """Replaces a file: after a crash it holds the old content or the new, whole.

    Yields the path to write to. When the block ends, the file is flushed and renamed to ``path``. If the block raises,
    the file is removed.

    Args:
        path: of the file.
        unique: whether several processes or threads may write this file at the same time.
        durable: whether the file must survive a power failure; otherwise nothing is forced onto the disk.
    """
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}{ASIDE}") if unique else aside_of(path)
    try:
        yield aside
        if durable:
            flush(aside)
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    if durable:
        flush(path.parent)


def write_text(path: Path, text: str) -> None:
    """Replaces a text file: after a crash it holds the old content or the new, whole."""
    with write_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


def remove_folder(folder: Path) -> None:
    """Removes a folder: a crash never leaves a part of it under its own name."""
    if not folder.exists():
        return
    aside = folder if folder.name.endswith(ASIDE) else aside_of(folder.with_name(folder.name + ".old"))
    if aside != folder:
        shutil.rmtree(aside, ignore_errors=True)
        folder.replace(aside)
    shutil.rmtree(aside)


def publish_folder(aside: Path, folder: Path) -> None:
    """Flushes a complete folder and renames it to ``folder``, replacing any folder of that name."""
    flush_below(aside)
    remove_folder(folder)
    aside.replace(folder)
    flush(folder.parent)


@contextmanager
def write_folder_aside(folder: Path) -> Iterator[Path]:
    """Replaces a folder: after a crash it holds the old files or the new, all of them.

    Yields an empty folder to write into. When the block ends, it is flushed and renamed to ``folder``.
    """
    aside = aside_of(folder)
    remove_folder(aside)
    aside.mkdir(parents=True)
    try:
        yield aside
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    publish_folder(aside, folder)


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
def until_full(what: str, folder: Path, *, fix: str) -> Iterator[None]:
    """Turns a full disk into an error that names the folder and the fix; other errors pass.

    Raises:
        RunFolderError: if what is done inside fails for want of space.
    """
    try:
        yield
    except Exception as error:
        if is_disk_full(error):
            raise RunFolderError(f"no space left in {folder} for {what}; free some space; {fix}") from error
        raise


@contextmanager
def writing(what: str, folder: Path, *, fix: str) -> Iterator[None]:
    """Turns a full disk or an unwritable folder into an error that names the folder and the fix.

    Raises:
        RunFolderError: if what is done inside fails for want of space or with another error of the file system.
    """
    try:
        with until_full(what, folder, fix=fix):
            yield
    except OSError as error:
        raise RunFolderError(f"{what} cannot be written into {folder} ({error}); {fix}") from error
