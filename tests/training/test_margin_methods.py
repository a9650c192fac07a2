"""Losses of a margin on labelled pairs, in runs of the embedded models: what they need, log, keep and resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from seedpo.cli.cache_builds import build_cache
from seedpo.errors import ConfigError
from seedpo.rewards.named import CheckedReward, build_reward
from seedpo.rewards.settings import RewardDefinition
from seedpo.training.caches import reward_digests
from seedpo.training.configuration import resolve_config
from seedpo.training.run import train
from tests.small_runs import files_of, metrics, small
from tests.training.toys import cpu_accelerator

AUTOMATIC = {"gradient_factor": 0.3, "gradient_factor_memory": 0.5, "beta_decay": [1, 3]}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "sdpo": ("sdpo", {"model": "scenes-flow"}),
    "sdpo-batch": ("sdpo", {"objective": {"loser_scale": "batch", "loser_scale_mu": 0.5}}),
    "linear": ("linear-dpo", {"gamma": 0.05}),
    "dmpo": ("dmpo", {"model": "scenes-flow", "objective": {"dmpo_smoothing": 0.1}}),
    "smpo": ("smpo", {"pairs": {"flip": True}, "objective": {"loser_scale": "pair"}}),
    "pnapo": ("pnapo", {"objective": {"beta_decay": [1, 3]}, "groups": {"updates_per_rollout": 2}}),
    "automatic": ("diffusion-dpo", {"beta": 5000.0, "objective": AUTOMATIC}),
}
TIMED = ("seconds", "pairs_per_second", "peak_memory_gib")


def run(path: Path, method: str, *, resume: Any = None, **changes: Any) -> list[dict[str, Any]]:
    """The lines of a run, without its times."""
    config = resolve_config(method, small(path.parent, **{"learning_rate": 1e-2, **changes}))
    train(config, path, resume=resume, accelerator=cpu_accelerator(config), progress=False)
    lines = [line for line in metrics(path) if line["kind"] == "train"]
    return [{key: value for key, value in line.items() if key not in TIMED} for line in lines]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_resumed_run_gives_the_uninterrupted_numbers(tmp_path: Path, variant: str) -> None:
    method, changes = VARIANTS[variant]
    whole = run(tmp_path / "whole", method, max_steps=4, **changes)
    run(tmp_path / "parts", method, max_steps=2, **changes)
    parts = run(tmp_path / "parts", method, max_steps=4, resume="latest", **changes)
    assert parts == whole
    weights = [files_of(path) for path in (tmp_path / "whole", tmp_path / "parts")]
    adapters = [{name: file for name, file in files.items() if name.startswith("adapter/")} for files in weights]
    assert adapters[0] == adapters[1] != {}
    assert 0 < whole[-1]["gradient_factor"] < 1


def test_the_automatic_beta_falls_and_is_logged(tmp_path: Path) -> None:
    method, changes = VARIANTS["automatic"]
    betas = [line["beta"] for line in run(tmp_path / "run", method, max_steps=4, **changes)]
    assert betas[0] == 5000.0
    assert betas[-1] <= 0.75 * 5000.0


def test_scaled_losers_and_scored_pairs_are_logged(tmp_path: Path) -> None:
    method, changes = VARIANTS["smpo"]
    line = run(tmp_path / "run", method, **changes)[-1]
    assert 0 < line["loser_scale"] < 1
    assert 0 <= line["turned"] <= 1
    assert line["error/relative_chosen"] != 0


class TestGaps:
    @pytest.fixture
    def scored(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """Images that were scored, call by call."""
        calls: list[int] = []
        score = CheckedReward.__call__

        def count(reward: CheckedReward, images: Any, prompts: Any, **times: Any) -> Tensor:
            calls.append(len(images))
            return score(reward, images, prompts, **times)

        monkeypatch.setattr(CheckedReward, "__call__", count)
        return calls

    def test_each_pair_is_scored_once_and_a_cache_keeps_it(self, tmp_path: Path, scored: list[int]) -> None:
        settings = {"batch_size": 4, "max_steps": 6, "evaluation": {"rewards": [], "metrics": []}}
        live = run(tmp_path / "live", "smpo", **settings)
        assert scored == [2] * len(scored)
        assert len(scored) <= 10, "ten pairs, ties included"
        cache = {"folder": str(tmp_path / "cache")}
        build_cache(resolve_config("smpo", small(tmp_path, cache=cache, **settings)), progress=False)
        scored.clear()
        assert run(tmp_path / "cached", "smpo", cache=cache, **settings) == live
        assert scored == []

    def test_gaps_are_those_of_the_reward_that_is_named(self, tmp_path: Path) -> None:
        one, other = (
            run(tmp_path / reward, "smpo", pairs={"gap_reward": reward})[-1]
            for reward in ("scenes-scorer", "jpeg-compressibility")
        )
        assert one["rewards/margins"] != other["rewards/margins"]

    def test_a_cache_knows_the_reward_s_weights_and_code(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        both = RewardDefinition.model_validate({"terms": {"scenes-scorer": 1.0, "scenes-plain": 0.5}})
        digests = reward_digests(build_reward("both", definitions={"both": both}))
        assert len(set(digests)) == 2
        assert reward_digests(build_reward("scenes-scorer")) == digests[:1]
        code = tmp_path / "brightness_of_mine.py"
        monkeypatch.syspath_prepend(str(tmp_path))
        code.write_text("def score(images, prompts):\n    return images.mean((1, 2, 3))\n")
        reward = build_reward("brightness_of_mine:score")
        before = reward_digests(reward)
        code.write_text(code.read_text() + "# changed\n")
        assert len(before) == 1
        assert reward_digests(reward) != before

    def test_what_is_kept_out_is_measured_by_its_labels(self, tmp_path: Path, scored: list[int]) -> None:
        settings = {"pairs": {"validation": 0.4}, "evaluation": {"rewards": [], "metrics": []}, "max_steps": 1}
        run(tmp_path / "smpo", "smpo", **settings)
        scaled = [line for line in metrics(tmp_path / "smpo") if line["kind"] == "evaluation"]
        assert sum(scored) <= 2 * settings["max_steps"] * 2, "only pairs that are trained on are scored"
        run(tmp_path / "dpo", "diffusion-dpo", beta=50.0, **settings)
        plain = [line for line in metrics(tmp_path / "dpo") if line["kind"] == "evaluation"]
        assert scaled[0]["validation/loss"] == plain[0]["validation/loss"]


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        ("diffusion-dpo", {"objective": {"gap_scale": 10}}, r"objective\.gap_scale = 10 .* set pairs\.gap_reward"),
        ("diffusion-dpo", {"pairs": {"gap_reward": "clip"}}, r"pairs\.gap_reward = clip .* objective\.gap_scale"),
        ("diffusion-dpo", {"objective": {"gap_temperature": 2}}, r"gap_temperature = 2\.0 .* without gap_scale"),
        ("diffusion-dpo", {"objective": {"loser_scale_mu": 0.5}}, r"loser_scale_mu = 0\.5 .* without loser_scale"),
        ("diffusion-dpo", {"objective": {"loser_scale": "group"}}, r"objective\.loser_scale = 'group'"),
        ("diffusion-dpo", {"objective": {"least_beta": 0.1}}, r"least_beta = 0\.1 .* without gradient_factor"),
        ("diffusion-dpo", {"objective": {"beta_decay": [9, 3]}}, r"beta_decay = \[9, 3\] must be"),
        ("diffusion-dpo", {"objective": {"gradient_factor": 0.5}}, r"objective\.gradient_factor = 0\.5"),
        ("linear-dpo", {"objective": {"gradient_factor": 0.2}}, r"gradient_factor = 0\.2 has no effect on linear-dpo"),
        ("diffusion-dpo", {"objective": {"linear_floor": 0.1}}, r"objective\.linear_floor = 0\.1 has no effect"),
        ("linear-dpo", {"objective": {"linear_floor": 0.5}}, r"objective\.linear_floor = 0\.5"),
        ("dmpo", {"objective": {"dmpo_smoothing": 0.0}}, r"objective\.dmpo_smoothing = 0\.0"),
        ("spo", {"objective": {"loser_scale": "pair"}}, r"objective\.loser_scale = pair has no effect on spo"),
        ("d3po", {"objective": {"gap_scale": 1.0}}, r"objective\.gap_scale = 1 has no effect on d3po"),
    ],
)
def test_what_does_not_go_together_is_one_line(method: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as failure:
        resolve_config(method, changes)
    assert "\n" not in str(failure.value)


def test_a_reward_without_finite_scores_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CheckedReward, "__call__", lambda *_, **__: torch.tensor([1.0, torch.nan]))
    with pytest.raises(Exception, match="reward scenes-scorer gives pair"):
        run(tmp_path / "run", "smpo", evaluation={"rewards": [], "metrics": []})
