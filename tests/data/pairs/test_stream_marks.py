"""A stream of tar archives goes on at a mark: nothing before it is read again, and the pairs are the same."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seedpo.data.pairs import streams
from seedpo.data.pairs.selection import SkippingPairs
from seedpo.data.reading import read_pairs
from seedpo.data.settings import PairsConfig
from seedpo.data.tables import archives
from seedpo.data.tables.archives import ArchiveStream
from seedpo.data.tables.stream_rows import StreamRow
from tests.data.pictures import RED, image_file

FILES, ROWS = 4, 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Archives whose every fifth pair is a tie; one name is so long that it has a header of its own."""
    place, image = tmp_path_factory.mktemp("tars"), image_file(RED)
    for number in range(FILES):
        with tarfile.open(place / f"{number}.tar", "w", format=tarfile.PAX_FORMAT) as archive:
            for row in range(ROWS):
                key = f"{number}-{row}" + ("x" * 300 if row == 7 else "")
                text = {"prompt": f"{number} {row}", "chosen_probability": 0.5 if row % 5 == 0 else 1}
                for ending, content in (("chosen.png", image), ("rejected.png", image), ("json", json.dumps(text))):
                    data = content.encode() if isinstance(content, str) else content
                    member = tarfile.TarInfo(f"{key}.{ending}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
    return place


def opened(folder: Path, *, buffer: int = 9) -> SkippingPairs:
    return SkippingPairs(read_pairs(folder, PairsConfig(resolution=8, shuffle_buffer=buffer), seed=4), limit=0.0)


PASS = FILES * ROWS * 4 // 5


@pytest.mark.parametrize("buffer", [1, 9, 1000])
@pytest.mark.parametrize("stop", [3, 40, PASS - 2, PASS, PASS + 25, 3 * PASS + 1])
def test_a_restored_stream_gives_the_pairs_of_one_that_never_stopped(
    monkeypatch: pytest.MonkeyPatch, folder: Path, buffer: int, stop: int
) -> None:
    monkeypatch.setattr(streams, "MARK_EVERY", 10)
    whole = opened(folder, buffer=buffer)
    prompts = [whole.prompt(row) for row in range(stop)]
    state = json.loads(json.dumps(whole.state()))
    prompts += [whole.prompt(row) for row in range(stop, stop + PASS)]
    resumed = opened(folder, buffer=buffer)
    resumed.restore(state)
    assert [resumed.prompt(row) for row in range(stop, stop + PASS)] == prompts[stop:]
    assert len(set(prompts[:PASS])) == min(len(prompts), PASS)  # each pair comes once in a pass


def test_only_what_waits_is_read_again(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(streams, "MARK_EVERY", 10)
    whole = opened(folder)
    for row in range(2 * PASS + 35):
        whole.prompt(row)
    state = whole.state()
    read = [0]
    sample = archives._sample

    def counted(*arguments: Any, **named: Any) -> StreamRow:
        read[0] += 1
        return sample(*arguments, **named)

    resumed = opened(folder)
    monkeypatch.setattr(archives, "_sample", counted)
    resumed.restore(state)
    resumed.prompt(2 * PASS + 35)
    assert 9 < read[0] < 40


def test_without_a_mark_before_it_the_stream_is_read_from_the_beginning(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    """Readers may have been further than all marks say: the pairs are the same all the same."""
    monkeypatch.setattr(streams, "MARK_EVERY", 10)
    whole = opened(folder)
    prompts = [whole.prompt(row) for row in range(90)]
    resumed = opened(folder)
    resumed.restore(whole.state())
    assert resumed.prompt(20) == prompts[20]


@pytest.mark.parametrize("buffer", [1, 5, 64])
def test_the_order_is_that_of_a_shuffle_buffer(buffer: int, folder: Path) -> None:
    """Independently: files are permuted, and each row is drawn among the next ones of the buffer."""
    files = sorted(folder.glob("*.tar"))
    generator = np.random.default_rng([4, 1])
    order = generator.permutation(FILES).tolist() if buffer > 1 else range(FILES)
    names = [f"{number} {row}" for number in order for row in range(ROWS)]
    expected = list(shuffled_rows(names, generator, buffer=buffer))
    rows = ArchiveStream(files, origin="tars", seed=4, buffer=buffer).epoch(1)
    assert [row.values["prompt"] for row in rows] == expected
    places = [names.index(name) for name in expected]
    assert all(row < place + buffer for place, row in enumerate(places))


def shuffled_rows(rows: list[str], generator: np.random.Generator, *, buffer: int) -> list[str]:
    waiting, drawn = rows[:buffer], []
    for row in rows[buffer:]:
        place = int(generator.integers(buffer))
        drawn.append(waiting[place])
        waiting[place] = row
    return drawn + [waiting[place] for place in generator.permutation(len(waiting))]
