"""Waiting for votes until they arrive, a stop is requested, or nobody votes any more; and the study meanwhile."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from seedpo.errors import DataError, SeedpoError
from seedpo.study.folder import GROUPS, VOTES, Study, open_study
from seedpo.study.preferences import Count, counted_votes
from seedpo.study.records import Group, Judgement
from seedpo.study.settings import NAME as SETTINGS
from seedpo.training.interrupt import StopRequest, TrainingInterrupted

if TYPE_CHECKING:
    from seedpo.study.votes.store import Store

logger = logging.getLogger(__name__)

_NAP = 0.1
"""Seconds between two looks at whether a stop was requested."""


class NoVotes(SeedpoError):
    """Nobody voted for as long as the configuration allows."""


class Wait:
    """What is waited for, and how much of it is there.

    Args:
        groups: on which votes are wanted.
        study: of the groups.
        poll_seconds: between two looks.
        timeout_hours: without a new vote, after which waiting ends; ``None``: never.
    """

    def __init__(
        self, groups: Sequence[Group], study: Study, *, poll_seconds: float, timeout_hours: float | None
    ) -> None:
        self.groups = groups
        self.watched = WatchedStudy(study, groups)
        self.poll_seconds = poll_seconds
        self.timeout_hours = timeout_hours
        self.votes = Count(done=0, wanted=0)
        self.by_group: dict[str, list[Judgement]] = {}
        self._last_news = time.monotonic()
        self._seen = 0
        """Votes on all of the study: raters may begin with another process's images."""
        self._trouble = ""

    def is_over(self, store: Store) -> bool:
        """Looks at the votes; a look that fails is passed over if one before did not and the study is still there.

        Raises:
            DataError: if the study was taken away or changed such that these votes cannot come.
            SeedpoError: if the votes cannot be read.
        """
        try:
            self.watched.refresh()
            judgements = store.judgements()
        except DataError as error:
            raise DataError(f"{error}; {self._way_on()}") from error
        except SeedpoError as error:
            if not self.by_group or self._timed_out():
                raise
            if not self._trouble:
                logger.warning("%s; still waiting", error)
            self._trouble = str(error)
            return False
        self._trouble = ""
        by_group: dict[str, list[Judgement]] = {group.id: [] for group in self.groups}
        for judgement in judgements:
            if judgement.show.group in by_group:
                by_group[judgement.show.group].append(judgement)
        votes = counted_votes(self.watched.study.settings, self.groups, by_group)
        if votes != self.votes or len(judgements) != self._seen:
            self._last_news = time.monotonic()
        self.votes, self.by_group, self._seen = votes, by_group, len(judgements)
        return votes.done == votes.wanted

    def instructions(self) -> str:
        """What people are asked, and how they reach it."""
        missing, folder = self.votes.wanted - self.votes.done, self.watched.study.folder
        return (
            f"waiting for {missing} votes on the images of {len(self.groups)} prompts. Serve them: seedpo study serve "
            f"{folder}; a link for each rater: seedpo study links {folder}"
        )

    def nap(self, stop: StopRequest) -> None:
        """Sleeps until the next look.

        Raises:
            TrainingInterrupted: if a stop was requested.
            NoVotes: if nobody voted for too long.
        """
        end = time.monotonic() + self.poll_seconds
        if self._timed_out():
            raise NoVotes(f"no new vote for {self.timeout_hours:g} hours; {self._arrived()}; {self._way_on()}")
        while (left := end - time.monotonic()) > 0:
            self.heed(stop)
            time.sleep(min(left, _NAP))

    def heed(self, stop: StopRequest) -> None:
        """Ends the wait if a stop was requested, even if the last vote arrived at the same moment.

        Raises:
            TrainingInterrupted: if so.
        """
        if stop.requested:
            raise TrainingInterrupted(f"stopped while people vote; {self._arrived()}; {self._way_on()}")

    def _arrived(self) -> str:
        return f"{self.votes.done} of {self.votes.wanted} votes have arrived and stay"

    def _way_on(self) -> str:
        folder = self.watched.study.folder
        return f"continue with the same command and --resume latest, while raters vote in {folder} or afterwards"

    def _timed_out(self) -> bool:
        hours = self.timeout_hours
        return hours is not None and time.monotonic() - self._last_news > hours * 3600.0


class WatchedStudy:
    """A study while people vote: what a person may change is read again; what votes depend on may not change.

    Args:
        study: as it was read.
        groups: that people vote on; they must stay as they are.
    """

    def __init__(self, study: Study, groups: Sequence[Group]) -> None:
        self.study = study
        self.groups = groups
        self._read = self._stamps()
        self._votes: tuple[int, int] | None = None

    def refresh(self) -> None:
        """Reads the study again if one of its files has changed.

        Raises:
            DataError: if the study is gone, its votes were exchanged, or one of the groups has changed.
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
    status = _stat(path)
    return None if status is None else (status.st_dev, status.st_ino)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    status = _stat(path)
    return None if status is None else (status.st_ino, status.st_size, status.st_mtime_ns)


class VoteBar:
    """One line with the votes that are there."""

    def __init__(self, wait: Wait, *, shown: bool) -> None:
        self._wait = wait
        self._bar = tqdm(total=wait.votes.wanted, desc="votes", unit="vote", leave=False, disable=not shown)

    def __enter__(self) -> VoteBar:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    def show(self) -> None:
        """Brings the line up to date."""
        self._bar.total = self._wait.votes.wanted
        self._bar.n = self._wait.votes.done
        self._bar.refresh()
