"""Writers that are killed at any moment: every acknowledged vote is found afterwards, and none twice."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from seedpo.study.folder import Study
from seedpo.study.votes.database import Database
from seedpo.study.votes.store import Store
from tests.study.small_study import pairs_of, small_study

ROOT = Path(__file__).resolve().parents[3]

# Each vote is sent twice under one key, as by a page that retries. However late the kill comes, no rater gets through.
WRITER = """
import sys, threading
from pathlib import Path
from seedpo.study.folder import open_study
from seedpo.study.votes.store import Store
store = Store.open(open_study(Path(sys.argv[1])), sys.argv[2])
def work(rater):
    for _ in range(int(sys.argv[3])):
        show = store.turn(rater).show
        key = "key-" + show.token
        store.vote(rater, show.token, "left", key=key)
        sys.stdout.write(show.token + "\\n")
        sys.stdout.flush()
        store.vote(rater, show.token, "left", key=key)
    threading.Event().wait()
for thread in [threading.Thread(target=work, args=(name,)) for name in sys.argv[4:]]:
    thread.start()
"""

PAIRS, RATERS = 60, 8


def start(study: Study, url: str, quota: int, names: list[str], log: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    with log.open("ab") as stream:
        command = [sys.executable, "-c", WRITER, str(study.folder), url, str(quota), *names]
        return subprocess.Popen(command, stdout=stream, stderr=subprocess.DEVNULL, env=environment)


def acknowledged(logs: list[Path]) -> list[str]:
    lines = [line for log in logs if log.exists() for line in log.read_text().split("\n")]
    return [line for line in lines if len(line) == 24]  # a line that the kill cut off was not acknowledged


@pytest.mark.parametrize(("kills", "writers"), [(2, 2), pytest.param(8, 3, marks=pytest.mark.slow)])
def test_no_acknowledged_vote_is_lost_and_none_counts_twice(
    tmp_path: Path, database: str, opened: Callable[[Study, str], Store], kills: int, writers: int
) -> None:
    draw = random.Random(5)
    study = small_study(tmp_path / "s", pairs_of(PAIRS), raters_per_pair=writers * RATERS)
    names = [name for name, _ in opened(study, database).add_raters([""] * (writers * RATERS))]
    logs = [tmp_path / f"log{index}" for index in range(writers)]
    for _ in range(kills):
        before = [len(acknowledged([log])) for log in logs]
        running = [
            start(study, database, PAIRS // (kills + 1), names[index * RATERS : (index + 1) * RATERS], log)
            for index, log in enumerate(logs)
        ]
        end = time.monotonic() + 600
        while time.monotonic() < end and not all(
            len(acknowledged([log])) > count for log, count in zip(logs, before, strict=True)
        ):
            time.sleep(0.01)
        time.sleep(draw.random() * 0.1)
        for writer in running:
            writer.kill()
        assert [writer.wait() for writer in running] == [-9] * writers
    said = acknowledged(logs)
    store = opened(study, database)
    kept = [judgement.show.token for judgement in store.judgements()]
    assert len(said) >= kills * writers
    assert len(set(said)) == len(said)
    assert set(said) <= set(kept)
    assert len(set(kept)) == len(kept) <= len(said) + kills * len(names)  # a vote may be kept and not yet said
    pairs = Counter((judgement.show.rater, judgement.show.group) for judgement in store.judgements())
    assert set(pairs.values()) == {1}
    raw = Database(database)
    with raw.reading() as connection:
        assert connection.execute(text("SELECT count(*) FROM seedpo_votes")).scalar() == len(kept)
        per_group = Counter(judgement.show.group for judgement in store.judgements())
        counted = connection.execute(text('SELECT "group", raters FROM seedpo_counts')).all()
        assert {row[0]: row[1] for row in counted} == dict(per_group)
    raw.close()
    for name in names:  # and each goes on where it stopped
        assert store.turn(name).show is not None
