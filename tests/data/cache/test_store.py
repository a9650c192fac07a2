from __future__ import annotations

import errno
import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from seedpo.data.cache import store as stores
from seedpo.data.cache.digests import digest
from seedpo.data.cache.store import SETTINGS, Store
from seedpo.errors import CacheError

SETTINGS_A = {"vae": "a"}

LAST_ENTRY = -5 * 2 * 32 - 1
"""Where the last number of five entries ends in their file: keys and digests come after it."""


def key(number: int) -> bytes:
    return digest(str(number).encode())


def entry(number: int, width: int = 4) -> dict[str, torch.Tensor]:
    return {"latents": torch.full((2, width), float(number)), "number": torch.tensor(number)}


def opened(root: Path, settings: dict[str, Any] | None = None, **more: Any) -> Store:
    return Store(root, "latents", settings or SETTINGS_A, **more)


def filled(root: Path, numbers: range = range(5), **more: Any) -> Store:
    store = opened(root, **more)
    for number in numbers:
        store.put(key(number), entry(number))
    store.flush()
    return store


def holds(store: Store, number: int, width: int = 4) -> bool:
    found = store.get(key(number))
    if found is None:
        return False
    assert all(torch.equal(found[name], value) for name, value in entry(number, width).items())
    return True


def shards(store: Store) -> list[Path]:
    return sorted(store.folder.glob("*.safetensors"))


