"""Bad luck while people are asked: one line each, and the same call goes on with the votes that are there."""

from __future__ import annotations

import errno
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seedpo.errors import DataError
from seedpo.study.folder import open_study
from seedpo.study.votes.store import Store
from seedpo.training.feedback import waiting
from seedpo.training.feedback.people import ImageGroup, pixels_of
from seedpo.training.feedback.waiting import NoVotes, Wait
from seedpo.training.feedback.wiring import ensure_study
from seedpo.training.interrupt import StopRequest, TrainingInterrupted
from tests.training.feedback.test_feedback import asking, config_of, greys

Act = Callable[[Path], Any]
IMAGES, PROMPTS = greys(0.1, 0.9), ["a", "a"]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    ensure_study(config_of(tmp_path))
    return tmp_path / "study"


def vote(study: Path, *, votes: int = 1) -> None:
    """So many raters answer one pair each; the brighter image is the second of every group here."""
    store = Store.open(open_study(study))
    for _ in range(votes):
        rater, _ = store.add_rater()
        show = store.turn(rater).show
        assert show is not None
        store.vote(rater, show.token, "left" if show.flipped else "right", key=show.token)
    store.close()


def while_waiting(monkeypatch: pytest.MonkeyPatch, *acts: Callable[[], Any]) -> None:
    """Does one thing at each nap."""
    left, nap = list(acts), Wait.nap

    def acting(wait: Wait, stop: StopRequest) -> None:
        if left:
            left.pop(0)()
        nap(wait, stop)

    monkeypatch.setattr(Wait, "nap", acting)


