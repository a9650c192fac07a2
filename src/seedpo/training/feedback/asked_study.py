"""The study while people vote: what a person may change is read anew, and what votes hang on may not change."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from seedpo.errors import DataError
from seedpo.study.folder import GROUPS, VOTES, Study, open_study
from seedpo.study.records import Group
from seedpo.study.settings import NAME as SETTINGS

logger = logging.getLogger(__name__)


class AskedStudy:
    """A study whose groups are voted on.

    Args:
        study: as it was read.
        groups: that are asked about; they have to stay as they are.
    """

    def __init__(self, study: Study, groups: Sequence[Group]) -> None:
        self.study = study
        self.groups = groups
        self._read = self._stamps()
        self._votes: tuple[int, int] | None = None

    def look(self) -> None:
        """Reads the study anew if one of its files has changed.

        Raises:
            DataError: if the study is gone, its votes were exchanged, or a group that is asked about has changed.
            ConfigError: if ``study.yaml`` cannot be used as it is now.
        """
        folder = self.study.folder
        if not (folder / GROUPS).exists():
            raise DataError(f"study {folder} is gone; put it back")
        self._require_same_votes(folder / VOTES)
        stamps = self._stamps()
        if stamps == self._read:
            return
        now = open_study(folder, verify=False)
        if now.settings.id != self.study.settings.id:
            raise DataError(f"{folder} is another study now (id {now.settings.id}); put back that of before")
        changed = next((group.id for group in self.groups if now.by_id.get(group.id) != group), None)
        if changed is not None:
            raise DataError(f"{folder / GROUPS}: group {changed} was edited or removed while people vote; undo that")
        if now.settings != self.study.settings:
            logger.info("%s was edited: it holds from now on; start `seedpo study serve` again", folder / SETTINGS)
        self.study, self._read = now, stamps

    def _require_same_votes(self, path: Path) -> None:
        """A database file that was deleted stays readable for whoever has it open: no vote would ever come."""
        if self.study.settings.database is not None:
            return
        votes = _identity(path)
        if self._votes is not None and votes != self._votes:
            raise DataError(
                f"{path} was removed or exchanged while people vote; put it back and start `seedpo study serve` again"
            )
        self._votes = votes

    def _stamps(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(_stamp(self.study.folder / name) for name in (SETTINGS, GROUPS))


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _identity(path: Path) -> tuple[int, int] | None:
    found = _stat(path)
    return None if found is None else (found.st_dev, found.st_ino)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    found = _stat(path)
    return None if found is None else (found.st_ino, found.st_size, found.st_mtime_ns)
