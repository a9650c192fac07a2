"""The benchmark of large sets makes sets that are read, and counts what it says; times are not tested."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from benchmarks.data_files import WRITERS
from benchmarks.data_size import Case, main, measure, mixing, resumed_stream
from seedpo.data.pairs import streams
from seedpo.data.reading import load_data
from seedpo.data.settings import PairsConfig
from seedpo.data.tables import parquet

ROWS = 3200


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("sets")
    for kind, write in WRITERS.items():
        write(place / kind, ROWS, pixels=16)
    return place


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a measurement changes for its process is put back."""
    monkeypatch.setattr(parquet, "CACHE_BYTES", parquet.CACHE_BYTES)
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", pq.ParquetFile.read_row_group)


def test_sets_hold_the_same_pairs(folder: Path) -> None:
    sets = [load_data(str(folder / kind), PairsConfig(resolution=16, shuffle_buffer=1)) for kind in WRITERS]
    prompts = [[pairs.prompt(row) for row in pairs.one_pass()] for pairs in sets]
    assert prompts[0] == prompts[1] == prompts[2]
    assert len(prompts[0]) == ROWS * 9 // 10


def test_a_window_saves_reading_row_groups(folder: Path) -> None:
    figures = [
        measure(Case(kind="parquet", window=window), folder, rows=ROWS, pixels=16, seconds=0.2)
        for window in (None, 400)
    ]
    assert figures[1]["groups_per_row"] < 0.3 < figures[0]["groups_per_row"]
    assert figures[0]["pairs"] == ROWS * 9 // 10


def test_a_stream_resumes_by_its_state(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MARK_EVERY", 500)
    assert resumed_stream(folder, 2000, pixels=16)["state_bytes"] > 1000


def test_a_buffer_mixes_neighbours_alone() -> None:
    """Rows of a long file keep about their place; of a file as short as the buffer they do not."""
    long, short = mixing(80_000, buffer=100), mixing(1600, buffer=100)
    assert long["correlation_in_a_file"] > 0.98
    assert 50 < long["rows_moved_on_average"] < 200
    assert abs(short["correlation_in_a_file"]) < 0.5


def test_says_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--rows", "10"])
    assert "--rows must be" in capsys.readouterr().err
