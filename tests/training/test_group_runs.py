"""Runs of Flow-GRPO on the embedded models: what they log, what they learn and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from seedpo.errors import ConfigError, SeedpoError
from seedpo.settings import merge
from seedpo.training.configuration import resolve_config
from seedpo.training.run import train
from tests.small_runs import metrics, small

MODELS = pytest.mark.parametrize("model", ["scenes", "scenes-flow"])


def run(folder: Path, **changes: Any) -> list[dict[str, Any]]:
    config = resolve_config("flow-grpo", small(folder, **merge({"evaluation": {"metrics": []}}, changes)))
    train(config, folder / "run", progress=False)
    return metrics(folder / "run")


@MODELS
def test_figures_of_a_run(tmp_path: Path, model: str) -> None:
    """All updates on one roll-out: the first is on policy, the later ones are not."""
    settings = {"model": model, "beta": 0.1, "clip_range": 1e-6, "max_steps": 6, "groups": {"updates_per_rollout": 3}}
    lines = [line for line in run(tmp_path, **settings) if line["kind"] == "train"]
    assert lines[0]["ratio/mean"] == pytest.approx(1.0, abs=1e-6)
    assert lines[0]["kl"] == lines[0]["distance"] == lines[0]["clipped"] == 0.0
    assert lines[0]["grad_norm"] > 0
    assert lines[1]["kl"] > 0
    assert lines[1]["distance"] > 0
    assert lines[1]["ratio/std"] > 0
    assert any(line["clipped"] > 0 for line in lines[1:])
    assert lines[0]["source/groups_kept"] > 0


def test_without_beta_there_is_no_kl(tmp_path: Path) -> None:
    lines = run(tmp_path, beta=0.0, max_steps=1)
    assert not any("kl" in line for line in lines)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@MODELS
def test_the_reward_rises(tmp_path: Path, model: str) -> None:
    """By 0.4 to 0.6 in 24 steps, on images of the same latents; other processors round otherwise, and take others."""
    settings = {"model": model, "max_steps": 24, "evaluate_every": 0, "evaluation": {"metrics": []}}
    train(resolve_config("flow-grpo", settings), tmp_path / "run", progress=False)
    first, last = (line for line in metrics(tmp_path / "run") if line["kind"] == "evaluation")
    assert last["reward/scenes-scorer"] > first["reward/scenes-scorer"] + 0.15


class TestRefusals:
    @pytest.mark.parametrize(
        ("method", "key", "changes"),
        [
            ("flow-grpo", "gamma", {"gamma": 1.0}),
            ("flow-grpo", "loss", {"loss": "ipo"}),
            ("flow-grpo", "trained_steps", {"step_groups": {"window": "random", "trained_steps": None}}),
            ("flow-grpo", "window_range", {"step_groups": {"trained_steps": 2, "window_range": 3}}),
            (
                "flow-grpo",
                "window_range",
                {"step_groups": {"trained_steps": 2, "window": "random", "window_range": 1}},
            ),
            ("flow-grpo", "images_per_prompt", {"groups": {"images_per_prompt": 1}}),
            ("flow-grpo", "beta", {"beta": -1.0}),
            ("d3po", "beta", {"beta": 0.0}),
            ("d3po", "objective.advantage_limit", {"objective": {"advantage_limit": 1.0}}),
        ],
    )
    def test_names_the_key(self, tmp_path: Path, method: str, key: str, changes: dict[str, Any]) -> None:
        with pytest.raises(ConfigError, match=key.replace(".", r"\.")) as caught:
            train(resolve_config(method, small(tmp_path, **changes)), tmp_path / "run", progress=False)
        assert "\n" not in str(caught.value)

    def test_more_random_steps_than_there_are(self, tmp_path: Path) -> None:
        with pytest.raises(SeedpoError, match="trained_steps"):
            run(tmp_path, step_groups={"trained_steps": 5})
