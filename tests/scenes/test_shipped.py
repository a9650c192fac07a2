from __future__ import annotations

from pathlib import Path

import pytest
import torch

from seedpo.data.catalogue import DATA, PROMPTS
from seedpo.data.pairs.sets import PairSet
from seedpo.data.settings import PairsConfig
from seedpo.models.catalogue import MODELS
from seedpo.rewards.catalogue import REWARDS
from seedpo.scenes.assets import FLOW_PIPELINE, PIPELINE
from seedpo.scenes.pairs import preference_table
from seedpo.scenes.prompts import EVALUATION_PROMPTS, TRAINING_PROMPTS
from seedpo.scenes.shipped import ScenesTruth
from seedpo.scenes.taste import true_utility
from tests.scenes.drawings import some_drawings


@pytest.mark.parametrize(("name", "folder"), [("scenes", PIPELINE), ("scenes-flow", FLOW_PIPELINE)])
def test_the_models_are_the_shipped_ones(name: str, folder: Path) -> None:
    assert MODELS.load(name)() == folder
    assert (folder / "model_index.json").is_file()


def test_prompt_sets() -> None:
    assert PROMPTS.load("scenes-training")() == list(TRAINING_PROMPTS)
    assert PROMPTS.load("scenes-evaluation")() == list(EVALUATION_PROMPTS)


def test_prompt_sets_are_copies() -> None:
    PROMPTS.load("scenes-training")().clear()
    assert len(PROMPTS.load("scenes-training")()) == 416


def test_pairs_are_those_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seedpo.scenes.shipped.preference_table", lambda: preference_table(count=30))
    pairs = DATA.load("scenes-pairs")()
    wanted = PairSet.of_table(preference_table(count=30), origin="test")
    assert len(pairs) == len(wanted)
    assert pairs.ties == wanted.ties
    assert pairs[3].prompt == wanted[3].prompt
    assert torch.equal(pairs[3].chosen, wanted[3].chosen)
    assert torch.equal(pairs[3].rejected, wanted[3].rejected)


def test_pairs_are_read_as_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seedpo.scenes.shipped.preference_table", lambda: preference_table(count=30))
    pairs = DATA.load("scenes-pairs")(PairsConfig(ties="half", resolution=16))
    assert len(pairs) == 30
    assert pairs[0].chosen.shape == (3, 16, 16)


def test_truth_is_the_utility() -> None:
    prompts = list(EVALUATION_PROMPTS[:2])
    images = some_drawings(prompts)
    assert torch.equal(ScenesTruth()(images, prompts), true_utility(images, prompts))
    assert isinstance(REWARDS.load("scenes-truth")(), ScenesTruth)
