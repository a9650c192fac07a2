from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from seedpo.data.cache import store as stores
from seedpo.data.cache.digests import digest
from seedpo.data.cache.shards import SETTINGS
from seedpo.data.cache.store import LOCK, Store, build_lock
from seedpo.errors import CacheError

SETTINGS_A = {"vae": "a"}


def key(number: int) -> bytes:
    return digest(str(number).encode())


def entry(number: int) -> dict[str, torch.Tensor]:
    return {"latents": torch.full((2, 4), float(number)), "number": torch.tensor(number)}


def opened(root: Path, settings: dict[str, Any] | None = None) -> Store:
    return Store(root, "latents", settings or SETTINGS_A)


def filled(root: Path, numbers: range = range(5)) -> Store:
    store = opened(root)
    store.prepare()
    for number in numbers:
        store.put(key(number), entry(number))
    store.flush()
    return store


def holds(store: Store, number: int) -> bool:
    tensors = store.get(key(number))
    if tensors is None:
        return False
    assert all(torch.equal(tensors[name], value) for name, value in entry(number).items())
    return True


def shards(store: Store) -> list[Path]:
    return sorted(store.folder.glob("*.safetensors"))


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


class TestStoring:
    def test_what_was_put_is_found_before_and_after_it_is_written(self, tmp_path: Path) -> None:
        store = opened(tmp_path)
        store.prepare()
        store.put(key(1), entry(1))
        assert holds(store, 1)
        assert shards(store) == []
        store.flush()
        assert len(shards(store)) == 1
        assert holds(store, 1)
        again = opened(tmp_path)
        assert (key(1) in again, key(2) in again) == (True, False)
        assert (holds(again, 1), holds(again, 2)) == (True, False)
        assert (again.added, len(again)) == (0, 1)

    def test_reading_makes_no_folder(self, tmp_path: Path) -> None:
        assert len(opened(tmp_path)) == 0
        assert list(tmp_path.iterdir()) == []

    def test_what_is_there_is_not_stored_again(self, tmp_path: Path) -> None:
        filled(tmp_path)
        assert len(shards(filled(tmp_path))) == 1
        assert (filled(tmp_path, range(3, 8)).added, len(opened(tmp_path))) == (3, 8)
        assert all(holds(opened(tmp_path), number) for number in range(8)), "in two shards"

    def test_a_shard_is_written_when_enough_is_collected(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        store = filled(tmp_path, range(0))
        monkeypatch.setattr(stores, "SHARD_BYTES", 3 * 40)  # an entry has 2 x 4 x 4 + 8 bytes
        for number in range(7):
            store.put(key(number), entry(number))
        assert len(shards(store)) == 2
        monkeypatch.setattr(stores, "SHARD_ENTRIES", 2)
        store.put(key(7), entry(7))
        assert len(shards(store)) == 3

    def test_other_settings_are_another_store(self, tmp_path: Path) -> None:
        filled(tmp_path)
        assert not holds(opened(tmp_path, {"vae": "b"}), 1)
        assert json.loads((opened(tmp_path).folder / SETTINGS).read_text())["vae"] == "a"

    def test_a_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(CacheError, match=r"cache .*file.* cannot be written") as caught:
            opened(tmp_path / "file").prepare()
        assert "\n" not in str(caught.value)


class TestDamage:
    @pytest.mark.parametrize("place", [3, 60, -1, -400])
    def test_a_flipped_byte_is_reported_once_and_repaired_by_a_build(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, place: int
    ) -> None:
        """In the length, the header, the digests and an entry."""
        path = shards(filled(tmp_path))[0]
        flip(path, place)
        store = opened(tmp_path)
        assert [holds(store, number) for number in range(5)].count(False) >= 1
        assert [holds(store, number) for number in range(5)].count(False) >= 1
        assert caplog.text.count(str(path)) == 1
        assert path.exists(), "a reader changes nothing"
        filled(tmp_path)
        caplog.clear()
        assert all(holds(opened(tmp_path), number) for number in range(5))
        assert caplog.text == ""

    def test_a_shard_that_was_removed(self, tmp_path: Path) -> None:
        store = filled(tmp_path)
        shards(store)[0].unlink()
        assert not holds(store, 1)

    def test_a_build_leaves_foreign_files_and_removes_incomplete_ones(self, tmp_path: Path) -> None:
        folder = filled(tmp_path).folder
        for name in ("mine.safetensors", "half.tmp"):
            (folder / name).write_bytes(b"mine")
        (folder / SETTINGS).write_text("changed")
        assert holds(filled(tmp_path), 1)
        assert (folder / "mine.safetensors").read_bytes() == b"mine"
        assert not (folder / "half.tmp").exists()
        assert json.loads((folder / SETTINGS).read_text())["vae"] == "a"


def test_a_full_disk_ends_a_build_and_keeps_what_was_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    store = filled(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        store.put(key(5), entry(5))
        with pytest.raises(CacheError, match="No space left"):
            store.flush()
    assert list(store.folder.glob("*.tmp")) == []
    assert [holds(opened(tmp_path), number) for number in (1, 5)] == [True, False]


def test_one_process_fills_a_folder(tmp_path: Path) -> None:
    with build_lock(tmp_path), pytest.raises(CacheError, match=str(tmp_path)), build_lock(tmp_path):
        pass
    with build_lock(tmp_path):
        assert (tmp_path / LOCK).exists()


def test_killed_anywhere_a_build_goes_on(tmp_path: Path) -> None:
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
