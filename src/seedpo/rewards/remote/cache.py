"""What servers answered before, so that no image is scored twice: by a run, the run that resumes it, or any other."""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from seedpo.data.text import shown
from seedpo.errors import CacheError

_LAYOUT = "CREATE TABLE IF NOT EXISTS scores (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID"

_WAIT = 60.0
"""Seconds to wait for another process that writes."""

_AT_A_TIME = 500
"""Keys of one question; SQLite takes no more than 999 in old versions."""


def cache_key(*facts: str) -> str:
    """The key of an answer, from all facts that it depends on: image hashes, prompt, the reward's version, ..."""
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


class ScoreCache:
    """Numbers by their keys, in a file of SQLite that several processes can share.

    The first number of a key stays.

    Args:
        path: of the file, which is made if there is none.

    Raises:
        CacheError: if the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unusable(error) from error
        with self._open() as connection:
            connection.execute(_LAYOUT)

    def find(self, keys: Sequence[str]) -> dict[str, float]:
        """The numbers that are known, by their keys.

        Raises:
            CacheError: if the file cannot be read, or holds something else.
        """
        texts: dict[str, object] = {}
        with self._open() as connection:
            for start in range(0, len(keys), _AT_A_TIME):
                part = keys[start : start + _AT_A_TIME]
                marks = ", ".join("?" * len(part))
                texts.update(connection.execute(f"SELECT key, value FROM scores WHERE key IN ({marks})", part))
        return {key: self._number(text) for key, text in texts.items()}

    def keep(self, numbers: Mapping[str, float]) -> None:
        """Stores finite numbers by their keys.

        Raises:
            CacheError: if the file cannot be written.
        """
        rows = [(key, repr(float(number))) for key, number in numbers.items()]
        with self._open() as connection:
            connection.executemany("INSERT OR IGNORE INTO scores VALUES (?, ?)", rows)

    def _number(self, text: object) -> float:
        try:
            number = float(text) if isinstance(text, str) else math.nan
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise self._unusable(f"it holds {shown(text)}, which is no score")
        return number

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection whose changes are written at the end; a new one each time, so that threads and forks may ask."""
        try:
            with closing(sqlite3.connect(str(self.path), timeout=_WAIT)) as connection, connection:
                yield connection
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def _unusable(self, error: Exception | str) -> CacheError:
        return CacheError(
            f"cache of scores {self.path} cannot be used ({error}); remove it if it is damaged, or name another file "
            "with the key `cache` of the reward"
        )