class TestStoring:
    def test_what_was_put_is_found_before_and_after_it_is_written(self, tmp_path: Path) -> None:
        store = opened(tmp_path)
        store.put(key(1), entry(1))
        assert holds(store, 1)
        assert shards(store) == []
        store.flush()
        assert len(shards(store)) == 1
        assert holds(store, 1)
        again = opened(tmp_path)
        assert key(1) in again
        assert key(2) not in again
        assert holds(again, 1)
        assert not holds(again, 2)
        assert (again.found, again.added, len(again)) == (1, 0, 1)

    def test_nothing_is_written_for_nothing(self, tmp_path: Path) -> None:
        store = filled(tmp_path, range(0))
        assert [path.name for path in store.folder.iterdir()] == [SETTINGS]

    def test_what_is_there_is_not_stored_again(self, tmp_path: Path) -> None:
        filled(tmp_path)
        assert len(shards(filled(tmp_path))) == 1

    def test_entries_of_several_shapes(self, tmp_path: Path) -> None:
        store = opened(tmp_path)
        for number in range(4):
            store.put(key(number), entry(number, width=4 + number % 2))
        store.flush()
        again = opened(tmp_path)
        assert len(shards(again)) == 2
        assert all(holds(again, number, width=4 + number % 2) for number in range(4))

    def test_a_shard_is_written_when_enough_is_collected(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        store = opened(tmp_path)
        monkeypatch.setattr(stores, "SHARD_BYTES", 3 * 40)  # an entry has 2 x 4 x 4 + 8 bytes
        for number in range(7):
            store.put(key(number), entry(number))
        assert len(shards(store)) == 2
        monkeypatch.setattr(stores, "SHARD_ENTRIES", 2)
        store.put(key(7), entry(7))
        assert len(shards(store)) == 3

    def test_what_waits_too_long_is_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        store = opened(tmp_path)
        store.put(key(0), entry(0))
        monkeypatch.setattr(stores, "PATIENCE", -1.0)
        store.put(key(1), entry(1))
        assert len(shards(store)) == 1

    def test_other_settings_are_another_store(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        filled(tmp_path)
        with caplog.at_level(logging.INFO):
            other = opened(tmp_path, {"vae": "b"})
        assert not holds(other, 1)
        assert "made with other weights or settings (1 sets) and are not used" in caplog.text
        assert json.loads((other.folder / SETTINGS).read_text())["vae"] == "b"

    def test_what_another_process_wrote_is_found(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        first, second = opened(tmp_path), opened(tmp_path)
        first.put(key(1), entry(1))
        first.flush()
        assert not holds(second, 1), "it has just looked"
        monkeypatch.setattr(stores, "RESCAN", -1.0)
        assert holds(second, 1)

    def test_a_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(CacheError, match=r"cache\.folder .*file cannot be used") as caught:
            opened(tmp_path / "file")
        assert "\n" not in str(caught.value)


class TestDamage:
    @pytest.mark.parametrize(
        ("place", "left", "message"),
        [
            (3, 0, "not used and are computed again"),
            (60, 0, "not used and are computed again"),
            (-1, 0, "not used and are computed again"),
            (-480, 4, "1 entries are computed again, 4 are kept"),
            (LAST_ENTRY, 4, "1 entries are computed again, 4 are kept"),
        ],
    )
    def test_a_flipped_byte_is_told_and_what_it_spoils_made_again(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, place: int, left: int, message: str
    ) -> None:
        """In the length, the header, the index, the first and the last entry."""
        path = shards(filled(tmp_path))[0]
        content = bytearray(path.read_bytes())
        content[place] ^= 1
        path.write_bytes(content)
        store = opened(tmp_path)
        good = [number for number in range(5) if holds(store, number)]
        assert len(good) == left
        assert caplog.text.count(str(path)) == 1
        assert message in caplog.text
        assert not path.exists()
        for number in range(5):
            store.put(key(number), entry(number))
        store.flush()
        caplog.clear()
        assert all(holds(opened(tmp_path), number) for number in range(5))
        assert caplog.text == ""

    def test_intact_neighbours_of_a_damaged_entry_outlive_the_process(self, tmp_path: Path) -> None:
        store = filled(tmp_path)
        path = shards(store)[0]
        content = path.read_bytes()
        path.write_bytes(content[:LAST_ENTRY] + bytes([content[LAST_ENTRY] ^ 1]) + content[LAST_ENTRY + 1 :])
        assert not holds(store, 4)
        again = opened(tmp_path)
        assert [holds(again, number) for number in range(5)] == [True] * 4 + [False]

    def test_a_damaged_entry_on_a_full_disk(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = filled(tmp_path)
        path = shards(store)[0]
        content = path.read_bytes()
        path.write_bytes(content[:LAST_ENTRY] + bytes([content[LAST_ENTRY] ^ 1]) + content[LAST_ENTRY + 1 :])
        monkeypatch.setattr(os, "fsync", no_space)
        assert [holds(store, number) for number in (4, 0)] == [False, False]
        assert "could not be written" in caplog.text
        assert "No space left" in caplog.text
        assert "5 entries are computed again, 0 are kept" in caplog.text

    def test_a_copy_in_another_shard_takes_its_place(self, tmp_path: Path) -> None:
        first, second = opened(tmp_path), opened(tmp_path)
        for store in (first, second):
            store.put(key(1), entry(1))
        second.put(key(2), entry(2))
        first.flush()
        second.flush()
        store = opened(tmp_path)
        assert len(shards(store)) == 2
        for path in shards(store):
            content = path.read_bytes()
            path.write_bytes(content[:-1])
            assert holds(store, 1)
            path.write_bytes(content)

    def test_a_shard_that_another_process_removed(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        store = filled(tmp_path)
        shards(store)[0].unlink()
        assert not holds(store, 1)
        assert caplog.text == ""

    def test_changed_settings_are_written_again(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        path = filled(tmp_path).folder / SETTINGS
        content = path.read_text()
        path.write_text(content.replace('"a"', '"b"'))
        assert holds(opened(tmp_path), 1)
        assert f"{path} is not what was written" in caplog.text
        assert path.read_text() == content

    def test_foreign_files_are_left_alone(self, tmp_path: Path) -> None:
        folder = filled(tmp_path).folder
        (folder / "mine.safetensors").write_bytes(b"mine")
        assert holds(opened(tmp_path), 1)
        assert (folder / "mine.safetensors").read_bytes() == b"mine"

    def test_old_incomplete_files_are_removed_and_new_ones_are_not(self, tmp_path: Path) -> None:
        folder = filled(tmp_path).folder
        for name, age in (("old.tmp", 7200.0), ("new.tmp", 0.0)):
            (folder / name).write_bytes(b"half")
            os.utime(folder / name, (time.time() - age,) * 2)
        opened(tmp_path)
        assert [path.name for path in folder.glob("*.tmp")] == ["new.tmp"]


def no_space(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


class TestFullDisk:
    def test_a_run_is_told_once_and_goes_on(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = filled(tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", no_space)
            for number in range(5, 9):
                store.put(key(number), entry(number))
                store.flush()
        assert caplog.text.count("cannot be written") == 1
        assert "No space left" in caplog.text
        assert "goes on without storing more latents" in caplog.text
        assert [holds(store, number) for number in (1, 5, 8)] == [True, False, False]
        assert list(store.folder.glob("*.tmp")) == []
        again = opened(tmp_path)
        assert [holds(again, number) for number in (1, 5)] == [True, False]

    def test_a_build_ends_with_an_error_that_says_how_to_go_on(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = filled(tmp_path, must_write=True)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", no_space)
            store.put(key(5), entry(5))
            with pytest.raises(CacheError, match=r"No space left.*free some space.*same command goes on"):
                store.flush()
        assert holds(opened(tmp_path), 1)


def test_killed_anywhere_a_build_goes_on_and_two_at_once_agree(tmp_path: Path) -> None:
    """See ``killed_builds.py``."""
    command = [sys.executable, "-m", "tests.data.cache.killed_builds", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    outcomes = json.loads((tmp_path / "outcomes.json").read_text())
    assert len(outcomes["killed"]) > 10
    for outcome in outcomes["killed"]:
        assert outcome["status"] == -9, outcome
        assert outcome["complete"], outcome
    assert any(0 < outcome["encoded_after"] < outcomes["whole"] for outcome in outcomes["killed"])
    assert outcomes["together"] == {"statuses": [0, 0, 0], "complete": True}
