"""What a reader may do with a foreign file: give what it holds, or raise one bounded line that names the fault."""

from __future__ import annotations

import csv
import os
import resource
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, PngImagePlugin

from seedpo.errors import SeedpoError

Content = TypeVar("Content")

LONGEST = 2000
"""Characters of a message at most."""

MEMORY = 2 * 2**30
"""Bytes by which a reader may raise the peak memory of the process: some images of the size that Pillow allows."""

_STARTS = frozenset(
    {"subprocess.Popen", "os.system", "os.posix_spawn", "os.exec", "os.fork", "os.forkpty", "pty.spawn", "os.startfile"}
)
_watched: list[str] | None = None


def _note_start(event: str, arguments: tuple[Any, ...]) -> None:
    if _watched is not None and event in _STARTS:
        _watched.append(f"{event} {arguments!r}"[:LONGEST])


sys.addaudithook(_note_start)


def fuzzed(few: int, **arguments: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Callable[[int], None]]:
    """A test of a property with few examples, always the same, and a slow one with many, always others.

    ``SEEDPO_FUZZING`` is how many times as many the slow one takes.
    """
    many = few * int(os.environ.get("SEEDPO_FUZZING", "20"))

    def of(check: Callable[..., None]) -> Callable[[int], None]:
        @pytest.mark.parametrize("examples", [few, pytest.param(many, marks=pytest.mark.slow)], ids=["few", "many"])
        def test(examples: int) -> None:
            sort = settings(
                max_examples=examples,
                derandomize=examples == few,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            )
            sort(given(**arguments)(check))()

        return test

    return of


def _global_state() -> dict[str, Any]:
    return {
        "csv.field_size_limit": csv.field_size_limit(),
        "recursion limit": sys.getrecursionlimit(),
        "digits of integers": sys.get_int_max_str_digits(),
        "warnings": list(warnings.filters),
        "Image.MAX_IMAGE_PIXELS": Image.MAX_IMAGE_PIXELS,
        "Image.ID": tuple(Image.ID),
        "ImageFile.LOAD_TRUNCATED_IMAGES": ImageFile.LOAD_TRUNCATED_IMAGES,
        "PngImagePlugin.MAX_TEXT_CHUNK": PngImagePlugin.MAX_TEXT_CHUNK,
        "PngImagePlugin.MAX_TEXT_MEMORY": PngImagePlugin.MAX_TEXT_MEMORY,
        "folder": Path.cwd(),
        "environment": dict(os.environ),
    }


@contextmanager
def harmless() -> Iterator[None]:
    """Sees that what runs inside starts no process, keeps the global state, and takes little memory.

    Warnings are no errors inside: users have none that are.
    """
    global _watched
    Image.init()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before, peak = _global_state(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        _watched = []
        try:
            yield
        finally:
            started, _watched = _watched, None
        assert not started
        after = _global_state()
        assert {name: value for name, value in after.items() if value != before[name]} == {}
        assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) * 1024 <= MEMORY


@contextmanager
def a_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def checked_message(message: str) -> str:
    """A message, once it is seen to be one bounded line that any file or terminal can show."""
    assert message.strip()
    assert len(message) <= LONGEST, message[:LONGEST]
    assert message.isprintable(), ascii(message)
    return message


def outcome(read: Callable[[], Content]) -> tuple[Content | None, str | None]:
    """What a reader gives, or its message; any other exception goes through."""
    try:
        return read(), None
    except SeedpoError as error:
        return None, checked_message(str(error))
