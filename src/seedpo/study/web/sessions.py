"""The sessions of a study's owner. They hold in every process of a server and after a restart, until they end."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from seedpo.errors import DataError
from seedpo.study.web.security import Secret

SESSION_SECONDS = 12 * 3600
"""How long the owner stays logged in."""

FOLDER = ".sessions"


@dataclass(frozen=True, kw_only=True)
class Sessions:
    """An empty file for each session in the study's folder. Its name does not tell the session.

    Attributes:
        folder: of the study.
        secret: the server's key.
        admin_token: another one ends all sessions.
        clock: seconds since 1970.
    """

    folder: Path
    secret: Secret
    admin_token: str
    clock: Callable[[], float] = time.time

    def begin(self) -> str:
        """A new session: the value of the owner's cookie.

        Raises:
            DataError: it cannot be stored.
        """
        session = secrets.token_urlsafe(32)
        path = self._path(session)
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            for other in path.parent.iterdir():
                if not self._is_fresh(other):
                    other.unlink(missing_ok=True)
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            os.utime(path, (self.clock(), self.clock()))
        except OSError as error:
            raise DataError(f"{path.parent}: {error.strerror}; the server stores its owner's sessions there") from error
        return session

    def holds(self, session: str) -> bool:
        """Whether a session was begun here, has not ended, and is not older than :data:`SESSION_SECONDS`."""
        return 0 < len(session) <= 100 and self._is_fresh(self._path(session))

    def end(self, session: str) -> None:
        """Ends a session everywhere.

        Raises:
            DataError: the file of the session cannot be removed.
        """
        path = self._path(session)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}; remove it to end the session") from error

    def _path(self, session: str) -> Path:
        return self.folder / FOLDER / self.secret.mac("session", self.admin_token, session).hex()

    def _is_fresh(self, path: Path) -> bool:
        try:
            return self.clock() - path.stat().st_mtime < SESSION_SECONDS
        except OSError:
            return False
