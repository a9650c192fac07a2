"""A judge behind chat completions trains the embedded model: two steps in every run of tests, the rise in slow ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.vlm_judge import judge, truth_of_run
from seedpo.rewards.remote.vlm.reward import VlmReward
from seedpo.rewards.settings import VlmSettings
from seedpo.scenes.taste import true_utility
from tests.scenes.drawings import some_drawings
from tests.small_runs import SMALL

PROMPTS = ["a large red circle on a gray background", "a small blue star on a white background"] * 2


@pytest.mark.parametrize("template", ["score-1-10", "pair", "yes-no"])
def test_scores_rank_as_the_truth_does(template: str) -> None:
    images = some_drawings(PROMPTS)
    images[2:] = images[2:] * 0.5 + 0.25  # paler ones
    images = (images * 255.0).round() / 255.0  # as they travel
    truth = true_utility(images, PROMPTS)
    with judge() as url:
        scores = VlmReward("judge", VlmSettings(url=url, model="oracle", template=template))(images, PROMPTS)
    for row in (0, 1):
        assert scores[row] > scores[row + 2]
        assert truth[row] > truth[row + 2]
    if template == "yes-no":
        assert torch.allclose(scores, truth, atol=1e-4)


@pytest.mark.parametrize("template", ["score-1-10", "pair"])
def test_a_run_of_two_steps(tmp_path: Path, template: str) -> None:
    small = {**SMALL, "evaluation": {**SMALL["evaluation"], "rewards": ["judge"], "metrics": ["truth"]}}
    keys = {key: value for key, value in small.items() if key not in ("model", "reward", "evaluate_every")}
    figures = truth_of_run("d3po", template, seed=0, folder=tmp_path / "run", **keys)
    assert len(figures) == 2


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("method", "template", "steps"), [("flow-grpo", "score-1-10", 24), ("d3po", "yes-no", 32)])
def test_the_truth_rises(tmp_path: Path, method: str, template: str, steps: int) -> None:
    before, after = truth_of_run(method, template, seed=0, folder=tmp_path / "run", max_steps=steps)
    assert after > before + 0.1
