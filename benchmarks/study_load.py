"""Many simulated raters at once, and servers killed among them: ``python -m benchmarks.study_load``.

Each run has a study, server processes, a database and links of its own:

* flat out: raters answer at once; the votes per second are what the server can do on this machine;
* steady: raters look at each task for an exponentially distributed time, and begin spread over its mean; waits are
  those that people would feel;
* chaos: raters answer at once, while all processes of the server get ``kill -9`` six times and PostgreSQL is stopped
  and started four times, in turn in good order and as after a crash.

The raters are a process of their own (`benchmarks.study_raters`), whose share of the processor is told. They load each
image once and take the next task from the acknowledgement of a vote, as the page does. Afterwards every acknowledged
vote is looked for in the database: how many are lost, how many are stored twice, how many say something else.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy
from PIL import Image

from benchmarks.study_servers import Postgres, StudyServer, postgres
from benchmarks.table import aligned
from seedpo.study.folder import Study, create_study
from seedpo.study.records import Candidate, Group
from seedpo.study.settings import Question, StudySettings
from seedpo.study.votes.store import Store
from seedpo.study.votes.tables import votes

RATERS_PER_PAIR = 10
IMAGES = 400
QUANTILES = (50, 95, 99)
KINDS = ("page", "task", "image", "vote")
KILLS, RESTARTS = 6, 4
EXAMPLES = """
examples:
  python -m benchmarks.study_load --runs "flat out"
  python -m benchmarks.study_load --runs steady --raters 1000 --every 10
  python -m benchmarks.study_load --runs chaos --out chaos.json
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.study_load",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--raters", type=int, default=200, help="at the same time (default: 200)")
    parser.add_argument("--votes", type=int, default=20, help="of each rater, flat out and in chaos (default: 20)")
    parser.add_argument("--every", type=float, default=10.0, help="mean seconds per vote in a steady run (default: 10)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of a steady run (default: 60)")
    parser.add_argument("--workers", type=int, default=2, help="processes of the server (default: 2)")
    parser.add_argument("--databases", nargs="+", choices=["sqlite", "postgresql"], default=["sqlite", "postgresql"])
    parser.add_argument("--runs", nargs="+", choices=["flat out", "steady", "chaos"], default=["flat out", "chaos"])
    parser.add_argument("--out", type=Path, help="JSON file to write the figures to")
    options = parser.parse_args(arguments)
    figures = []
    for database in options.databases:
        for run in options.runs:
            with postgres() if database == "postgresql" else nullcontext(None) as server:
                figures.append({"database": database, "run": run} | measured(run, server, options))
            print(json.dumps(figures[-1]), flush=True)
    print(aligned(table(figures)))
    if options.out is not None:
        machine = {"system": platform.platform(), "python": platform.python_version(), "cores": os.cpu_count()}
        content = {"machine": machine, "load": os.getloadavg(), "figures": figures}
        options.out.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    return 1 if any(row[name] for row in figures for name in ("failures", "lost", "doubled", "changed")) else 0


def measured(run: str, database: Postgres | None, options: argparse.Namespace) -> dict[str, Any]:
    """One run: figures of speed, and what became of the acknowledged votes."""
    raters, steady = options.raters, run == "steady"
    each = 2 * math.ceil(options.seconds / options.every) if steady else options.votes
    with tempfile.TemporaryDirectory(prefix="seedpo-load-") as name:
        folder = Path(name)
        pairs = raters * each // RATERS_PER_PAIR + raters
        study = make_study(folder / "study", pairs=pairs, each=each, url=database and database.url)
        with Store.open(study) as store:
            tokens = [token for _, token in store.add_raters([f"rater {n}" for n in range(raters)], days=1.0)]
        (folder / "tokens").write_text("\n".join(tokens))
        server = StudyServer(study.folder, folder / "server.log", workers=options.workers)
        server.start()
        strikes = Strikes(server, database, planned=raters * each if run == "chaos" else None)
        used = [server.used(), database.used() if database else 0.0]
        begun = time.monotonic()
        try:
            seen = simulated(
                [server.url, str(folder / "tokens"), str(folder / "seen.json"), "--votes", str(each)]
                + ["--spread", str(options.every if steady else 2.0)]
                + (["--every", str(options.every), "--seconds", str(options.seconds)] if steady else []),
                strikes,
            )
        finally:
            wall = time.monotonic() - begun
            server_seconds = server.used() - used[0]
            database_seconds = database.used() - used[1] if database else 0.0
            server.stop()
        given = seen["votes"]
        span = given[-1]["at"] - given[0]["at"]
        return {
            "raters": raters,
            "workers": options.workers,
            "votes": len(given),
            "seconds": wall,
            "votes_per_second": len(given) / (span - strikes.down),
            "down_seconds": strikes.down,
            "kills": strikes.kills,
            "restarts": strikes.restarts,
            "sent_again": sum(vote["attempts"] > 1 for vote in given),
            "server_milliseconds_per_vote": 1000.0 * server_seconds / len(given),
            "database_milliseconds_per_vote": 1000.0 * database_seconds / len(given),
            "raters_milliseconds_per_vote": 1000.0 * seen["processor_seconds"] / len(given),
            "log_bytes": server.log.stat().st_size,
            "failures": len(seen["failures"]),
            "first_failures": seen["failures"][:3],
            **latencies(seen["waits"]),
            **verdict(study, given),
        }


