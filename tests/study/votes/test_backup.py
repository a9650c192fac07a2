"""Copies of studies: whole, of one moment, usable, and movable between databases."""

from __future__ import annotations

import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from seedpo.errors import ConfigError, SeedpoError
from seedpo.study.errors import StoreError
from seedpo.study.folder import Study, open_study
from seedpo.study.records import Judgement
from seedpo.study.votes.backup import Copied, back_up, restore
from seedpo.study.votes.store import Store
from seedpo.study.web.security import KEY_FILE, read_secret
from tests.study.small_study import pairs_of, small_study


def voted(study: Study, url: str, *, raters: int = 3, answers: int = 4) -> list[str]:
    """A store with votes, of which one is corrected, one show is open, and one rater is excluded; gives the tokens."""
    tokens = []
    with Store.open(study, url) as store:
        for number in range(raters):
            rater, token = store.add_rater(f"rater {number}", days=5.0)
            tokens.append(token)
            for answer in range(answers):
                show = store.turn(rater).show
                assert show is not None
                store.vote(rater, show.token, "left", key=f"{number}-{answer}", seconds=1.5)
            store.vote(rater, show.token, "right", key=f"{number}-corrected")
            store.turn(rater)
        store.exclude(rater)
    return tokens


def state(study: Study, url: str | None = None) -> tuple[list[Judgement], object, list[int]]:
    """All that a study says of its raters and answers."""
    with Store.open(study, url, write=False) as store:
        raters = store.raters()
        return store.judgements(excluded=True), raters, [len(store.shows(rater.id)) for rater in raters]


def test_a_backup_is_the_study_with_all_its_votes(tmp_path: Path, database: str) -> None:
    study = small_study(tmp_path / "study", pairs_of(6), raters_per_pair=3, database=database)
    other = small_study(tmp_path / "other", pairs_of(6), id="other", raters_per_pair=3)
    tokens = voted(study, database)
    voted(other, database)
    secret = read_secret(study.folder)
    assert back_up(study.folder, tmp_path / "copies" / "one") == Copied(raters=3, shows=15, votes=15)
    copy = open_study(tmp_path / "copies" / "one")
    assert copy.settings.database is None
    assert state(copy) == state(study, database)
    assert read_secret(copy.folder) == secret
    assert stat.S_IMODE((copy.folder / KEY_FILE).stat().st_mode) == 0o600
    with Store.open(copy) as store:  # it goes on: the link works, the open show is still open, votes are added
        rater = store.rater(tokens[0])
        assert rater is not None
        show = store.turn(rater.id).show
        assert show is not None
        assert show.number == 4
        store.vote(rater.id, show.token, "tie", key="new")
        assert len(store.judgements(excluded=True)) == 13
    assert len(state(study, database)[0]) == 12, "the original is left alone"


def test_votes_move_to_another_database_beside_other_studies(tmp_path: Path, database: str, postgres: object) -> None:
    study = small_study(tmp_path / "study", pairs_of(6), raters_per_pair=3)
    voted(study, study.database_url)
    other = small_study(tmp_path / "other", pairs_of(6), id="other", raters_per_pair=3)
    voted(other, database, raters=1)
    before = state(other, database)
    assert restore(study.folder, database) == Copied(raters=3, shows=15, votes=15)
    assert state(study, database) == state(study)
    assert state(other, database) == before
    with Store.open(study, database) as store:  # numbers of new answers follow those of the restored ones
        rater = store.raters()[0]
        show = store.turn(rater.id).show
        assert show is not None
        store.vote(rater.id, show.token, "left", key="later")
        assert store.judgements()[-1].show.token == show.token
    with pytest.raises(StoreError, match="already"):
        restore(study.folder, database)


def test_a_study_without_votes_has_a_backup(tmp_path: Path) -> None:
    study = small_study(tmp_path / "study")
    assert back_up(study.folder, tmp_path / "copy") == Copied(raters=0, shows=0, votes=0)
    assert not (study.folder / "votes.db").exists()
    with Store.open(open_study(tmp_path / "copy")) as store:
        assert store.turn(store.add_rater()[0]).show is not None


def test_the_command_copies_every_table(tmp_path: Path) -> None:
    """In a process of its own, which has loaded no more than the command needs."""
    study = small_study(tmp_path / "study")
    with Store.open(study) as store:
        registered = store.registrations()
        store.add_rater()
    command = [sys.executable, "-m", "seedpo", "study", "backup", str(study.folder), "--out", str(tmp_path / "copy")]
    subprocess.run(command, check=True, capture_output=True)
    with Store.open(open_study(tmp_path / "copy")) as store:
        assert (store.registrations(), len(store.raters())) == (registered, 1)


def test_a_backup_is_of_one_moment(tmp_path: Path, database: str) -> None:
    """Raters vote while copies are made: in each, every answer has its show and every count is right."""
    study = small_study(tmp_path / "study", pairs_of(60), raters_per_pair=2)
    stop = threading.Event()

    def vote() -> None:
        with Store.open(study, database) as store:
            rater, _ = store.add_rater()
            number = 0
            while not stop.is_set() and (show := store.turn(rater).show):
                store.vote(rater, show.token, "left", key=f"{number}")
                number += 1

    threads = [threading.Thread(target=vote) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        copied = [back_up(study.folder, tmp_path / f"copy-{number}", url=database) for number in range(4)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    for number, copy in enumerate(copied):
        judgements, _, shows = state(open_study(tmp_path / f"copy-{number}"))
        assert len(judgements) == copy.votes
        assert sum(shows) == copy.shows


def test_what_cannot_be_copied_is_said_in_one_line(tmp_path: Path) -> None:
    study = small_study(tmp_path / "study")
    (tmp_path / "taken").mkdir()
    with pytest.raises(ConfigError, match="exists"):
        back_up(study.folder, tmp_path / "taken")
    with pytest.raises(SeedpoError, match="does not exist"):
        back_up(tmp_path / "nothing", tmp_path / "copy")
    (study.folder / "votes.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreError, match="not a SQLite database"):
        back_up(study.folder, tmp_path / "copy")
    assert {path.name for path in tmp_path.iterdir()} == {"study", "taken"}
