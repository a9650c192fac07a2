"""Group commit: what waits is committed together, and a failure touches as few as it can."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import OperationalError

from seedpo.errors import SeedpoError
from seedpo.study.errors import NotOffered, NotShown, StoreError
from seedpo.study.folder import Study
from seedpo.study.votes import commits
from seedpo.study.votes.book import Book
from seedpo.study.votes.commits import Commits
from seedpo.study.votes.database import Database
from seedpo.study.votes.store import Store
from tests.study.small_study import pairs_of, small_study

Opened = Callable[[Study, str], Store]
Ledger = list[str]


class Journal:
    """A list that is written in transactions; the next one waits until it is let go."""

    def __init__(self) -> None:
        self.kept: list[str] = []
        self.groups: list[int] = []
        self.free = threading.Event()
        self.begun = threading.Event()
        self.fails = 0

    @contextmanager
    def transaction(self) -> Iterator[Ledger]:
        self.begun.set()
        assert self.free.wait(30)
        written: Ledger = []
        yield written
        if self.fails:
            self.fails -= 1
            raise StoreError("the disk is full")
        self.kept += written
        self.groups.append(len(written))


@pytest.fixture
def journal() -> Journal:
    return Journal()


@pytest.fixture
def group(journal: Journal) -> Iterator[Commits[Ledger]]:
    made = Commits(journal.transaction)
    yield made
    journal.free.set()
    made.close()


def add(name: str) -> Callable[[Ledger], str]:
    def work(book: Ledger) -> str:
        book.append(name)
        return name

    return work


def refuse(_: Ledger) -> str:
    raise NotOffered("no")


def break_(book: Ledger) -> str:
    book.append("half")
    raise ZeroDivisionError


def test_what_waits_is_committed_together_and_in_order(journal: Journal, group: Commits[Ledger]) -> None:
    first = group.submit(add("first"))
    assert journal.begun.wait(10)
    later = [group.submit(add(str(number))) for number in range(5)]
    assert not first.done()
    journal.free.set()
    assert [future.result(10) for future in (first, *later)] == ["first", "0", "1", "2", "3", "4"]
    assert (journal.kept, journal.groups) == (["first", "0", "1", "2", "3", "4"], [1, 5])


def test_a_refusal_and_a_fault_leave_those_beside_them_alone(journal: Journal, group: Commits[Ledger]) -> None:
    group.submit(add("first"))
    assert journal.begun.wait(10)
    futures = [group.submit(work) for work in (add("a"), refuse, add("b"), break_, add("c"))]
    journal.free.set()
    assert [futures[index].result(10) for index in (0, 2, 4)] == ["a", "b", "c"]
    with pytest.raises(NotOffered):
        futures[1].result(10)
    with pytest.raises(ZeroDivisionError):
        futures[3].result(10)
    assert journal.kept == ["first", "a", "b", "c"]


def test_if_a_commit_fails_all_that_wait_are_refused_and_nothing_is_kept(
    journal: Journal, group: Commits[Ledger]
) -> None:
    journal.fails = 1
    futures = [group.submit(add("first"))]
    assert journal.begun.wait(10)
    futures += [group.submit(add(str(number))) for number in range(3)]
    journal.free.set()
    errors = []
    for future in futures:
        with pytest.raises(StoreError, match="full") as caught:
            future.result(10)
        errors.append(caught.value)
    assert len(set(map(id, errors))) == 4, "each thread gets an error of its own"
    assert journal.kept == []
    assert group.submit(add("again")).result(10) == "again"


def test_a_full_queue_and_a_stuck_commit_refuse_at_once(
    journal: Journal, group: Commits[Ledger], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "MOST_WAITING", 3)
    first = group.submit(add("first"))
    assert journal.begun.wait(10)
    waiting = [group.submit(add(str(number))) for number in range(3)]
    with pytest.raises(StoreError, match="try again"):
        group.submit(add("too much"))
    monkeypatch.setattr(commits, "LONGEST", 0.0)
    with pytest.raises(StoreError, match="try again"):
        group.submit(add("too late"))
    for future in waiting:  # and those that wait need not wait for the stuck one any longer
        with pytest.raises(StoreError, match="try again"):
            future.result(10)
    monkeypatch.setattr(commits, "LONGEST", 20.0)
    last = group.submit(add("last"))
    journal.free.set()
    assert (first.result(10), last.result(10)) == ("first", "last")
    assert journal.kept == ["first", "last"]


def test_what_was_cancelled_is_not_done_and_what_waits_at_the_end_is(journal: Journal) -> None:
    group = Commits(journal.transaction)
    group.submit(add("first"))
    assert journal.begun.wait(10)
    cancelled, last = group.submit(add("cancelled")), group.submit(add("last"))
    assert cancelled.cancel()
    journal.free.set()
    group.close()
    assert last.result(0) == "last"
    assert journal.kept == ["first", "last"]
    with pytest.raises(StoreError, match="closed"):
        group.submit(add("after"))


# With votes.


def held_up(store: Store) -> threading.Event:
    """Lets the store's next requests wait until the event is set, so that they form one group."""
    free, begun = threading.Event(), threading.Event()

    def work(_: Book) -> bool:
        begun.set()
        return free.wait(30)

    store._commits.submit(work)
    assert begun.wait(10)
    return free


def some_raters(store: Store, number: int) -> dict[str, str]:
    """The first show of each of several raters."""
    return {name: store.turn(name).show.token for name, _ in store.add_raters([""] * number)}  # type: ignore[union-attr]


