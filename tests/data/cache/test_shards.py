from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from seedpo.data.cache.entries import read_entry, write_shard
from seedpo.data.cache.shards import KEY_BYTES, Damaged, Shard, open_shard

STORE = "of some settings"
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8)


def key(number: int) -> bytes:
    return bytes([number]) * KEY_BYTES


def entry(number: int) -> dict[str, torch.Tensor]:
    """A tensor of each format, one of them a scalar."""
    tensors = {str(dtype)[6:]: (torch.arange(3) + number).to(dtype) for dtype in DTYPES}
    return tensors | {"scalar": torch.tensor(number / 3, dtype=torch.float64)}


def written(folder: Path, count: int = 3) -> Shard:
    return write_shard(folder, STORE, {key(number): entry(number) for number in range(count)})


def test_entries_come_back_bit_for_bit(tmp_path: Path) -> None:
    shard = written(tmp_path)
    for opened in (shard, open_shard(shard.path, STORE)):
        assert list(opened.keys) == [key(0), key(1), key(2)]
        for row in range(3):
            read, expected = read_entry(opened, row), entry(row)
            assert set(read) == set(expected)
            for name, value in expected.items():
                assert read[name].dtype == value.dtype
                assert torch.equal(read[name], value)


def test_the_file_is_plain_safetensors(tmp_path: Path) -> None:
    tensors = load_file(written(tmp_path).path)
    assert tensors["keys"].shape == tensors["digests"].shape == (3, KEY_BYTES)
    assert torch.equal(tensors["value.float16"][2], entry(2)["float16"])


def test_only_the_shard_is_left_in_the_folder(tmp_path: Path) -> None:
    shard = written(tmp_path)
    assert list(tmp_path.iterdir()) == [shard.path]


def small_entry(number: int) -> dict[str, torch.Tensor]:
    return {"a": torch.tensor([number, 1.5]), "b": torch.tensor(number)}


def test_no_changed_byte_changes_a_number(tmp_path: Path) -> None:
    """At each place: the shard does not open, or one entry does not read, or it is a byte that says nothing."""
    shard = write_shard(tmp_path, STORE, {key(number): small_entry(number) for number in range(2)})
    content = shard.path.read_bytes()
    bad = []
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 0x10
        shard.path.write_bytes(changed)
        try:
            opened = open_shard(shard.path, STORE)
        except Damaged:
            continue
        assert list(opened.keys) == [key(0), key(1)]
        for row in range(2):
            try:
                read = read_entry(opened, row)
            except Damaged:
                bad.append((place, row))
            else:
                assert read.keys() == small_entry(row).keys()
                assert all(torch.equal(read[name], value) for name, value in small_entry(row).items())
    assert len(bad) >= 2 * sum(value.nbytes for value in small_entry(0).values())


@pytest.mark.parametrize("kept", [0, 4, 8, 100, -1])
def test_a_cut_file_is_damaged(tmp_path: Path, kept: int) -> None:
    shard = written(tmp_path)
    shard.path.write_bytes(shard.path.read_bytes()[:kept])
    with pytest.raises(Damaged):
        open_shard(shard.path, STORE)


def test_a_file_cut_off_after_it_was_opened(tmp_path: Path) -> None:
    shard = written(tmp_path)
    shard.path.write_bytes(shard.path.read_bytes()[:-1])
    with pytest.raises(Damaged):
        shard.read(2)


def test_a_shard_moved_from_another_store_is_damaged(tmp_path: Path) -> None:
    with pytest.raises(Damaged):
        open_shard(written(tmp_path).path, "of other settings")


def test_a_renamed_shard_is_damaged(tmp_path: Path) -> None:
    shard = written(tmp_path)
    with pytest.raises(Damaged):
        open_shard(shard.path.rename(tmp_path / ("0" * 40 + ".safetensors")), STORE)
