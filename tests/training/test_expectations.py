from __future__ import annotations

import math
from typing import Any

import pytest

from seedpo.core.entropy import clipped_loss, clipped_margin
from seedpo.settings import build_config
from seedpo.training.expectations import what_to_expect
from seedpo.training.settings import RunConfig


def told(*, fixed_pairs: bool = False, **keys: Any) -> str:
    return "\n".join(what_to_expect(build_config(RunConfig, keys), fixed_pairs=fixed_pairs))


def test_the_bounds_of_a_clipped_loss() -> None:
    """The margin is extreme where one ratio is at 1 + clip and the other at 1 - clip."""
    margin = clipped_margin(2.0, 0.1)
    assert margin == pytest.approx(2.0 * math.log(1.1 / 0.9), rel=1e-12)
    low, high = clipped_loss(2.0, 0.1)
    assert low == pytest.approx(-math.log(1 / (1 + math.exp(-margin))), rel=1e-12)
    assert high == pytest.approx(-math.log(1 / (1 + math.exp(margin))), rel=1e-12)


def test_d3pos_flat_loss_is_no_sign_of_not_learning() -> None:
    text = told(method="d3po", beta=0.1, clip_range=0.1)
    assert "cannot leave [0.683, 0.703], whatever is learnt: a flat loss is no sign of anything here" in text
    assert "beta, gamma and the reference have no influence" in text
    assert "source/reward" in text


def test_a_clip_that_leaves_room() -> None:
    text = told(method="spo", beta=10.0, clip_range=0.1)
    assert "cannot leave [0.126, 2.133]" in text
    assert "flat loss" not in text
    assert "margin_abs: 0 at first, at most 2\n" in text


def test_fixed_pairs_without_a_clip() -> None:
    text = told(fixed_pairs=True, method="diffusion-dpo", beta=2000.0)
    assert "starts at 0.693 (policy = reference)" in text
    assert "learnt by heart" in text
    assert "source/reward" not in text


def test_the_entropy_term_moves_the_start() -> None:
    text = told(method="spo", beta=10.0, gamma=3.0, clip_range=0.1)
    assert "starts off 0.693" in text
    assert "cannot leave" not in text