def rewrite(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def settled(study: Path) -> None:
    """The same call gives the answer, with one group and one vote in the study."""
    if open_study(study).groups and not Store.open(open_study(study)).judgements():
        vote(study)
    assert asking(study).compare(IMAGES, PROMPTS)[0].tolist() == [[0, -1], [1, 0]]
    assert len(open_study(study).groups) == 1


@pytest.mark.parametrize("torn", [False, True])
def test_a_full_disk_while_a_group_is_appended(study: Path, monkeypatch: pytest.MonkeyPatch, torn: bool) -> None:
    def full(number: int) -> None:
        if torn:
            os.truncate(number, 20)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("seedpo.study.folder.os.fsync", full)
        with pytest.raises(DataError, match=r"groups\.jsonl cannot be appended to \(No space left.*free some space"):
            asking(study).compare(IMAGES, PROMPTS)
    assert open_study(study).groups == ()
    while_waiting(monkeypatch, lambda: vote(study))
    settled(study)


def test_a_full_disk_while_an_image_is_written(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        path.open("wb").close()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(DataError, match=r"cannot be written \(No space left.*free some space"):
            asking(study).compare(IMAGES, PROMPTS)
    assert open_study(study).groups == ()
    assert list((study / "images").iterdir()) == []
    while_waiting(monkeypatch, lambda: vote(study))
    settled(study)


def test_a_study_that_is_gone_before_it_is_asked(study: Path) -> None:
    feedback = asking(study)
    study.rename(study.with_name("aside"))
    with pytest.raises(DataError, match=r"groups\.jsonl cannot be locked .*No such file.*--resume latest"):
        feedback.compare(IMAGES, PROMPTS)


@pytest.mark.parametrize(
    ("harm", "mend", "words"),
    [
        (
            lambda study: study.rename(study.with_name("aside")),
            lambda study: study.with_name("aside").rename(study),
            r"study \S+ is gone; put it back",
        ),
        (
            lambda study: (study / "votes.db").rename(study / "aside.db"),
            lambda study: (study / "aside.db").rename(study / "votes.db"),
            r"votes\.db was removed or exchanged",
        ),
        (
            lambda study: rewrite(study / "groups.jsonl", '"prompt": "a"', '"prompt": "b"'),
            lambda study: rewrite(study / "groups.jsonl", '"prompt": "b"', '"prompt": "a"'),
            r"groups\.jsonl: group \w+ was edited or removed",
        ),
        (
            lambda study: (study / "groups.jsonl").rename(study / "aside") and (study / "groups.jsonl").touch(),
            lambda study: (study / "aside").rename(study / "groups.jsonl"),
            r"groups\.jsonl: group \w+ was edited or removed",
        ),
        (
            lambda study: rewrite(study / "study.yaml", "\nid: ", "\nid: f"),
            lambda study: rewrite(study / "study.yaml", "\nid: f", "\nid: "),
            r"is another study now",
        ),
        (
            lambda study: rewrite(study / "study.yaml", "key: preference", "key: taste"),
            lambda study: rewrite(study / "study.yaml", "key: taste", "key: preference"),
            r"groups\.jsonl line 1: question 'preference' is not in study\.yaml",
        ),
    ],
    ids=["folder", "votes", "group", "groups", "id", "question"],
)
def test_what_takes_the_votes_away_ends_the_wait(
    study: Path, monkeypatch: pytest.MonkeyPatch, harm: Act, mend: Act, words: str
) -> None:
    Store.open(open_study(study)).close()  # as a server does
    with monkeypatch.context() as patch:
        while_waiting(patch, lambda: harm(study))
        with pytest.raises(DataError, match=f"{words}.*--resume latest") as caught:
            asking(study).compare(IMAGES, PROMPTS)
    assert "\n" not in str(caught.value)
    mend(study)
    settled(study)


def test_settings_that_are_edited_hold_at_once(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rewrite(study / "study.yaml", "raters_per_pair: 1", "raters_per_pair: 2")
    while_waiting(
        monkeypatch,
        lambda: vote(study),
        lambda: rewrite(study / "study.yaml", "raters_per_pair: 2", "raters_per_pair: 3"),
        lambda: rewrite(study / "study.yaml", "raters_per_pair: 3", "raters_per_pair: 1"),
    )
    assert asking(study).compare(IMAGES, PROMPTS)[0, 1, 0] == 1


def test_a_slip_in_the_settings_is_told_and_waited_out(
    study: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    while_waiting(
        monkeypatch,
        lambda: rewrite(study / "study.yaml", "raters_per_pair: 1", "raters_per_pair: many"),
        lambda: None,
        lambda: rewrite(study / "study.yaml", "raters_per_pair: many", "raters_per_pair: 1"),
        lambda: vote(study),
    )
    with caplog.at_level(logging.WARNING):
        assert asking(study).compare(IMAGES, PROMPTS)[0, 1, 0] == 1
    told = [record.getMessage() for record in caplog.records if "study.yaml" in record.getMessage()]
    assert len(told) == 1
    assert "raters_per_pair" in told[0]
    assert told[0].endswith("; still waiting")


def test_a_stop_at_the_moment_of_the_last_vote_is_not_lost(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    is_over = Wait.is_over

    def stopped_at_the_end(wait: Wait, store: Store) -> bool:
        over = is_over(wait, store)
        if over:
            os.kill(os.getpid(), signal.SIGINT)
        return over

    while_waiting(monkeypatch, lambda: vote(study))
    with monkeypatch.context() as patch:
        patch.setattr(Wait, "is_over", stopped_at_the_end)
        with pytest.raises(TrainingInterrupted, match="1 of 1 votes have arrived and stay"):
            asking(study).compare(IMAGES, PROMPTS)
    settled(study)


def test_votes_on_what_other_processes_ask_are_news(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raters may well begin with another process's images: nobody gives up while they vote."""
    hours, now = 3600.0, [0.0]
    monkeypatch.setattr(waiting.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(waiting.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + max(seconds, 1.0)))
    feedback = asking(study)
    for prompt in ("a", "b"):
        feedback._add([ImageGroup.of("preference", prompt, pixels_of(IMAGES))])
    whole = open_study(study)
    wait = Wait(whole.groups[1:], whole, poll_seconds=1.0, timeout_hours=1.0)
    store = Store.open(whole)
    assert not wait.is_over(store)
    now[0] = 0.9 * hours
    vote(study)
    (answered,) = {judgement.show.group for judgement in store.judgements()}
    waited = [group for group in whole.groups if group.id != answered]
    wait.groups = waited
    assert not wait.is_over(store)
    now[0] = 1.8 * hours
    wait.nap(StopRequest())
    now[0] = 2.0 * hours
    with pytest.raises(NoVotes, match="no new vote for 1 hours"):
        wait.nap(StopRequest())
    store.close()
