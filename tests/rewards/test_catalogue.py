from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from seedpo.cli.names import reward_facts, reward_table
from seedpo.planning.scorers import build_scorer
from seedpo.rewards.catalogue import OURS, REWARDS, RewardEntry
from seedpo.rewards.named import build_reward
from seedpo.rewards.names import check_name


def redness() -> object:
    """An adapter: it returns what scores images."""

    def score(images: Tensor, prompts: Sequence[str]) -> Tensor:
        return images[:, 0].flatten(1).mean(1)

    return score


def test_a_reward_enters_with_one_adapter_and_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    row = RewardEntry(
        name="redness",
        target=f"{__name__}:redness",
        summary="how red an image is; reads no prompt",
        scale="share of full red, in [0, 1]",
        licence=OURS,
        source="this test",
    )
    monkeypatch.setitem(vars(REWARDS), "entries", (*REWARDS.entries, row))
    check_name("redness")
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    scores = build_reward("redness", device="cpu")(images, ["a", "b"])
    torch.testing.assert_close(scores, images[:, 0].mean((1, 2)))
    assert reward_facts(row)[0] in reward_table(REWARDS.entries, width=200)
    assert build_scorer("redness").origin == "no network"
