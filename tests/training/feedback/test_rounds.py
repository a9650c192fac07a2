"""Whether a run that asks people can go on on another number of processes; ``wiring.round_open`` says so."""

from __future__ import annotations

from typing import Any

import pytest

from seedpo.methods.sources.data_anchor import SourceWithData
from seedpo.protocols import EarlierProcesses
from seedpo.training.configuration import resolve_config
from seedpo.training.feedback.wiring import round_open
from tests.methods.sources.test_offline import source as pairs
from tests.methods.sources.test_rollouts import source as drawing

ASKING = {"feedback": {"study": "s"}, "batch_size": 3, "gradient_accumulation_steps": 1}


def states(batches: int) -> list[dict[str, Any]]:
    """Two processes, whose roll-outs give 5 units, after some batches of 3."""
    sources = [drawing(rank=rank, world=2) for rank in range(2)]
    for one in sources:
        for _ in range(batches):
            one.next_batch()
    return [dict(one.state()) for one in sources]


@pytest.mark.parametrize(("batches", "expected"), [(0, True), (1, True), (2, False), (3, True), (4, False)])
def test_a_round_is_open_before_a_roll_out(batches: int, expected: bool) -> None:
    """After 0, 1, 2, ... batches 0, 2, 4, 1 and 3 units wait."""
    asks = round_open(resolve_config("d3po", ASKING), drawing())
    assert asks is not None
    own = states(batches)
    assert asks(EarlierProcesses(states=own, batch_size=3, batches=1)) == expected
    joined = round_open(resolve_config("d3po", ASKING), SourceWithData(source=drawing(), data=pairs()))
    assert joined is not None
    both = [{"source": state, "anchor": {"position": 0}} for state in own]
    assert joined(EarlierProcesses(states=both, batch_size=3, batches=1)) == expected


def test_without_people_nothing_is_open() -> None:
    assert round_open(resolve_config("d3po", {}), drawing()) is None
    assert round_open(resolve_config("diffusion-dpo", {}), pairs()) is None
