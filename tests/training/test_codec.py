from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from seedpo.run_folders import DamagedCheckpoint
from seedpo.training.codec import flatten, load_tree, save_tree, unflatten

DTYPES = (
    torch.float32,
    torch.float64,
    torch.bfloat16,
    torch.float16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
)


def same(left: Any, right: Any) -> bool:
    if isinstance(left, Tensor):
        return isinstance(right, Tensor) and left.dtype == right.dtype and torch.equal(left, right)
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float) and math.isnan(left):
        return math.isnan(right)
    return left == right


tensors = st.builds(
    lambda dtype, shape, seed: torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(seed)).to(dtype),
    st.sampled_from(DTYPES),
    st.lists(st.integers(0, 3), max_size=3),
    st.integers(0, 99),
)
values = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | tensors
keys = st.text(max_size=4) | st.sampled_from(["a/b", "a~1b", "a", "b", "0"])
trees = st.recursive(values, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3))


@given(trees)
def test_a_tree_comes_back_as_it_was(tree: Any) -> None:
    assert same(unflatten(*flatten(tree)), tree)


def test_files_hold_everything_and_bits_stay(tmp_path: Path) -> None:
    bits = torch.tensor([0.1, -0.0, math.inf, 1e-45], dtype=torch.float32)
    tree = {
        "weights": {"a/b": bits, "a": {"b": bits * 2}},
        "count": 2**70,
        "mean": 0.1,
        "none": None,
        "worst": -math.inf,
    }
    save_tree(tree, tmp_path / "state")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state.json", "state.safetensors"]
    found = load_tree(tmp_path / "state")
    assert same(found, tree)
    assert found["weights"]["a/b"].view(torch.int32).tolist() == bits.view(torch.int32).tolist()


def test_a_tree_without_tensors_can_be_stored(tmp_path: Path) -> None:
    save_tree({}, tmp_path / "state")
    assert load_tree(tmp_path / "state") == {}


def test_tensors_are_copies_even_of_shared_and_strided_storage(tmp_path: Path) -> None:
    whole = torch.arange(6.0).reshape(2, 3)
    save_tree({"whole": whole, "again": whole, "column": whole[:, 1], "turned": whole.T}, tmp_path / "state")
    whole.zero_()
    found = load_tree(tmp_path / "state")
    assert found["column"].tolist() == [1.0, 4.0]
    assert found["turned"].tolist() == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]


@pytest.mark.parametrize(
    ("tree", "path"),
    [
        ({"a": {"b": (1, 2)}}, "/a/b"),
        ({"a": [0, {1: 2}]}, "/a/1"),
        ({"a": object()}, "/a"),
        ({"a": torch.Size([1])}, "/a"),
        ({"__tensor__": "x"}, "/"),
    ],
)
def test_what_would_not_come_back_is_refused_with_its_path(tree: Any, path: str) -> None:
    with pytest.raises(TypeError, match=f"state at '{path}'"):
        flatten(tree)


@pytest.mark.parametrize("ending", [".json", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b"\xff" * 100, bytes(100)])
def test_a_damaged_half_is_named(tmp_path: Path, ending: str, content: bytes) -> None:
    save_tree({"a": torch.ones(2)}, tmp_path / "state")
    (tmp_path / f"state{ending}").write_bytes(content)
    with pytest.raises(DamagedCheckpoint, match="state"):
        load_tree(tmp_path / "state")
