"""Labelled pairs at the size of Pick-a-Pic: time to the first batch, memory, rows a second, and time to resume.

``python -m benchmarks data-size [--rows N] [--pixels P] [--folder FOLDER] [--out FILE.json]`` makes synthetic sets of
tiny images, and reads each of them in shuffled order in a process of its own. ``--rows 850000`` is the size of
Pick-a-Pic; 8 GB of disk are needed then.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import active_children
from pathlib import Path
from typing import Any

from benchmarks.data_files import FILES, GROUP, WRITERS
from benchmarks.table import aligned

BATCH = 32
"""Pairs of a batch."""

REAL_PAIR = 350_000
"""Bytes of the two images of a pair of Pick-a-Pic: 300 GB for 850,000 pairs."""

MEBIBYTE = 2**20


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is read, and how.

    Attributes:
        kind: of the set, one of ``benchmarks.data_files.WRITERS``.
        readers: ``pairs.readers``.
        window: ``pairs.shuffle_window``.
    """

    kind: str
    readers: int = 0
    window: int | None = None


CASES = (
    Case(kind="parquet"),
    *(Case(kind="parquet", readers=readers, window=1000) for readers in (0, 2, 8)),
    *(Case(kind="tars", readers=readers) for readers in (0, 2, 8)),
    Case(kind="jsonl"),
)
"""All that is measured."""


def measure(case: Case, folder: Path, *, rows: int, pixels: int, seconds: float) -> dict[str, Any]:
    """Opens a set, reads it, and goes back to the middle of it, in this process.

    Row groups of parquet files are kept as if the images had the size of Pick-a-Pic's. Seconds are those of this
    process' processor time, but for ``rows_per_s``.

    Args:
        case: what is read.
        folder: where the sets lie.
        rows: of the set.
        pixels: height and width that images are brought to.
        seconds: how long batches are read.
    """
    from seedpo.data.pairs.readers import look_ahead, pairs_ahead
    from seedpo.data.pairs.selection import SkippingPairs, divided_by_prompt
    from seedpo.data.reading import load_data
    from seedpo.data.settings import PairsConfig
    from seedpo.data.tables import parquet
    from seedpo.methods.sources.offline import OfflinePairs
    from seedpo.rewards.previews import PixelPairs

    groups = _counted_groups()
    config = PairsConfig(resolution=pixels, readers=case.readers, shuffle_window=case.window)
    bare = peak()
    began = time.process_time()
    pairs = load_data(str(folder / case.kind), config)
    if case.kind == "parquet":
        file = sum(path.stat().st_size for path in (folder / case.kind).iterdir())
        parquet.CACHE_BYTES = int(parquet.CACHE_BYTES * file / (rows * REAL_PAIR))
    opened = time.process_time() - began
    skipping = SkippingPairs(pairs_ahead(pairs, readers=case.readers), limit=0.01)

    def source() -> OfflinePairs:
        ahead = look_ahead(case.readers, batch_size=BATCH)
        return OfflinePairs(PixelPairs(skipping, size=pixels), batch_size=BATCH, seed=0, reader=skipping, ahead=ahead)

    training = source()
    training.next_batch()
    first = time.process_time() - began
    groups[0], count, start, began = 0, 0, time.perf_counter(), time.process_time()
    while (reading := time.perf_counter() - start) < seconds:
        training.next_batch()
        count += BATCH
    figures: dict[str, Any] = {
        "set": case.kind,
        "window": case.window,
        "readers": case.readers,
        "pairs": None if skipping.sequential else len(skipping),
        "open_s": opened,
        "first_batch_s": first,
        "rows_per_s": count / reading,
        "cpu_ms_per_row": 1000 * (time.process_time() - began) / count,
        "reader_mib": reader_peak() or None,
        "groups_per_row": groups[0] / count if case.kind == "parquet" else None,
    }
    figures["memory_mib"] = peak() - bare
    if case.readers:
        return figures
    state = training.state()
    figures |= _timed("fingerprint_s", lambda: training.fingerprints())
    if not skipping.sequential:
        figures |= _timed("division_s", lambda: divided_by_prompt(pairs, 0.1))
    figures["memory_whole_mib"] = peak() - bare
    resumed = source()
    resumed.restore(state)
    return figures | {"resume_row": count + BATCH} | _timed("resume_s", resumed.next_batch)


def resumed_stream(folder: Path, row: int, *, pixels: int) -> dict[str, Any]:
    """Reads tar archives up to a row, and goes on there in a new set, by the state and without one."""
    from seedpo.data.pairs.selection import SkippingPairs
    from seedpo.data.reading import load_data
    from seedpo.data.settings import PairsConfig

    def opened() -> SkippingPairs:
        return SkippingPairs(load_data(str(folder / "tars"), PairsConfig(resolution=pixels)), limit=0.01)

    whole = opened()
    figures: dict[str, Any] = {"set": "tars", "resume_row": row}
    figures |= _timed("without_state_s", lambda: whole.prompt(row - 1))
    state = json.loads(json.dumps(whole.state()))
    resumed = opened()
    resumed.restore(state)
    figures |= {"state_bytes": len(json.dumps(state))}
    figures |= _timed("with_state_s", lambda: resumed.prompt(row))
    assert resumed.prompt(row) == whole.prompt(row)
    return figures


