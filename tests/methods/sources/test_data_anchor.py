from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from seedpo.methods.sources.data_anchor import SourceWithData
from tests.methods.sources.test_offline import numbers, source


@dataclass
class Counting:
    """A source that counts; it reads no data."""

    count: int = 0

    def next_batch(self) -> int:
        self.count += 1
        return self.count

    def metrics(self) -> Mapping[str, float]:
        return {"visits": -1.0}

    def state(self) -> dict[str, Any]:
        return {"count": self.count}

    def restore(self, state: dict[str, Any]) -> None:
        self.count = state["count"]


def test_both_go_on_where_they_stopped() -> None:
    joined = SourceWithData(source=Counting(), data=source())
    for _ in range(4):
        joined.next_batch()
    state = joined.state()
    expected = [joined.next_batch() for _ in range(5)]
    resumed = SourceWithData(source=Counting(), data=source())
    resumed.restore(state)
    for batch, other in zip((resumed.next_batch() for _ in range(5)), expected, strict=True):
        assert batch.batch == other.batch
        assert numbers(batch.data) == numbers(other.data)
        assert torch.equal(batch.data.chosen_latents, other.data.chosen_latents)


def test_figures_of_both_have_names_of_their_own() -> None:
    joined = SourceWithData(source=Counting(), data=source())
    joined.next_batch()
    assert joined.metrics() == {"visits": -1.0, "anchor_visits": 0.4}
