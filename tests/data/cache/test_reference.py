from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from seedpo.data.cache.reference import ReferenceScalars
from seedpo.data.cache.store import Store
from tests.models.tiny import seeded


def scalars(root: Path) -> ReferenceScalars:
    store = Store(root, "reference", {})
    store.prepare()
    return ReferenceScalars(store)


def inputs(rows: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Content, time steps and noise."""
    content = torch.arange(rows * 32, dtype=torch.uint8).view(rows, 32)
    return content, torch.arange(rows) * 100, torch.randn(rows, 3, 2, 2, generator=seeded())


VALUES = torch.randn(2, 3, generator=seeded(1), dtype=torch.float64)


def test_what_was_kept_is_found_bit_for_bit(tmp_path: Path) -> None:
    cache = scalars(tmp_path)
    assert cache.find(*inputs()) is None
    cache.keep(*inputs(), VALUES)
    cache.store.flush()
    found = scalars(tmp_path).find(*inputs())
    assert found is not None
    assert found.dtype == torch.float64
    assert torch.equal(found, VALUES)


def test_float32_comes_back_as_it_was(tmp_path: Path) -> None:
    cache = scalars(tmp_path)
    cache.keep(*inputs(), VALUES.float())
    found = cache.find(*inputs())
    assert found is not None
    assert torch.equal(found.float(), VALUES.float())


def test_rows_in_another_order(tmp_path: Path) -> None:
    cache, order = scalars(tmp_path), torch.tensor([2, 0])
    cache.keep(*inputs(), VALUES)
    found = cache.find(*(value[order] for value in inputs()))
    assert found is not None
    assert torch.equal(found, VALUES[:, order])


@pytest.mark.parametrize("changed", [0, 1, 2])
def test_another_pair_time_step_or_noise_is_not_known(tmp_path: Path, changed: int) -> None:
    cache = scalars(tmp_path)
    cache.keep(*inputs(), VALUES)
    asked = [value.clone() for value in inputs()]
    asked[changed][1] += 1
    assert cache.find(*asked) is None
