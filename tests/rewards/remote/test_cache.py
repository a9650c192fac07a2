from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from seedpo.errors import CacheError
from seedpo.rewards.remote.cache import ScoreCache, cache_key

KEY = cache_key("image", "prompt", "v1", "")


def test_scores_survive_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "scores.db"
    first = ScoreCache(file)
    assert first.find([KEY]) == {}
    first.keep({KEY: 0.1, cache_key("other"): -2.0})
    assert ScoreCache(file).find([KEY, cache_key("other"), cache_key("none")]) == {KEY: 0.1, cache_key("other"): -2.0}


def test_numbers_come_back_to_the_last_bit(tmp_path: Path) -> None:
    values = {cache_key(str(number)): 1.0 / (number + 3) for number in range(1500)}
    ScoreCache(tmp_path / "scores.db").keep(values)
    assert ScoreCache(tmp_path / "scores.db").find(list(values)) == values


def test_the_first_score_stays(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path / "scores.db")
    cache.keep({KEY: 1.0})
    cache.keep({KEY: 2.0})
    assert cache.find([KEY]) == {KEY: 1.0}


def test_every_fact_counts() -> None:
    facts = [("a", "b"), ("ab",), ("a", "b", ""), ("b", "a"), ('a", "b',)]
    assert len({cache_key(*some) for some in facts}) == len(facts)


def test_many_may_write_at_once(tmp_path: Path) -> None:
    file = tmp_path / "scores.db"

    def write(number: int) -> None:
        ScoreCache(file).keep({cache_key(str(number)): number})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(40)))
    assert sorted(ScoreCache(file).find([cache_key(str(number)) for number in range(40)]).values()) == list(range(40))


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "scores.db"
    file.write_bytes(b"this is no data base at all" * 100)
    with pytest.raises(CacheError, match=r"scores\.db cannot be used \(file is not a database\); remove it if"):
        ScoreCache(file)
    with pytest.raises(CacheError, match=r"cannot be used"):
        ScoreCache(tmp_path)
    with pytest.raises(CacheError, match=r"cannot be used"):
        ScoreCache(file / "below.db")


@pytest.mark.parametrize(
    "value", ["'{half'", "'null'", "'true'", "'[1.0]'", "'\"high\"'", "'NaN'", "'Infinity'", "'1e999'", "x'ff'", "''"]
)
def test_what_is_no_score_is_one_line(tmp_path: Path, value: str) -> None:
    cache = ScoreCache(tmp_path / "scores.db")
    cache.keep({KEY: 1.0})
    with sqlite3.connect(tmp_path / "scores.db") as connection:
        connection.execute(f"UPDATE scores SET value = {value}")
    connection.close()
    with pytest.raises(CacheError, match=r"scores\.db cannot be used \(it holds .*, which is no score\); remove it"):
        cache.find([KEY])


def test_a_locked_file_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seedpo.rewards.remote.cache._WAIT", 0.05)
    cache = ScoreCache(tmp_path / "scores.db")
    other = sqlite3.connect(tmp_path / "scores.db")
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(CacheError, match=r"cannot be used \(database is locked\)"):
        cache.keep({KEY: 1.0})
    other.close()