def simulated(arguments: Sequence[str], strikes: Strikes) -> dict[str, Any]:
    """Runs the process of raters, with a strike whenever enough votes are given; what the raters saw."""
    command = [sys.executable, "-m", "benchmarks.study_raters", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as raters:
        assert raters.stdout is not None
        for line in raters.stdout:
            strikes.strike(int(line))
    content: dict[str, Any] = json.loads(Path(arguments[2]).read_text("utf-8"))
    return content


class Strikes:
    """Kills of the server and restarts of the database, spread over the votes of a run.

    Args:
        server: gets ``kill -9``.
        database: is stopped, in turn as after a crash; `None`: left alone.
        planned: votes of the run; `None`: no strikes.

    Attributes:
        kills, restarts: how many so far.
        down: seconds for which something was away.
    """

    def __init__(self, server: StudyServer, database: Postgres | None, *, planned: int | None) -> None:
        self.kills = self.restarts = 0
        self.down = 0.0
        self._server, self._database = server, database
        times: list[tuple[float, Callable[[], None]]] = [((n + 1) / (KILLS + 1), self._kill) for n in range(KILLS)]
        if database is not None:
            times += [((n + 0.6) / RESTARTS, self._restart) for n in range(RESTARTS)]
        self._plan = [] if planned is None else sorted((int(planned * part), act) for part, act in times)

    def strike(self, given: int) -> None:
        """Strikes if so many votes are enough for the next time; returns when everything answers again."""
        if self._plan and given >= self._plan[0][0]:
            begun = time.monotonic()
            self._plan.pop(0)[1]()
            self.down += time.monotonic() - begun

    def _kill(self) -> None:
        self.kills += 1
        self._server.kill()
        self._server.start()

    def _restart(self) -> None:
        assert self._database is not None
        self.restarts += 1
        self._database.stop("immediate" if self.restarts % 2 == 0 else "fast")
        self._database.start()


def make_study(folder: Path, *, pairs: int, each: int, url: str | None) -> Study:
    """A study of ``pairs`` pairs of images of noise, 256 x 256; a rater seldom sees an image twice."""
    draw = np.random.default_rng(0)
    images = {}
    for number in range(IMAGES):
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


def latencies(waits: Sequence[tuple[str, float]]) -> dict[str, float]:
    """Quantiles in milliseconds of what the raters waited for, repetitions included, by kind."""
    figures = {}
    for kind in KINDS:
        times = [1000.0 * seconds for name, seconds in waits if name == kind]
        if times:
            values = np.percentile(times, QUANTILES)
            figures |= {f"{kind}_p{q}": float(v) for q, v in zip(QUANTILES, values, strict=True)}
            figures[f"{kind}_requests"] = len(times)
    return figures


def verdict(study: Study, given: Sequence[dict[str, Any]]) -> dict[str, int]:
    """What the database holds of the acknowledged votes."""
    with Store.open(study) as store:
        stored = {judgement.show.token: judgement for judgement in store.judgements()}
    first_time = [row for row in stored.values() if row.show.repeat_of is None]
    asked = Counter((row.show.rater, row.show.unit) for row in first_time)
    pairs = Counter(row.show.unit for row in first_time if row.answer != "skip")
    acknowledged = [(stored[vote["show"]], vote["side"]) for vote in given if vote["show"] in stored]
    return {
        "lost": len(given) - len(acknowledged),
        "doubled": vote_rows(study) - len({(vote["show"], vote["key"]) for vote in given}),
        "changed": sum(row.answer != row.show.answer(side) for row, side in acknowledged),
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
    waits = [f"{kind} p50/p95/p99 ms" for kind in ("task", "image", "vote")]
    shares = "ms of processor per vote: server/database/raters"
    rows: list[tuple[str, ...]] = [
        ("database", "run", "raters", "votes", "votes/s", *waits, shares, "down s", "again", "lost", "doubled")
    ]
    for row in figures:
        spread = [
            "/".join(f"{row.get(f'{kind}_p{q}', 0.0):.0f}" for q in QUANTILES) for kind in ("task", "image", "vote")
        ]
        used = "/".join(f"{row[f'{part}_milliseconds_per_vote']:.1f}" for part in ("server", "database", "raters"))
        cells = (row["database"], row["run"], str(row["raters"]), str(row["votes"]), f"{row['votes_per_second']:.0f}")
        counts = (str(row[name]) for name in ("sent_again", "lost", "doubled"))
        rows.append((*cells, *spread, used, f"{row['down_seconds']:.1f}", *counts))
    return rows


if __name__ == "__main__":
    raise SystemExit(main())
