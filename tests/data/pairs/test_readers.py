"""Reader processes: the numbers, faults and states of pairs that are read here; an end whenever anything ends."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from seedpo.data.pairs.readers import PairsAhead, look_ahead
from seedpo.data.pairs.selection import SkippingPairs
from seedpo.data.pairs.sets import PairSet
from seedpo.data.reading import load_data, read_pairs
from seedpo.data.settings import DataSet, PairsConfig
from seedpo.errors import DataError, StreamError
from seedpo.methods.sources.offline import OfflinePairs
from seedpo.protocols import LabelledPair
from seedpo.rewards.previews import PixelPairs
from tests.data.pictures import noise_file, table

COUNT = 23
BROKEN = (4, 5, 17)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A parquet file and a tar archive of the same pairs, some of which cannot be read."""
    folder = tmp_path_factory.mktemp("data")
    files = [
        [b"broken" if row in BROKEN else noise_file(size=(20 + row, 30), seed=2 * row + side) for row in range(COUNT)]
        for side in (0, 1)
    ]
    labels = [(1, 0) if row % 2 else (0, 1) for row in range(COUNT)]
    pq.write_table(table(*labels, jpg_0=files[0], jpg_1=files[1]), folder / "pairs.parquet", row_group_size=4)
    with tarfile.open(folder / "pairs.tar", "w") as archive:
        for row in range(COUNT):
            parts = {
                "chosen.png": files[0][row],
                "rejected.png": files[1][row],
                "prompt.txt": f"prompt {row}".encode(),
            }
            for ending, content in parts.items():
                member = tarfile.TarInfo(f"{row:04d}.{ending}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return folder


@pytest.fixture
def opened() -> Iterator[list[PairsAhead]]:
    """Sets whose readers end with the test."""
    sets: list[PairsAhead] = []
    yield sets
    for pairs in sets:
        pairs.readers.close()


def source(place: Path, readers: int, opened: list[PairsAhead], *, world: int = 1, **settings: Any) -> OfflinePairs:
    pairs: Any = read_pairs(place, PairsConfig(resolution=16, crop="random", **settings), seed=3)
    if readers:
        pairs = PairsAhead(pairs, readers=readers)
        opened.append(pairs)
    skipping = SkippingPairs(pairs, limit=0.5)
    ahead = look_ahead(readers, batch_size=3)
    return OfflinePairs(
        PixelPairs(skipping, size=16), batch_size=3, seed=5, reader=skipping, ahead=ahead, rank=world - 1, world=world
    )


def batches(source: OfflinePairs, count: int) -> list[tuple[torch.Tensor, ...]]:
    read = [source.next_batch() for _ in range(count)]
    return [(batch.chosen_latents, batch.rejected_latents, batch.chosen_probability) for batch in read]


def equal(first: Any, second: Any) -> bool:
    return all(torch.equal(a, b) for x, y in zip(first, second, strict=True) for a, b in zip(x, y, strict=True))


class TestNumbers:
    @pytest.mark.parametrize(
        ("name", "settings"),
        [
            ("pairs.parquet", {}),
            ("pairs.parquet", {"shuffle_window": 8}),
            ("pairs.tar", {"shuffle_buffer": 5}),
        ],
    )
    def test_are_those_without_readers(
        self, data: Path, opened: list[PairsAhead], name: str, settings: dict[str, Any]
    ) -> None:
        """Order, pixels, what is skipped, the state; over the ends of epochs."""
        here, apart = (source(data / name, readers, opened, **settings) for readers in (0, 2))
        assert equal(batches(here, 17), batches(apart, 17))
        assert here.state() == apart.state()
        assert here.metrics() == apart.metrics()
        assert here.metrics()["unreadable"] >= len(BROKEN)

    @pytest.mark.parametrize("name", ["pairs.parquet", "pairs.tar"])
    def test_of_a_resumed_run(self, data: Path, opened: list[PairsAhead], name: str) -> None:
        whole = source(data / name, 0, opened)
        batches(whole, 5)
        state = whole.state()
        resumed = source(data / name, 2, opened)
        resumed.restore(state)
        assert equal(batches(whole, 6), batches(resumed, 6))

    def test_of_one_process_of_several(self, data: Path, opened: list[PairsAhead]) -> None:
        here, apart = (source(data / "pairs.parquet", readers, opened, world=2) for readers in (0, 2))
        assert equal(batches(here, 6), batches(apart, 6))

    def test_of_a_stream_whose_window_is_wide(
        self, data: Path, opened: list[PairsAhead], caplog: pytest.LogCaptureFixture
    ) -> None:
        """Prompts and contents of a batch are known, although the stream is past it."""
        pairs = PairsAhead(read_pairs(data / "pairs.tar", PairsConfig(resolution=16)), readers=1)  # type: ignore[arg-type]
        opened.append(pairs)
        plain = read_pairs(data / "pairs.tar", PairsConfig(resolution=16))
        expected = [(plain.prompt(row), plain.content(row)) for row in range(90)]
        pairs.expect(range(90))
        assert [(pairs.prompt(row), pairs.content(row)) for row in range(90)] == expected
        assert "starts again" not in caplog.text

    def test_of_several_sets(self, data: Path, opened: list[PairsAhead]) -> None:
        sets = tuple(DataSet(name=str(data / "pairs.parquet"), weight=weight) for weight in (1, 2))
        plain = load_data(sets, PairsConfig(resolution=16))
        pairs = PairsAhead(plain, readers=1)  # type: ignore[arg-type]
        opened.append(pairs)
        pairs.expect([30, 1])
        for row in (1, 30, 41):
            assert torch.equal(pairs[row].chosen, plain[row].chosen)
        assert pairs.repeats() == plain.repeats()  # type: ignore[union-attr]


class TestFaults:
    def test_are_met_by_whoever_asks(self, data: Path, opened: list[PairsAhead]) -> None:
        plain = read_pairs(data / "pairs.parquet", PairsConfig(resolution=16))
        pairs = PairsAhead(plain, readers=1)  # type: ignore[arg-type]
        opened.append(pairs)
        pairs.expect([3, 4])
        pairs[3]
        with pytest.raises(DataError) as apart:
            pairs[4]
        with pytest.raises(DataError) as here:
            plain[4]
        assert str(apart.value) == str(here.value)

    def test_a_stream_that_breaks_off_gives_the_pairs_before(self, opened: list[PairsAhead]) -> None:
        pairs = PairsAhead(BrokenOff(), readers=1)  # type: ignore[arg-type]
        opened.append(pairs)
        for rows in (range(3), range(3)):
            pairs.expect(rows)
        assert pairs[0].prompt == "prompt 0"
        with pytest.raises(StreamError, match="broke off"):
            pairs[1]

    def test_of_a_killed_reader_the_work_is_done_here(
        self, data: Path, opened: list[PairsAhead], caplog: pytest.LogCaptureFixture
    ) -> None:
        """The pairs are the same, and the log says so once."""
        plain = read_pairs(data / "pairs.parquet", PairsConfig(resolution=16))
        pairs = PairsAhead(plain, readers=2)  # type: ignore[arg-type]
        opened.append(pairs)
        pairs.expect([0])
        pairs[0]
        for reader in readers_of(os.getpid()):
            os.kill(reader, signal.SIGKILL)
        for turn in range(200):  # the pool notices after a moment
            rows = [(turn + ahead) % 4 for ahead in range(3)]
            pairs.expect(rows)
            assert torch.equal(pairs[rows[0]].chosen, plain[rows[0]].chosen)
            if caplog.messages:
                break
            time.sleep(0.05)
        pairs.expect([1, 2])
        assert torch.equal(pairs[2].rejected, plain[2].rejected)
        assert len([text for text in caplog.messages if "pairs.readers = 2" in text]) == 1


class BrokenOff:
    """A stream of one pair."""

    sequential = True
    config = PairsConfig(resolution=16)

    def __init__(self) -> None:
        self.pairs = PairSet.of_table(table((1, 0)), origin="set", config=self.config)
        self.broken = False

    def stored(self, row: int) -> Any:
        assert not self.broken  # nobody asks a second time
        if row:
            self.broken = True
            raise StreamError("the stream broke off")
        return self.pairs.stored(row)

    def __getitem__(self, row: int) -> LabelledPair:
        raise AssertionError


def readers_of(process: int) -> list[int]:
    """Processes that were spawned by another one."""
    listed = subprocess.run(
        ["ps", "-ww", "-o", "pid=", "-o", "args=", "--ppid", str(process)], capture_output=True, text=True
    )
    return [int(line.split()[0]) for line in listed.stdout.splitlines() if "spawn_main" in line]


SCRIPT = """
import signal, sys, time
from seedpo.data.pairs.readers import PairsAhead
from seedpo.data.reading import read_pairs
from seedpo.data.settings import PairsConfig

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin with it ignored
    pairs = PairsAhead(read_pairs(sys.argv[1], PairsConfig(resolution=16)), readers=2)
    pairs.expect([0, 1, 2, 3])
    pairs[0]
    pairs[1]
    print("ready", flush=True)
    try:
        time.sleep(100 if sys.argv[2] == "wait" else 0)
    except KeyboardInterrupt:
        print(pairs[2].prompt)
"""


@pytest.mark.parametrize("end", ["return", "interrupt", "kill"])
def test_readers_end_with_their_process(data: Path, tmp_path: Path, end: str) -> None:
    """Also if it is killed; a Ctrl-C, which reaches them as well, leaves them at work until it ends."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    words = [sys.executable, str(script), str(data / "pairs.parquet"), "return" if end == "return" else "wait"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    readers = [] if end == "return" else readers_of(process.pid)
    assert len(readers) == (0 if end == "return" else 2)
    if end == "interrupt":
        os.killpg(process.pid, signal.SIGINT)
    elif end == "kill":
        process.kill()
    output, errors = process.communicate(timeout=30)
    assert process.returncode == (-signal.SIGKILL if end == "kill" else 0)
    assert end == "kill" or errors == ""
    assert output == ("prompt 2\n" if end == "interrupt" else "")
    for _ in range(200):
        if not any(Path(f"/proc/{reader}").exists() for reader in readers):
            break
        time.sleep(0.05)
    assert not any(Path(f"/proc/{reader}").exists() for reader in readers)