def test_one_refused_vote_among_many(tmp_path: Path, database: str, opened: Opened) -> None:
    store = opened(small_study(tmp_path / "s", pairs_of(8), raters_per_pair=4), database)
    shown = some_raters(store, 6)
    free = held_up(store)
    futures = [store.vote_soon(name, token, "left", key=f"key-{name}") for name, token in shown.items()]
    (anna, berta, *_), tokens = shown, list(shown.values())
    refused = [
        store.vote_soon(anna, tokens[1], "left", key="k"),
        store.vote_soon(anna, tokens[0], "bad", key="nul\0"),
        store.vote_soon(berta, tokens[1], "left", key="half \ud800"),
    ]
    again = store.vote_soon(anna, tokens[0], "left", key=f"key-{anna}")
    free.set()
    turns = [future.result(30) for future in futures]
    assert [turn.saved for turn in turns] == ["saved"] * 6
    assert again.result(30).saved == "known"
    assert again.result(30).show == turns[0].show
    for future, kind in zip(refused, (NotShown, NotOffered, NotOffered), strict=True):
        with pytest.raises(kind):
            future.result(30)
    assert {row.show.token for row in opened(store.study, database).judgements()} == set(tokens)


def test_a_vote_that_breaks_the_program_is_undone_alone(
    tmp_path: Path, database: str, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(small_study(tmp_path / "s", pairs_of(8), raters_per_pair=4), database)
    shown = some_raters(store, 4)
    names = list(shown)
    vote = Book.vote

    def broken(book: Book, rater_id: str, *arguments: Any, **named: Any) -> Any:
        saved = vote(book, rater_id, *arguments, **named)
        if rater_id == names[1]:
            raise ZeroDivisionError
        return saved

    free = held_up(store)
    with monkeypatch.context() as patch:
        patch.setattr(Book, "vote", broken)
        futures = [store.vote_soon(name, token, "left", key="k") for name, token in shown.items()]
        free.set()
        for number, future in enumerate(futures):
            if number == 1:
                with pytest.raises(ZeroDivisionError):
                    future.result(30)
            else:
                assert future.result(30).saved == "saved"
    assert {row.show.rater for row in store.judgements()} == {*names} - {names[1]}
    assert store.vote(names[1], shown[names[1]], "left", key="k").saved == "saved"


@pytest.mark.parametrize("statement", ["seedpo_shows", "seedpo_votes", "seedpo_counts", "COMMIT"])
def test_a_database_that_fails_in_the_middle_refuses_all_and_loses_nothing(
    statement: str, tmp_path: Path, database: str, opened: Opened
) -> None:
    store = opened(small_study(tmp_path / "s", pairs_of(8), raters_per_pair=4), database)
    shown = some_raters(store, 4)
    engine = store._database._engine
    failing = threading.Event()

    def fail(connection: Connection, *rest: Any) -> None:
        words = rest[1] if len(rest) > 1 else "COMMIT"
        if failing.is_set() and statement in words and "SELECT" not in words.split("FROM unnest")[0].split("INTO")[0]:
            failing.clear()
            raise SeedpoError("it fails now")

    if statement == "COMMIT":
        event.listen(engine, "commit", fail)
    else:
        event.listen(engine, "before_cursor_execute", fail)
    free = held_up(store)
    futures = [store.vote_soon(name, token, "left", key="k") for name, token in shown.items()]
    failing.set()
    free.set()
    for future in futures:
        with pytest.raises(SeedpoError, match="fails now"):
            future.result(30)
    assert store.judgements() == []
    turns = [store.vote(name, token, "left", key="k") for name, token in shown.items()]
    assert [turn.saved for turn in turns] == ["saved"] * 4
    assert {row.show.token for row in store.judgements()} == set(shown.values())
    raw = Database(database)
    with raw.reading() as connection:
        counted = connection.execute(text("SELECT sum(raters) FROM seedpo_counts")).scalar()
    raw.close()
    assert counted == 4


def test_a_database_that_fails_while_one_request_asks_it_refuses_all(
    tmp_path: Path, database: str, opened: Opened
) -> None:
    store = opened(small_study(tmp_path / "s", pairs_of(8), raters_per_pair=4), database)
    (anna, first), (berta, second) = some_raters(store, 2).items()
    store.vote(anna, first, "left", key="a")
    free = held_up(store)
    asked = threading.Event()

    def fail(*rest: Any) -> None:
        if "FROM seedpo_votes" in rest[2] and not asked.is_set():
            asked.set()
            raise OperationalError(rest[2], {}, Exception("it fails now"))

    event.listen(store._database._engine, "before_cursor_execute", fail)
    futures = [store.vote_soon(berta, second, "left", key="b"), store.vote_soon(anna, first, "tie", key="corrected")]
    free.set()
    for future in futures:
        with pytest.raises(StoreError, match="fails now"):
            future.result(30)
    assert asked.is_set()
    assert [
        store.vote(berta, second, "left", key="b").saved,
        store.vote(anna, first, "tie", key="corrected").saved,
    ] == [
        "saved",
        "saved",
    ]


def test_a_vote_takes_few_statements_and_many_votes_hardly_more(tmp_path: Path, database: str, opened: Opened) -> None:
    store = opened(small_study(tmp_path / "s", pairs_of(30), raters_per_pair=20), database)
    shown = some_raters(store, 12)
    statements: list[str] = []
    event.listen(store._database._engine, "before_cursor_execute", lambda *rest: statements.append(rest[2]))
    name, token = next(iter(shown.items()))
    following = store.vote(name, token, "left", key="k")
    assert following.show is not None
    assert len(statements) <= 9
    shown[name] = following.show.token
    free = held_up(store)
    futures = [store.vote_soon(name, token, "left", key="k") for name, token in shown.items()]
    statements.clear()
    free.set()
    assert {future.result(30).saved for future in futures} == {"saved"}
    assert len(statements) <= 9
