"""Shows and votes. What depends on the database is tested on SQLite and on PostgreSQL."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from seedpo.errors import DataError
from seedpo.study.errors import LinkEnded, NoConsent, NotOffered, NotShown, StoreError, UnknownRater
from seedpo.study.folder import Study, append_groups, open_study
from seedpo.study.records import Candidate, Group, Side
from seedpo.study.status import rater_status
from seedpo.study.votes.database import Database
from seedpo.study.votes.store import Store
from tests.study.small_study import Clock, pairs_of, picture, small_study

Opened = Callable[[Study, str], Store]


def rows(url: str, query: str) -> list[tuple[object, ...]]:
    database = Database(url)
    try:
        with database.reading() as connection:
            return [tuple(row) for row in connection.execute(text(query))]
    finally:
        database.close()


def judge_all(store: Store, rater: str, side: Side = "left") -> int:
    """Answers until nothing is left."""
    done = 0
    while (show := store.turn(rater).show) is not None:
        assert store.vote(rater, show.token, side, key=f"key-{show.number}").saved == "saved"
        done += 1
    return done


def test_a_vote_is_found_by_another_store_with_all_that_it_says(tmp_path: Path, database: str, opened: Opened) -> None:
    study = small_study(tmp_path / "s", pairs_of(1, category="people"))
    store = opened(study, database)
    rater, _ = store.add_rater("anna")
    show = store.turn(rater).show
    assert show is not None
    assert store.vote(rater, show.token, "left", key="k", seconds=2.5).saved == "saved"
    (judgement,) = opened(study, database).judgements()
    assert judgement.show == show
    assert judgement.answer == ("second" if show.flipped else "first")
    assert (judgement.question, judgement.prompt) == ("preference", study.groups[0].prompt)
    assert (judgement.first, judgement.second) == study.groups[0].candidates
    assert (judgement.category, judgement.seconds, judgement.at) == ("people", 2.5, "2026-03-01T12:00:00.000000+00:00")


def test_an_impossible_time_is_not_stored_and_the_vote_is(tmp_path: Path, sqlite: str, opened: Opened) -> None:
    store = opened(small_study(tmp_path / "s", pairs_of(4)), sqlite)
    rater, _ = store.add_rater()
    for seconds in (-1.0, float("nan"), float("inf"), None):
        show = store.turn(rater).show
        assert show is not None
        store.vote(rater, show.token, "tie", key="k", seconds=seconds)
    assert [(judgement.seconds, judgement.answer) for judgement in store.judgements()] == [(None, "tie")] * 4


def test_the_open_show_is_given_again_until_it_is_answered(tmp_path: Path, sqlite: str, opened: Opened) -> None:
    store = opened(small_study(tmp_path / "s"), sqlite)
    rater, _ = store.add_rater()
    first = store.turn(rater).show
    assert first is not None
    assert store.turn(rater).show == first
    store.vote(rater, first.token, "right", key="k")
    second = store.turn(rater).show
    assert second is not None
    assert (second.number, second.group != first.group) == (1, True)
    store.vote(rater, second.token, "bad", key="k")
    assert store.turn(rater).show is None


def test_one_key_counts_once_and_a_later_key_corrects(tmp_path: Path, sqlite: str, opened: Opened) -> None:
    store = opened(small_study(tmp_path / "s"), sqlite)
    rater, _ = store.add_rater()
    show = store.turn(rater).show
    assert show is not None
    answers = [("left", "a", "saved"), ("left", "a", "known"), ("tie", "b", "saved"), ("left", "a", "known")]
    for side, key, expected in answers:
        assert store.vote(rater, show.token, side, key=key).saved == expected  # type: ignore[arg-type]
    assert [judgement.answer for judgement in store.judgements()] == ["tie"]
    assert rows(sqlite, "SELECT count(*) FROM seedpo_votes") == [(2,)]


def test_the_database_refuses_to_change_or_delete_votes(tmp_path: Path, database: str, opened: Opened) -> None:
    store = opened(small_study(tmp_path / "s"), database)
    rater, _ = store.add_rater()
    judge_all(store, rater)
    engine = create_engine(Database(database).url)
    for statement in ("UPDATE seedpo_votes SET answer = 'first'", "DELETE FROM seedpo_votes"):
        with pytest.raises(DBAPIError, match="only added"), engine.begin() as connection:
            connection.execute(text(statement))
    engine.dispose()
    assert len(store.judgements()) == 2


def test_nothing_that_can_be_done_changes_an_earlier_vote(tmp_path: Path, sqlite: str, opened: Opened) -> None:
    store = opened(small_study(tmp_path / "s", pairs_of(3), raters_per_pair=2), sqlite)
    anna, berta = (store.add_rater()[0] for _ in range(2))
    before: list[tuple[object, ...]] = []

    def require_only_added() -> None:
        after = rows(sqlite, "SELECT * FROM seedpo_votes ORDER BY id")
        assert after[: len(before)] == before
        before[:] = after

    shown = []
    while (show := store.turn(anna).show) is not None:
        store.vote(anna, show.token, "left", key="k")
        shown.append(show)
        require_only_added()
    acts: list[Callable[[], object]] = [
        lambda: store.vote(anna, shown[0].token, "right", key="corrected"),
        lambda: store.vote(anna, shown[0].token, "left", key="k"),
        lambda: store.vote(anna, shown[1].token, "skip", key="corrected"),
        lambda: judge_all(store, berta),
        lambda: store.exclude(anna),
        lambda: store.exclude(anna, False),
        lambda: store.revoke(anna),
    ]
    for act in acts:
        act()
        require_only_added()
    assert len(before) == 3 + 2 + 3


def test_a_vote_for_what_was_never_shown_is_refused(tmp_path: Path, sqlite: str, opened: Opened) -> None:
    store = opened(small_study(tmp_path / "s"), sqlite)
    other_study = opened(small_study(tmp_path / "t", id="other"), sqlite)
    anna, berta = store.add_rater()[0], store.add_rater()[0]
    shown = store.turn(anna).show
    assert shown is not None
    for rater, token in ((berta, shown.token), (anna, "invented"), (anna, "")):
        with pytest.raises(NotShown, match="never shown to this rater"):
            store.vote(rater, token, "left", key="k")
    with pytest.raises(NotShown):
        store.previous(berta, shown.token)
    with pytest.raises(UnknownRater, match=anna):
        other_study.vote(anna, shown.token, "left", key="k")
    assert (store.shows(anna), store.shows(berta)) == ([shown], [])
    assert rows(sqlite, "SELECT count(*) FROM seedpo_votes") == [(0,)]


def test_answers_that_the_question_does_not_offer_are_refused(tmp_path: Path, sqlite: str, opened: Opened) -> None:
    sets = Group(
        id="d",
        question="diversity",
        prompt="p",
        candidates=tuple(Candidate(source=name, images=tuple(name)) for name in ("01", "23")),
    )
    store = opened(small_study(tmp_path / "s", [sets]), sqlite)
    rater, _ = store.add_rater()
    show = store.turn(rater).show
    assert show is not None
    for side, key in (("bad", "k"), ("nonsense", "k"), ("left", ""), ("left", "k" * 201)):
        with pytest.raises(NotOffered):
            store.vote(rater, show.token, side, key=key)  # type: ignore[arg-type]
    assert store.judgements() == []


def test_links_are_found_by_their_token_alone_and_only_a_hash_is_kept(
    tmp_path: Path, sqlite: str, opened: Opened
) -> None:
    store = opened(small_study(tmp_path / "s"), sqlite)
    made = store.add_raters(["anna", "berta"])
    assert len({*made[0], *made[1]}) == 4
    rater = store.rater(made[1][1])
    assert rater is not None
    assert (rater.id, rater.label, rater.consented, rater.expired) == (made[1][0], "berta", False, False)
    for token in ("", "x", made[0][0], made[0][1][:-1], "\udcff", "%00"):
        assert store.rater(token) is None
    assert opened(small_study(tmp_path / "t", id="other"), sqlite).rater(made[0][1]) is None
    (kept,) = rows(sqlite, "SELECT token_hash FROM seedpo_raters WHERE label = 'anna'")[0]
    assert made[0][1] not in str(kept)
    assert sorted(row.label for row in store.raters()) == ["anna", "berta"]


def test_links_that_have_ended_neither_show_nor_vote(tmp_path: Path, sqlite: str, opened: Opened, clock: Clock) -> None:
    store = opened(small_study(tmp_path / "s"), sqlite)
    (short, token), (revoked, _) = store.add_rater(days=1.5), store.add_rater()
    shows = {rater: store.turn(rater).show for rater in (short, revoked)}
    store.revoke(revoked)
    clock.pass_(days=1.6)
    rater = store.rater(token)
    assert rater is not None
    assert rater.expired
    for name, show in shows.items():
        assert show is not None
        with pytest.raises(LinkEnded):
            store.turn(name)
        with pytest.raises(LinkEnded):
            store.vote(name, show.token, "left", key="k")
    for act in (store.revoke, store.consent, store.exclude, store.turn):
        with pytest.raises(UnknownRater, match="no rater 'nobody'"):
            act("nobody")
    with pytest.raises(StoreError, match="days"):
        store.add_rater(days=1e12)


def test_consent_comes_first_where_it_is_asked(tmp_path: Path, sqlite: str, opened: Opened) -> None:
    store = opened(small_study(tmp_path / "s", consent="I agree."), sqlite)
    rater, token = store.add_rater()
    with pytest.raises(NoConsent):
        store.turn(rater)
    store.consent(rater)
    store.consent(rater)
    found = store.rater(token)
    assert found is not None
    assert found.consented
    assert store.turn(rater).show is not None


def test_pairs_get_as_many_raters_as_they_shall_have(tmp_path: Path, sqlite: str, opened: Opened) -> None:
    store = opened(small_study(tmp_path / "s", pairs_of(3), raters_per_pair=2), sqlite)
    assert [judge_all(store, store.add_rater()[0]) for _ in range(4)] == [3, 3, 0, 0]
    per_pair = Counter(judgement.show.group for judgement in store.judgements())
    assert set(per_pair.values()) == {2}


def test_a_place_that_is_held_for_an_hour_is_freed(tmp_path: Path, sqlite: str, opened: Opened, clock: Clock) -> None:
    store = opened(small_study(tmp_path / "s", pairs_of(1)), sqlite)
    anna, berta, clara = (store.add_rater()[0] for _ in range(3))
    show = store.turn(anna).show
    assert show is not None
    clock.pass_(minutes=40)
    assert store.turn(berta).show is None
    assert store.turn(anna).show == show  # she is still there: her hour begins again
    clock.pass_(minutes=40)
    assert store.turn(berta).show is None
    clock.pass_(minutes=21)
    taken = store.turn(berta).show
    assert taken is not None
    assert store.turn(anna).show is None
    assert store.turn(clara).show is None
    assert store.vote(anna, show.token, "left", key="late").saved == "saved"  # work is never refused
    assert store.vote(berta, taken.token, "left", key="k").saved == "saved"


def test_a_stale_show_whose_place_is_free_is_given_again(
    tmp_path: Path, sqlite: str, opened: Opened, clock: Clock
) -> None:
    store = opened(small_study(tmp_path / "s", pairs_of(1)), sqlite)
    anna, berta = (store.add_rater()[0] for _ in range(2))
    show = store.turn(anna).show
    clock.pass_(hours=30)
    assert store.turn(anna).show == show
    assert store.turn(berta).show is None


def test_revoked_skipped_and_excluded_places_are_free_again(tmp_path: Path, database: str, opened: Opened) -> None:
    study = small_study(tmp_path / "s", pairs_of(1))
    store, other = opened(study, database), opened(study, database)
    names = [store.add_rater()[0] for _ in range(4)]
    shows = [store.turn(names[0]).show]
    assert other.turn(names[1]).show is None
    store.revoke(names[0])
    shows.append(other.turn(names[1]).show)
    assert shows[1] is not None
    other.vote(names[1], shows[1].token, "skip", key="k")
    third = store.turn(names[2]).show
    assert third is not None
    store.vote(names[2], third.token, "left", key="k")
    assert other.turn(names[3]).show is None
    store.exclude(names[2])
    assert [judgement.show.rater for judgement in store.judgements()] == [names[1]]
    assert len(store.judgements(excluded=True)) == 2
    assert other.turn(names[3]).show is not None
    store.exclude(names[2], False)
    assert len(other.judgements()) == 2


def test_going_back(tmp_path: Path, sqlite: str, opened: Opened) -> None:
    store = opened(small_study(tmp_path / "s", pairs_of(3)), sqlite)
    rater, _ = store.add_rater()
    assert store.previous(rater) is None
    shows = []
    for _ in range(2):
        show = store.turn(rater).show
        assert show is not None
        store.vote(rater, show.token, "left", key="k")
        shows.append(show)
    open_ = store.turn(rater).show
    assert open_ is not None
    assert store.previous(rater) == store.previous(rater, open_.token) == shows[1]
    assert store.previous(rater, shows[1].token) == shows[0]
    assert store.previous(rater, shows[0].token) is None
    store.vote(rater, shows[0].token, "tie", key="again")
    assert store.turn(rater).show == open_
    assert store.previous(rater, open_.token) == shows[1]


def test_progress_and_overview(tmp_path: Path, sqlite: str, opened: Opened) -> None:
    groups = [*pairs_of(8), *(replace(group, id=f"c{group.id}", expected=1) for group in pairs_of(3))]
    study = small_study(tmp_path / "s", groups, checks=0.25, repeats=0.2, seed=3)
    store = opened(study, sqlite)
    rater, _ = store.add_rater("anna")
    before = store.turn(rater).progress
    assert (before.done, before.total >= 8) == (0, True)
    totals = set()
    while (show := store.turn(rater).show) is not None:
        totals.add(store.turn(rater).progress.total)
        side: Side = "left" if show.flipped else "right"  # always the second candidate
        store.vote(rater, show.token, side, key="k", seconds=float(show.number))
    after = store.turn(rater).progress
    assert after.done == after.total == len(store.judgements())
    assert max(totals) <= after.done + 2
    idle, _ = store.add_rater("idle")
    status = {line.rater.id: line for line in rater_status(store, store.figures())}
    line = status[rater]
    assert (line.rater.label, line.answered, line.skipped) == ("anna", after.done, 0)
    assert line.checks == line.checks_passed >= 1
    assert line.repeats == line.repeats_same >= 1
    assert line.seconds == (after.done - 1) / 2
    assert (status[idle].answered, status[idle].last, status[idle].seconds) == (0, "", None)


def test_groups_that_are_appended_are_shown(tmp_path: Path, sqlite: str, opened: Opened) -> None:
    store = opened(small_study(tmp_path / "s", pairs_of(1)), sqlite)
    rater, _ = store.add_rater()
    assert judge_all(store, rater) == 1
    (new,) = append_groups(tmp_path / "s", [pairs_of(2)[1]], {"2": picture(2), "3": picture(3)})
    other = opened(open_study(tmp_path / "s"), sqlite)
    show = other.turn(rater).show
    assert show is not None
    other.vote(rater, show.token, "left", key="k")
    assert [judgement.show.group for judgement in store.judgements()] == ["p0", new.id]


def test_an_answer_is_stored_while_the_folder_is_in_disorder(tmp_path: Path, sqlite: str, opened: Opened) -> None:
    study = small_study(tmp_path / "s", pairs_of(3))
    store = opened(study, sqlite)
    rater, _ = store.add_rater()
    show = store.turn(rater).show
    assert show is not None
    file = tmp_path / "s" / "groups.jsonl"
    whole = file.read_text()
    file.write_text(whole + "{nonsense}\n")
    with pytest.raises(DataError):
        store.vote(rater, show.token, "left", key="k")
    assert [judgement.show for judgement in store.judgements()] == [show]
    file.write_text(whole)
    again = store.vote(rater, show.token, "left", key="k")
    assert (again.saved, again.progress.done) == ("known", 1)
    assert again.show is not None


def test_a_study_that_was_read_before_others_appended_and_voted_is_read_again(
    tmp_path: Path, sqlite: str, opened: Opened
) -> None:
    early = small_study(tmp_path / "s", pairs_of(1))
    (new,) = append_groups(tmp_path / "s", [pairs_of(2)[1]], {"2": picture(2), "3": picture(3)})
    store = opened(open_study(tmp_path / "s"), sqlite)
    assert judge_all(store, store.add_rater()[0]) == 2
    late = opened(early, sqlite)
    assert {judgement.show.group for judgement in late.judgements()} == {"p0", new.id}


def test_changed_groups_and_other_studies_of_one_id_are_named(tmp_path: Path, database: str, opened: Opened) -> None:
    study = small_study(tmp_path / "s", pairs_of(3))
    opened(replace(study, groups=study.groups[::-1]), database)  # nothing is shown yet: nothing is lost
    store = opened(study, database)
    judge_all(store, store.add_rater()[0])
    edited = replace(study.groups[1], prompt="another")
    cases = {
        "group 'p1' was changed": (study.groups[0], edited, study.groups[2]),
        "group 'p1' was shown to raters and is not": (study.groups[0], study.groups[2]),
        "first group 'p2' is not": study.groups[::-1],
    }
    for message, groups in cases.items():
        with pytest.raises(StoreError, match=message):
            Store.open(replace(study, groups=groups), database)
    assert (
        len(
            opened(
                replace(study, groups=(*study.groups[:2], replace(study.groups[2], category="x"))), database
            ).judgements()
        )
        == 3
    )


def test_a_study_that_took_the_id_meanwhile_is_noticed(tmp_path: Path, sqlite: str, opened: Opened) -> None:
    study = small_study(tmp_path / "s", pairs_of(2))
    store = opened(study, sqlite)
    other = opened(replace(study, groups=study.groups[::-1]), sqlite)
    rater, _ = store.add_rater()
    other.turn(rater)
    with pytest.raises(StoreError, match="another study"):
        store.turn(store.add_rater()[0])


def test_two_studies_share_a_database(tmp_path: Path, database: str, opened: Opened) -> None:
    stores = [opened(small_study(tmp_path / name, id=name), database) for name in ("one", "two")]
    judge_all(stores[0], stores[0].add_rater()[0])
    assert [len(store.judgements()) for store in stores] == [2, 0]
    assert judge_all(stores[1], stores[1].add_rater()[0]) == 2
    assert [len(store.raters()) for store in stores] == [1, 1]


def test_tables_of_a_later_version_are_refused(tmp_path: Path, database: str, opened: Opened) -> None:
    study = small_study(tmp_path / "s")
    opened(study, database).close()
    raw = Database(database)
    with raw.writing() as connection:
        connection.execute(text("UPDATE seedpo_schema SET version = 99"))
    raw.close()
    with pytest.raises(StoreError, match=r"version 99.*upgrade seedpo"):
        Store.open(study, database)


def test_two_tabs_that_ask_at_once_get_one_show(tmp_path: Path, database: str, opened: Opened) -> None:
    study = small_study(tmp_path / "s", pairs_of(6), raters_per_pair=3)
    stores = [opened(study, database), opened(study, database)]  # as two processes have them
    rater, _ = stores[0].add_rater()
    for _ in range(6):
        barrier = threading.Barrier(8)

        def ask(number: int, barrier: threading.Barrier = barrier) -> object:
            barrier.wait()
            return stores[number % 2].turn(rater).show

        with ThreadPoolExecutor(8) as pool:
            shown = set(pool.map(ask, range(8)))
        (show,) = shown
        assert show is not None
        with ThreadPoolExecutor(8) as pool:
            token = show.token  # type: ignore[attr-defined]
            said = list(pool.map(lambda n, t=token: stores[n % 2].vote(rater, t, "left", key="same").saved, range(8)))
        assert sorted(said) == ["known"] * 7 + ["saved"]
    assert stores[1].turn(rater).show is None


def test_many_raters_at_once_never_exceed_a_pair_and_lose_nothing(
    tmp_path: Path, database: str, opened: Opened
) -> None:
    study = small_study(tmp_path / "s", pairs_of(12), raters_per_pair=3)
    stores = [opened(study, database), opened(study, database)]
    names = [name for name, _ in stores[0].add_raters([""] * 24)]

    def work(number: int) -> int:
        return judge_all(stores[number % 2], names[number])

    with ThreadPoolExecutor(24) as pool:
        done = list(pool.map(work, range(24)))
    judgements = stores[0].judgements()
    assert sum(done) == len(judgements) == 36
    per_pair = Counter((judgement.show.group, judgement.show.rater) for judgement in judgements)
    assert set(per_pair.values()) == {1}
    assert set(Counter(judgement.show.group for judgement in judgements).values()) == {3}
    assert rows(database, "SELECT count(*) FROM seedpo_counts WHERE raters = 3") == [(12,)]
    latest = "SELECT key FROM seedpo_votes WHERE show = s.token ORDER BY id DESC LIMIT 1"
    stale = f"SELECT count(*) FROM seedpo_shows s WHERE last_key <> ({latest})"
    assert rows(database, stale) == [(0,)]
