"""What a study was made to answer is remembered, whatever study.yaml says later."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from seedpo.errors import ConfigError
from seedpo.study.folder import Study, open_study
from seedpo.study.settings import NAME, StudySettings
from seedpo.study.status import aim_words
from seedpo.study.votes.database import Database
from seedpo.study.votes.registration import Aim, Registration, aim_of, split
from seedpo.study.votes.store import Store
from seedpo.study.votes.tables import registrations
from tests.study.made_votes import QUESTIONS
from tests.study.small_study import Clock, pairs_of, small_study


def changed(study: Study, **keys: object) -> Study:
    """The study after somebody has edited its study.yaml."""
    return replace(study, settings=study.settings.model_copy(update=keys))


def answer(store: Store) -> None:
    rater, _ = store.add_rater()
    show = store.turn(rater).show
    assert show is not None
    store.vote(rater, show.token, "left", key="k")


def test_the_aim_of_the_first_vote_stays_and_later_ones_are_added(tmp_path: Path, database: str) -> None:
    study = small_study(tmp_path / "study", kind="study", raters_per_pair=2)
    primary = changed(study, primary="preference")
    for opened in (study, primary, primary):
        Store.open(opened, database, clock=Clock()).close()
    with Store.open(primary, database) as store:
        answer(store)
    with Store.open(changed(study, primary="diversity", contrasts=(("b", "a"),)), database) as store:
        answer(store)
    Store.open(primary, database).close()
    with Store.open(changed(study, primary="diversity"), database, write=False) as store:  # only writers are remembered
        history = store.registrations()
        words = aim_words(store, store.figures())
    assert [(row.aim.primary, row.votes) for row in history] == [
        (None, 0),
        ("preference", 0),
        ("diversity", 1),
        ("preference", 2),
    ]
    assert all(str(row.aim) in words for row in history[1:])
    assert history[2].aim.contrasts == (("a", "b"),)
    aim, changes = split(history, Registration(aim=aim_of(primary.settings), votes=2, at=""))
    assert aim == Aim(primary="preference")
    assert [row.votes for row in changes] == [1, 2]


@pytest.mark.parametrize("statement", [sa.delete(registrations), sa.update(registrations).values(votes=0)])
def test_the_database_refuses_to_forget(tmp_path: Path, database: str, statement: sa.Delete | sa.Update) -> None:
    Store.open(small_study(tmp_path / "study"), database).close()
    engine = sa.create_engine(Database(database).url)
    with engine.connect() as connection, pytest.raises(DBAPIError, match="only added"):
        connection.execute(statement)
    engine.dispose()


def test_an_edit_that_no_server_has_read_is_a_change_too() -> None:
    first, later = Aim(primary="a"), Aim(primary="b")
    history = [Registration(aim=first, votes=0, at="1")]
    now = Registration(aim=later, votes=5, at="")
    assert split(history, now) == (first, (now,))
    assert split(history, replace(now, aim=first)) == (first, ())
    assert split([], now) == (later, ())


def test_the_order_of_contrasts_and_models_is_no_change() -> None:
    one, other = (
        StudySettings(id="x", kind="study", questions=QUESTIONS, contrasts=contrasts)
        for contrasts in ((("a", "b"), ("c", "a")), (("a", "c"), ("b", "a")))
    )
    assert aim_of(one) == aim_of(other)


def test_an_aim_asks_for_its_question_and_its_contrasts() -> None:
    aim = Aim(primary="preference", contrasts=(("a", "b"),))
    assert aim.asks("preference", ("b", "a"))
    assert not aim.asks("preference", ("a", "c"))
    assert not aim.asks("alignment", ("a", "b"))
    assert Aim().asks("alignment", ("a", "c"))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("primary: beauty", r"line \d+: primary is 'beauty'; .*preference, diversity"),
        ("contrasts: [[a, a]]", r"line \d+: contrast a against a names one model twice"),
        ("contrasts: [[a, b], [b, a]]", r"line \d+: contrast b against a occurs twice"),
        ("contrasts: [[a]]", r"line \d+: contrasts\.0"),
        ("contrasts: [[a, z]]", "names the model 'z'; this study has a, b"),
    ],
)
def test_a_wrong_aim_is_named_with_its_line(tmp_path: Path, keys: str, message: str) -> None:
    folder = small_study(tmp_path / "study", pairs_of(2), kind="study").folder
    key = keys.split(":")[0]
    lines = [line for line in (folder / NAME).read_text().splitlines() if not line.startswith(f"{key}:")]
    (folder / NAME).write_text("\n".join([*lines, keys]))
    with pytest.raises(ConfigError, match=message):
        open_study(folder)


def test_a_collection_has_no_contrasts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="kind: study"):
        small_study(tmp_path / "study", contrasts=(("a", "b"),))