def mixing(rows: int, *, buffer: int = 1000) -> dict[str, Any]:
    """How a pass over archives is mixed: correlation of the places of rows in it with those in the set and a file."""
    import numpy as np

    from seedpo.data.tables.archive_pass import ArchivePass
    from seedpo.data.tables.stream_rows import StreamRow

    length = rows // FILES

    def rows_of(number: int, start: int) -> Iterator[StreamRow]:
        return (StreamRow(values={}, source=(number, row)) for row in range(length))

    read = ArchivePass(rows_of, FILES, np.random.default_rng(0), buffer=buffer)
    sources = np.array([row.source for row in read])
    places = np.arange(len(sources))
    in_file = sources[sources[:, 0] == sources[0, 0]][:, 1]
    return {
        "set": "tars",
        "buffer": buffer,
        "correlation_in_the_set": float(np.corrcoef(sources[:, 0] * length + sources[:, 1], places)[0, 1]),
        "correlation_in_a_file": float(np.corrcoef(in_file, places[: len(in_file)])[0, 1]),
        "rows_moved_on_average": float(np.abs(in_file - places[: len(in_file)]).mean()),
    }


def peak() -> float:
    """The most memory that this process has held, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MEBIBYTE


def reader_peak() -> float:
    """The most memory that a reader process has held, in MiB; 0 without readers."""
    status = [Path(f"/proc/{process.pid}/status").read_text("utf-8") for process in active_children()]
    lines = [line.split() for text in status for line in text.splitlines() if line.startswith("VmHWM")]
    return max((int(line[1]) * 1024 / MEBIBYTE for line in lines), default=0.0)


def _timed(name: str, work: Callable[[], object]) -> dict[str, float]:
    began = time.process_time()
    work()
    return {name: time.process_time() - began}


def _counted_groups() -> list[int]:
    """Counts the row groups that are read from now on."""
    import pyarrow.parquet as pq

    count, read = [0], pq.ParquetFile.read_row_group

    def counted(*arguments: Any, **named: Any) -> Any:
        count[0] += 1
        return read(*arguments, **named)

    pq.ParquetFile.read_row_group = counted
    return count


def main(arguments: Sequence[str] | None = None) -> int:
    """Makes the sets, measures each case in a process of its own and prints tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks data-size", description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000, help="pairs of each set (default: 20000)")
    parser.add_argument("--pixels", type=int, default=16, help="height and width of the images (default: 16)")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each case is read (default: 10)")
    parser.add_argument("--folder", type=Path, help="where the sets lie, or are made; they stay there")
    parser.add_argument("--out", type=Path, help="JSON file to write the figures to")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.rows < 20 * GROUP or options.pixels < 8:
        parser.error(f"--rows must be {20 * GROUP} or more, and --pixels 8 or more")
    if options.case is not None:
        print(json.dumps(_part(json.loads(options.case), options)))
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        options.folder = options.folder or Path(scratch)
        for kind, write in WRITERS.items():
            if not (options.folder / kind).exists():
                write(options.folder / kind, options.rows, pixels=options.pixels)
        parts = [*(vars(case) for case in CASES), {"resume": options.rows * 8 // 17}, {"mixing": options.rows}]
        figures = [_apart(part, options) for part in parts]
    for names in TABLES:
        print(_table(names, [figure for figure in figures if names[-1] in figure]), end="\n\n")
    if options.out is not None:
        options.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


TABLES = (
    ("set", "window", "readers", "open_s", "first_batch_s", "memory_mib", "reader_mib"),
    ("set", "window", "readers", "groups_per_row", "cpu_ms_per_row", "rows_per_s"),
    ("set", "pairs", "fingerprint_s", "division_s", "memory_whole_mib"),
    ("set", "resume_row", "state_bytes", "without_state_s", "with_state_s"),
    ("set", "buffer", "correlation_in_the_set", "correlation_in_a_file", "rows_moved_on_average"),
)


def _part(part: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    if "resume" in part:
        return resumed_stream(options.folder, part["resume"], pixels=options.pixels)
    if "mixing" in part:
        return mixing(part["mixing"])
    return measure(Case(**part), options.folder, rows=options.rows, pixels=options.pixels, seconds=options.seconds)


def _apart(part: Mapping[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    words = ["--rows", str(options.rows), "--pixels", str(options.pixels), "--seconds", str(options.seconds)]
    command = [sys.executable, "-m", "benchmarks.data_size", *words, "--folder", str(options.folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(
        [*command, "--case", json.dumps(part)], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    figures: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    print(json.dumps(figures), file=sys.stderr, flush=True)
    return figures


def _table(names: Sequence[str], figures: Sequence[Mapping[str, Any]]) -> str:
    rows = [tuple(_shown(figure.get(name)) for name in names) for figure in figures]
    return aligned([tuple(name.replace("_", " ") for name in names), *rows])


def _shown(value: object) -> str:
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


if __name__ == "__main__":
    sys.exit(main())
