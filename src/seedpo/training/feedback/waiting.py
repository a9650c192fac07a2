"""Waiting for votes: until they are there, a stop is asked for, or nobody votes any more."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tqdm import tqdm

from seedpo.errors import DataError, SeedpoError
from seedpo.study.folder import Study
from seedpo.study.preferences import Count, counted_votes
from seedpo.study.records import Group, Judgement
from seedpo.training.feedback.asked_study import AskedStudy
from seedpo.training.interrupt import StopRequest, TrainingInterrupted

if TYPE_CHECKING:
    from seedpo.study.store import Store

logger = logging.getLogger(__name__)

_NAP = 0.1
"""Seconds between two looks at whether a stop was asked for."""


class NoVotes(SeedpoError):
    """Nobody voted for as long as the configuration allows."""


class Wait:
    """What is waited for, and how much of it is there.

    Args:
        groups: on which votes are wanted.
        study: of the groups.
        poll_seconds: between two looks.
        timeout_hours: without a new vote, after which it is no use; none: never.
    """

    def __init__(
        self, groups: Sequence[Group], study: Study, *, poll_seconds: float, timeout_hours: float | None
    ) -> None:
        self.groups = groups
        self.asked = AskedStudy(study, groups)
        self.poll_seconds = poll_seconds
        self.timeout_hours = timeout_hours
        self.votes = Count(done=0, wanted=0)
        self.by_group: dict[str, list[Judgement]] = {}
        self._last_news = time.monotonic()
        self._seen = 0
        """Votes on whatever the study asks: what other processes ask about comes first, perhaps."""
        self._trouble = ""

    def is_over(self, store: Store) -> bool:
        """Looks at the votes; a look that fails is passed over if one before did not and the study is still there.

        Raises:
            DataError: if the study was taken away or changed such that these votes cannot come.
            SeedpoError: if the votes cannot be read.
        """
        try:
            self.asked.look()
            judgements = store.judgements()
        except DataError as error:
            raise DataError(f"{error}; {self._going_on()}") from error
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
        votes = counted_votes(self.asked.study.settings, self.groups, by_group)
        if votes != self.votes or len(judgements) != self._seen:
            self._last_news = time.monotonic()
        self.votes, self.by_group, self._seen = votes, by_group, len(judgements)
        return votes.done == votes.wanted

    def words(self) -> str:
        """What people are asked, and how they come to it."""
        missing, folder = self.votes.wanted - self.votes.done, self.asked.study.folder
        return (
            f"waiting for {missing} votes on the images of {len(self.groups)} prompts. Serve them: seedpo study serve "
            f"{folder}; a link for each rater: seedpo study links {folder}"
        )

    def nap(self, stop: StopRequest) -> None:
        """Sleeps until the next look.

        Raises:
            TrainingInterrupted: if a stop was asked for.
            NoVotes: if it is no use.
        """
        end = time.monotonic() + self.poll_seconds
        if self._timed_out():
            raise NoVotes(f"no new vote for {self.timeout_hours:g} hours; {self._there()}; {self._going_on()}")
        while (left := end - time.monotonic()) > 0:
            self.heed(stop)
            time.sleep(min(left, _NAP))

    def heed(self, stop: StopRequest) -> None:
        """Ends the wait if that was asked for, even when the last vote came at the same moment.

        Raises:
            TrainingInterrupted: if so.
        """
        if stop.requested:
            raise TrainingInterrupted(f"stopped while people vote; {self._there()}; {self._going_on()}")

    def _there(self) -> str:
        return f"{self.votes.done} of {self.votes.wanted} votes are there and stay"

    def _going_on(self) -> str:
        folder = self.asked.study.folder
        return f"go on with the same command and --resume latest, while raters vote in {folder} or afterwards"

    def _timed_out(self) -> bool:
        hours = self.timeout_hours
        return hours is not None and time.monotonic() - self._last_news > hours * 3600.0


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
