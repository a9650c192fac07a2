"""Many simulated raters at once, and a server killed among them: ``python -m benchmarks.study_load``.

For each database two runs, each with a study, a server process and links of its own:

* *steady*: raters look at each pair for an exponentially distributed time; latencies are those that people would feel;
* *flat out*: raters answer at once; the votes per second are what the server can do on this machine.

In the middle of each run the server gets ``kill -9`` and is started again. Afterwards every acknowledged vote is looked
for in the database: how many are lost, how many are stored twice, how many say something else.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy
from PIL import Image

from benchmarks.study_servers import StudyServer, postgres
from benchmarks.table import aligned
from seedpo.study.folder import Study, create_study
from seedpo.study.records import Candidate, Group, Side
from seedpo.study.settings import Question, StudySettings
from seedpo.study.simulated import Task, Vote, simulate
from seedpo.study.store import Store
from seedpo.study.tables import votes

RATERS_PER_PAIR = 10
QUANTILES = (50, 95, 99)
KINDS = ("task", "image", "vote")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.study_load",
        description=__doc__.split("\n\n", 1)[0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--raters", type=int, default=200, help="at the same time (default: 200)")
    parser.add_argument("--votes", type=int, default=20, help="of each rater (default: 20)")
    parser.add_argument("--pause", type=float, default=4.0, help="mean seconds per pair, steady run (default: 4)")
    parser.add_argument("--databases", nargs="+", choices=["sqlite", "postgresql"], default=["sqlite", "postgresql"])
    parser.add_argument("--runs", nargs="+", choices=["steady", "flat out"], default=["steady", "flat out"])
    parser.add_argument("--no-kill", action="store_true", help="leave the server alone")
    parser.add_argument("--out", type=Path, help="JSON file to write the figures to")
    options = parser.parse_args(arguments)
    figures = []
    for database in options.databases:
        for run in options.runs:
            with postgres() if database == "postgresql" else nullcontext(None) as url:
                pause = options.pause if run == "steady" else 0.0
                figures.append(
                    {"database": database, "run": run}
                    | measured(url, raters=options.raters, each=options.votes, pause=pause, kill=not options.no_kill)
                )
            print(json.dumps(figures[-1]), flush=True)
    print(aligned(table(figures)))
    if options.out is not None:
        machine = {"system": platform.platform(), "python": platform.python_version(), "cores": os.cpu_count()}
        content = {"machine": machine, "load": os.getloadavg(), "figures": figures}
        options.out.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    return 1 if any(row[name] for row in figures for name in ("lost", "doubled", "changed")) else 0


def measured(url: str | None, *, raters: int, each: int, pause: float, kill: bool) -> dict[str, Any]:
    """One run: figures of speed, and what became of the acknowledged votes."""
    with tempfile.TemporaryDirectory(prefix="seedpo-load-") as name:
        folder = Path(name)
        study = make_study(folder / "study", pairs=raters * each // RATERS_PER_PAIR + raters, each=each, url=url)
        store = Store.open(study)
        tokens = [store.add_rater(f"rater {number}", days=1.0)[1] for number in range(raters)]
        store.close()
        server = StudyServer(study.folder, folder / "server.log")
        server.start()
        taken: list[tuple[str, float]] = []
        killer = Killer(server, at=raters * each // 2 if kill else None)
        begun = time.monotonic()
        try:
            given = simulate(
                server.url,
                tokens,
                guess,
                votes=each,
                pause=pause,
                patience=120.0,
                observer=lambda kind, seconds: taken.append((kind, seconds)),
                on_vote=killer.count,
            )
        finally:
            killer.wait()
            server.stop()
        wall = time.monotonic() - begun
        return {
            "raters": raters,
            "votes": len(given),
            "seconds": wall,
            "votes_per_second": len(given) / (wall - killer.down),
            "kill_at": killer.killed_at,
            "down_seconds": killer.down,
            "sent_again": sum(vote.attempts > 1 for vote in given),
            **latencies(taken),
            **verdict(study, given),
        }


class Killer:
    """Counts acknowledged votes; at a number it kills the server and starts it again, while the raters go on."""

    def __init__(self, server: StudyServer, at: int | None) -> None:
        self.down = 0.0
        self.killed_at: int | None = None
        self._server = server
        self._at = at
        self._count = 0
        self._thread: threading.Thread | None = None

    def count(self, vote: Vote) -> None:
        self._count += 1
        if self._count == self._at:
            self.killed_at = self._count
            self._thread = threading.Thread(target=self._strike)
            self._thread.start()

    def wait(self) -> None:
        if self._thread is not None:
            self._thread.join()

    def _strike(self) -> None:
        start = time.monotonic()
        self._server.kill()
        try:
            self._server.start()
        finally:
            self.down = time.monotonic() - start


def guess(task: Task, items: Sequence[Sequence[Image.Image]]) -> Side:
    """An answer at random, which is a function of the show."""
    return random.Random(task.show).choice(task.choices)


def make_study(folder: Path, *, pairs: int, each: int, url: str | None) -> Study:
    """A study of ``pairs`` pairs of images of noise, 256 x 256."""
    draw = np.random.default_rng(0)
    images = {}
    for number in range(24):
        pixels = draw.integers(0, 256, (32, 32, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        images[str(number)] = Image.fromarray(pixels)
    groups = []
    for number in range(pairs):
        first, second = draw.choice(len(images), 2, replace=False)
        candidates = tuple(
            Candidate(source=source, images=(str(index),)) for source, index in (("a", first), ("b", second))
        )
        groups.append(Group(id=f"{number:05d}", question="preference", prompt=f"noise {number}", candidates=candidates))
    settings = StudySettings(
        id="load",
        kind="study",
        questions=(Question(key="preference", text="Which image do you prefer?"),),
        raters_per_pair=RATERS_PER_PAIR,
        tasks_per_rater=each,
        repeats=0.1,
        consent="I take part in a load run.",
        database=url,
    )
    return create_study(folder, settings, groups, images)


def latencies(taken: Sequence[tuple[str, float]]) -> dict[str, float]:
    """Quantiles in milliseconds of the requests that succeeded, by kind."""
    figures = {}
    for kind in KINDS:
        times = [1000.0 * seconds for name, seconds in taken if name == kind]
        if times:
            values = np.percentile(times, QUANTILES)
            figures |= {f"{kind}_p{q}": float(v) for q, v in zip(QUANTILES, values, strict=True)}
    return figures


def verdict(study: Study, given: Sequence[Vote]) -> dict[str, int]:
    """What the database holds of the acknowledged votes."""
    store = Store.open(study)
    stored = {judgement.show.token: judgement for judgement in store.judgements()}
    store.close()
    first_time = [row.show for row in stored.values() if row.show.repeat_of is None]
    asked = Counter((show.rater, show.unit) for show in first_time)
    pairs = Counter(show.unit for show in first_time)
    changed = sum(
        vote.show in stored and stored[vote.show].answer != stored[vote.show].show.answer(vote.side) for vote in given
    )
    return {
        "lost": sum(vote.show not in stored for vote in given),
        "doubled": vote_rows(study) - len({(vote.show, vote.key) for vote in given}),
        "changed": changed,
        "asked_twice": sum(count > 1 for count in asked.values()),
        "pairs_with_too_many_raters": sum(count > RATERS_PER_PAIR for count in pairs.values()),
    }


def vote_rows(study: Study) -> int:
    """Rows of answers, retries and corrections included, counted in the database itself."""
    engine = sqlalchemy.create_engine(study.database_url)
    with engine.connect() as connection:
        count = connection.execute(sqlalchemy.select(sqlalchemy.func.count()).select_from(votes)).scalar_one()
    engine.dispose()
    return int(count)


def table(figures: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Rows for people to read."""
    head = ["database", "run", "votes", "votes/s", "task p50/p95/p99 ms", "vote p50/p95/p99 ms", "down s", "again"]
    rows: list[tuple[str, ...]] = [(*head, "lost", "doubled")]
    for row in figures:
        spread = [" / ".join(f"{row[f'{kind}_p{q}']:.0f}" for q in QUANTILES) for kind in ("task", "vote")]
        cells = (row["database"], row["run"], str(row["votes"]), f"{row['votes_per_second']:.0f}", *spread)
        counts = (str(row[name]) for name in ("sent_again", "lost", "doubled"))
        rows.append((*cells, f"{row['down_seconds']:.1f}", *counts))
    return rows


if __name__ == "__main__":
    raise SystemExit(main())
