"""Raters who are forgotten: everything of them is gone, and nothing of anybody else."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from seedpo.cli import app
from seedpo.study.errors import StoreError, UnknownRater
from seedpo.study.folder import Study
from seedpo.study.votes.database import Database
from seedpo.study.votes.store import Store
from tests.study.small_study import pairs_of, small_study

Opened = Callable[[Study, str], Store]


def judge_some(store: Store, rater: str, number: int) -> list[str]:
    """Answers some shows; gives everything that is stored of them and could be looked for."""
    traces = [rater]
    for _ in range(number):
        show = store.turn(rater).show
        assert show is not None
        key = f"key-of-{show.token}"
        store.vote(rater, show.token, "left", key=key)
        store.vote(rater, show.token, "tie", key=f"{key}-again")
        traces += [show.token, key]
    last = store.turn(rater).show
    return traces if last is None else [*traces, last.token]


def traces_in(folder: Path, traces: list[str]) -> set[str]:
    """Which traces are in any file of a folder."""
    content = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    return {trace for trace in traces if trace.encode() in content}


def table(url: str, query: str) -> list[tuple[object, ...]]:
    raw = Database(url)
    try:
        with raw.reading() as connection:
            return [tuple(row) for row in connection.execute(text(query))]
    finally:
        raw.close()


def execute(raw: Database, statements: list[str]) -> None:
    with raw.writing() as connection:
        for statement in statements:
            connection.execute(text(statement))


def test_no_byte_of_a_rater_is_left_in_the_files(tmp_path: Path) -> None:
    study = small_study(tmp_path / "s", pairs_of(40), raters_per_pair=9)
    store = Store.open(study)
    made = store.add_raters([f"label of rater {number}" for number in range(6)])
    names = [name for name, _ in made]
    traces: dict[str, list[str]] = {name: [] for name in names}
    for _ in range(4):
        for name in names:  # in turns, so that the rows lie on pages that are split and shared
            traces[name] += judge_some(store, name, 5)
    for number in (1, 4):
        traces[names[number]].append(f"label of rater {number}")
    (tokens,) = zip(*table(study.database_url, "SELECT token_hash FROM seedpo_raters ORDER BY turn"), strict=True)
    gone = [names[1], names[4]]
    looked_for = [*traces[gone[0]], *traces[gone[1]], tokens[1], tokens[4]]
    assert traces_in(study.folder, looked_for) == set(looked_for)
    for name in gone:
        forgotten = store.forget(name)
        assert (forgotten.shows, forgotten.answers) == (21, 40)
    assert store.wipe()
    assert traces_in(study.folder, looked_for) == set()
    stay = [trace for name in names if name not in gone for trace in traces[name]]
    assert traces_in(study.folder, stay) == set(stay)
    store.close()
    assert traces_in(study.folder, looked_for) == set()
    assert traces_in(study.folder, stay) == set(stay)


def test_everybody_else_goes_on_and_the_counts_are_right(tmp_path: Path, database: str, opened: Opened) -> None:
    study = small_study(tmp_path / "s", pairs_of(4), raters_per_pair=2)
    store, other = opened(study, database), opened(study, database)
    anna, berta, clara, dora = (name for name, _ in store.add_raters(["anna", "berta", "clara", "dora"]))
    for name in (anna, berta):
        judge_some(store, name, 4)
    assert other.turn(clara).show is None
    before = [row for row in store.judgements() if row.show.rater == berta]
    store.forget(anna)
    assert store.judgements() == before
    assert [rater.id for rater in store.raters()] == [berta, clara, dora]
    for each in (store, other):
        with pytest.raises(UnknownRater):
            each.turn(anna)
        with pytest.raises(UnknownRater):
            each.forget(anna)
    judge_some(other, clara, 4)  # the places are free, in every process
    assert store.turn(dora).show is None
    assert set(Counter(row.show.group for row in store.judgements()).values()) == {2}
    assert table(database, "SELECT DISTINCT raters FROM seedpo_counts") == [(2,)]
    assert table(database, "SELECT * FROM seedpo_erasures") == []
    assert store.wipe()


def test_the_database_deletes_no_other_votes(tmp_path: Path, database: str, opened: Opened) -> None:
    store = opened(small_study(tmp_path / "s", pairs_of(3), raters_per_pair=2), database)
    anna, berta = (name for name, _ in store.add_raters(["", ""]))
    for name in (anna, berta):
        judge_some(store, name, 2)
    raw = Database(database)
    allow = f"INSERT INTO seedpo_erasures (study, rater) VALUES ('small', '{anna}')"
    for statements in (
        ["DELETE FROM seedpo_votes"],
        [allow, "DELETE FROM seedpo_votes"],
        [allow, "UPDATE seedpo_votes SET answer = 'first'"],
    ):
        with pytest.raises(StoreError, match="only added"):
            execute(raw, statements)
    raw.close()
    assert table(database, "SELECT count(*) FROM seedpo_votes") == [(8,)]


def test_others_vote_meanwhile(tmp_path: Path, database: str, opened: Opened) -> None:
    study = small_study(tmp_path / "s", pairs_of(40), raters_per_pair=8)
    store, other = opened(study, database), opened(study, database)
    names = [name for name, _ in store.add_raters([""] * 8)]
    for name in names[:4]:
        judge_some(store, name, 6)
    start = threading.Barrier(5)

    def work(name: str) -> list[str]:
        start.wait()
        return judge_some(other, name, 20)[1:-1:2]

    with ThreadPoolExecutor(5) as pool:
        running = [pool.submit(work, name) for name in names[4:]]
        start.wait()
        for name in names[:4]:
            store.forget(name)
        saved = {token for future in running for token in future.result()}
    assert {row.show.token for row in store.judgements()} == saved
    counted = table(database, 'SELECT "group", raters FROM seedpo_counts WHERE raters > 0')
    assert dict(counted) == Counter(  # type: ignore[arg-type]
        row.show.group for row in store.judgements()
    )


def test_the_command_asks_first_and_names_what_is_wrong(tmp_path: Path) -> None:
    study = small_study(tmp_path / "s", pairs_of(3), raters_per_pair=2)
    with Store.open(study) as store:
        anna, berta = (name for name, _ in store.add_raters(["anna", ""]))
        judge_some(store, anna, 2)

    def run(*words: str, answer: str = "") -> tuple[int, str]:
        result = CliRunner().invoke(app, ["study", "forget", str(study.folder), *words], input=answer)
        return result.exit_code, result.output + str(result.exception or "")

    for words, answer in (((anna, "nobody", "--yes"), ""), ((anna,), "n\n")):
        _, said = run(*words, answer=answer)
        assert ("nobody" in said) == ("nobody" in words)
        with Store.open(study, write=False) as store:
            assert len(store.judgements()) == 2
    code, said = run(anna, berta, anna, answer="y\n")
    assert code == 0
    assert f"{anna} (anna)" in said
    assert f"{anna}, 3 tasks, 4 answers" in said
    with Store.open(study, write=False) as store:
        assert (store.judgements(), store.raters()) == ([], [])


def test_a_rater_may_be_named_by_the_personal_link(tmp_path: Path) -> None:
    study = small_study(tmp_path / "s", pairs_of(3), raters_per_pair=2)
    with Store.open(study) as store:
        (anna, link), (berta, _) = (store.add_rater(name) for name in ("anna", "berta"))
        for rater in (anna, berta):
            judge_some(store, rater, 1)
    arguments = ["study", "forget", str(study.folder), "--yes", f"https://study.example.org/r/{link}"]
    assert anna in CliRunner().invoke(app, arguments).output
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code != 0, "the link is gone too"
    with Store.open(study, write=False) as store:
        assert [rater.id for rater in store.raters()] == [berta]
