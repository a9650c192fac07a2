"""What servers answered before, so that no image is scored twice: by a run, the run that resumes it, or any other."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from seedpo.documents import parse_json
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
    """Answers by their keys, in a file of SQLite that several processes can share, or in memory.

    The first answer of a key stays.

    Args:
        path: of the file, which is made if there is none; `None`: in memory, for as long as the object lives.

    Raises:
        CacheError: if the file cannot be used.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.hits = self.misses = 0
        self._memory: dict[str, str] = {}
        if path is not None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise self._unusable(error) from error
            with self._open() as connection:
                connection.execute(_LAYOUT)

    def find(self, keys: Sequence[str]) -> dict[str, Any]:
        """The answers that are known, by their keys; counts hits and misses.

        Raises:
            CacheError: if the file cannot be read.
        """
        texts = {key: self._memory[key] for key in keys if key in self._memory}
        if self.path is not None:
            with self._open() as connection:
                for start in range(0, len(keys), _AT_A_TIME):
                    part = keys[start : start + _AT_A_TIME]
                    marks = ", ".join("?" * len(part))
                    texts.update(connection.execute(f"SELECT key, value FROM scores WHERE key IN ({marks})", part))
        self.hits += sum(key in texts for key in keys)
        self.misses += sum(key not in texts for key in keys)
        try:
            return {key: parse_json(text) for key, text in texts.items()}
        except (ValueError, TypeError) as error:
            raise self._unusable(error) from error

    def keep(self, answers: Mapping[str, Any]) -> None:
        """Stores answers, which are JSON values, by their keys.

        Raises:
            CacheError: if the file cannot be written.
        """
        texts = {key: json.dumps(answer) for key, answer in answers.items()}
        if self.path is None:
            self._memory = texts | self._memory
            return
        with self._open() as connection:
            connection.executemany("INSERT OR IGNORE INTO scores VALUES (?, ?)", texts.items())

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection whose changes are written at the end; a new one each time, so that threads and forks may ask."""
        try:
            with closing(sqlite3.connect(str(self.path), timeout=_WAIT)) as connection, connection:
                yield connection
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> CacheError:
        return CacheError(
            f"cache of scores {self.path} cannot be used ({error}); remove it if it is damaged, or name another file "
            "with the key `cache` of the reward"
        )
