from __future__ import annotations

import math
from typing import Any

import pytest

from seedpo.core.entropy import clipped_margin
from seedpo.core.losses import clipped_loss
from seedpo.settings import build_config
from seedpo.training.expectations import what_to_expect
from seedpo.training.settings import RunConfig


def lines(*, fixed_pairs: bool = False, **keys: Any) -> dict[str, str]:
    rows = what_to_expect(build_config(RunConfig, keys), fixed_pairs=fixed_pairs)[1:]
    return dict(row.strip().split(": ", 1) for row in rows if ": " in row)


def test_the_bounds_of_a_clipped_loss() -> None:
    """The margin is extreme where one ratio is at 1 + clip and the other at 1 - clip."""
    margin = clipped_margin(2.0, 0.1)
    assert margin == pytest.approx(2.0 * math.log(1.1 / 0.9), rel=1e-12)
    low, high = clipped_loss(2.0, 0.1)
    assert low == pytest.approx(-math.log(1 / (1 + math.exp(-margin))), rel=1e-12)
    assert high == pytest.approx(-math.log(1 / (1 + math.exp(margin))), rel=1e-12)


@pytest.mark.parametrize(
    ("keys", "loss", "margin", "reward"),
    [
        ({"method": "d3po", "beta": 0.1, "clip_range": 0.1}, "[0.683, 0.703]", "no influence", True),
        ({"method": "spo", "beta": 10.0, "clip_range": 0.1}, "[0.126, 2.133]", "at most 2", True),
        ({"method": "spo", "beta": 10.0, "gamma": 3.0, "clip_range": 0.1}, "0.693", "offset/std", True),
        ({"method": "diffusion-dpo", "beta": 2000.0, "fixed_pairs": True}, "starts at 0.693", "0.05 to 1", False),
    ],
    ids=["d3po", "spo", "see", "fixed pairs"],
)
def test_what_is_said_follows_from_the_settings(keys: dict[str, Any], loss: str, margin: str, reward: bool) -> None:
    found = lines(**keys)
    assert loss in found["loss"]
    assert margin in found["margin_abs"]
    assert ("source/reward" in found) == reward
    assert ("cannot leave" in found["loss"]) == ("clip_range" in keys and not keys.get("gamma"))
    assert ("memorised" in found["rewards/accuracies"]) == (not reward)
