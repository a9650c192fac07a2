"""Whether a run beats its base: the rule on made-up run folders, and what a real run leaves for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from seedpo.core.stats.bootstrap import tie_width
from seedpo.core.verdicts import Gain, judge_gain
from seedpo.errors import RunFolderError
from seedpo.evaluation.gains import BaseComparison, compare_with_base, read_scores, save_scores, scores_file
from seedpo.run_folders import RunFolder

PROMPTS, IMAGES, STEPS = 24, 4, 100


def base_scores(prompts: int = PROMPTS) -> np.ndarray:
    random = np.random.default_rng(5)
    return random.normal(size=(prompts, 1)) * 3 + random.normal(size=(prompts, IMAGES))


def made_up(
    path: Path,
    gains: dict[str, float],
    *,
    prompts: int = PROMPTS,
    config: dict[str, Any] | None = None,
    middle: dict[str, float] | None = None,
    best: dict[str, Any] | None = None,
) -> RunFolder:
    """A run whose rewards rose by ``gains`` spreads of a prompt's images, with noise of half a spread."""
    folder = RunFolder(path)
    folder.samples.mkdir(parents=True)
    folder.config_file.write_text(yaml.safe_dump({"method": "diffusion-dpo"} | (config or {})))
    evaluations = {0: dict.fromkeys(gains, 0.0)} | ({50: middle} if middle else {}) | {STEPS: gains}
    lines = []
    for step, moved in evaluations.items():
        noise = np.random.default_rng(step).normal(size=(prompts, IMAGES)) * (0.5 if step else 0.0)
        scores = {name: base_scores(prompts) + gain + noise * (gain != 0.0) for name, gain in moved.items()}
        save_scores({name: rows.tolist() for name, rows in scores.items()}, folder.samples, step)
        figures = {f"reward/{name}": float(rows.mean()) for name, rows in scores.items()}
        lines.append({"step": step, "kind": "evaluation", **figures, "validation/accuracy": 0.5 + step / 1000})
    folder.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    if best is not None:
        folder.finished.write_text(json.dumps({"step": STEPS, "seconds": 1.0, "best": best}))
    return folder


def compared(folder: RunFolder) -> BaseComparison:
    comparison = compare_with_base(folder)
    assert comparison is not None
    return comparison


class TestRule:
    @pytest.mark.parametrize(
        ("prompts", "low", "high", "difference", "gain"),
        [
            (10, 0.51, 0.7, 1.0, Gain.BETTER),
            (10, 0.3, 0.49, -1.0, Gain.WORSE),
            (9, 0.9, 1.0, 1.0, Gain.TOO_LITTLE),
            (24, 0.45, 0.7, 1.0, Gain.NOT_SHOWN),
            (24, 0.6, 0.7, 0.05, Gain.NOT_SHOWN),
            (24, 0.6, 0.7, -1.0, Gain.NOT_SHOWN),
            (24, float("nan"), float("nan"), float("nan"), Gain.NOT_SHOWN),
        ],
    )
    def test_cases(self, prompts: int, low: float, high: float, difference: float, gain: Gain) -> None:
        assert judge_gain(prompts=prompts, low=low, high=high, difference=difference, least=0.1) is gain

    def test_no_difference_is_rarely_called_one(self, tmp_path: Path) -> None:
        """Two models of one distribution, on the same prompts: at most about 5 % of verdicts."""
        random, verdicts = np.random.default_rng(0), []
        for trial in range(60):
            folder = made_up(tmp_path / str(trial), {"a": 0.0})
            again = base_scores() + random.normal(size=(PROMPTS, IMAGES))
            save_scores({"a": again.tolist()}, folder.samples, STEPS)
            verdicts.append(compared(folder).gain)
        assert sum(verdict is not Gain.NOT_SHOWN for verdict in verdicts) <= 7


class TestTieWidth:
    def test_is_a_tenth_of_the_spread_over_latents_of_one_prompt(self) -> None:
        scores = np.random.default_rng(1).normal(size=(4000, 1)) * 10 + np.random.default_rng(2).normal(size=(4000, 3))
        assert tie_width(scores) == pytest.approx(0.1, rel=0.03)
        assert tie_width(scores * 7 + 3) == pytest.approx(0.7, rel=0.03)

    def test_one_image_per_prompt_gives_the_spread_over_prompts(self) -> None:
        assert tie_width([[0.0], [2.0], [4.0]]) == pytest.approx(0.2)

    def test_missing_scores_and_constant_ones(self) -> None:
        assert tie_width([[1.0, 3.0, np.nan], [np.nan] * 3]) == pytest.approx(0.1 * np.sqrt(2))
        assert tie_width([[2.0, 2.0]]) == tie_width([[2.0]]) == tie_width(np.full((2, 2), np.nan)) == 0.0


class TestComparison:
    @pytest.mark.parametrize(("gain", "verdict"), [(0.6, Gain.BETTER), (-0.6, Gain.WORSE), (0.02, Gain.NOT_SHOWN)])
    def test_verdicts(self, tmp_path: Path, gain: float, verdict: Gain) -> None:
        comparison = compared(made_up(tmp_path / "run", {"a": gain}))
        assert comparison.gain is verdict
        assert (comparison.step, comparison.is_best) == (STEPS, False)
        assert comparison.rewards[0].difference.mean == pytest.approx(gain, abs=0.15)
        assert comparison.accuracy is not None
        assert comparison.accuracy.mean == pytest.approx(0.6)
        assert "step 100" in comparison.sentence

    def test_a_tiny_effect_that_is_certain_is_a_tie(self, tmp_path: Path) -> None:
        folder = made_up(tmp_path / "run", {"a": 0.0})
        save_scores({"a": (base_scores() + 0.01).tolist()}, folder.samples, STEPS)
        comparison = compared(folder)
        assert (comparison.gain, comparison.rewards[0].wins.tie) == (Gain.NOT_SHOWN, 1.0)

    def test_few_prompts_give_no_verdict(self, tmp_path: Path) -> None:
        comparison = compared(made_up(tmp_path / "run", {"a": 2.0}, prompts=9))
        assert comparison.gain is Gain.TOO_LITTLE
        assert "evaluation.num_prompts" in comparison.sentence

    def test_the_trained_reward_does_not_decide_beside_another(self, tmp_path: Path) -> None:
        online = {"method": "spo", "reward": "sum", "rewards": {"sum": {"terms": {"a": 1.0}}}}
        comparison = compared(made_up(tmp_path / "run", {"a": 2.0, "b": -0.6}, config=online))
        assert [gain.trained_on for gain in comparison.rewards] == [True, False]
        assert [gain.gain for gain in comparison.rewards] == [Gain.BETTER, Gain.WORSE]
        assert comparison.gain is Gain.WORSE

    def test_alone_the_trained_reward_decides_and_is_called_so(self, tmp_path: Path) -> None:
        comparison = compared(made_up(tmp_path / "run", {"a": 2.0}, config={"method": "spo", "reward": "a"}))
        assert (comparison.gain, comparison.rewards[0].trained_on) == (Gain.BETTER, True)
        assert "trained on" in comparison.sentence

    def test_rewards_that_disagree(self, tmp_path: Path) -> None:
        comparison = compared(made_up(tmp_path / "run", {"a": 0.8, "b": -0.8}))
        assert comparison.gain is Gain.NOT_SHOWN
        assert "disagree" in comparison.sentence

    def test_the_best_step_is_compared_where_its_weights_were_kept(self, tmp_path: Path) -> None:
        best = {"step": 50, "figure": "validation/accuracy", "value": 0.55}
        folder = made_up(tmp_path / "run", {"a": -2.0}, middle={"a": 1.0}, best=best)
        comparison = compared(folder)
        assert (comparison.step, comparison.is_best, comparison.gain) == (50, True, Gain.BETTER)

    def test_a_result_that_is_the_start_is_called_so(self, tmp_path: Path) -> None:
        best = {"step": 0, "figure": "validation/loss", "value": 0.69}
        comparison = compared(made_up(tmp_path / "run", {"a": 2.0}, best=best))
        assert (comparison.step, comparison.gain) == (0, Gain.NOT_SHOWN)
        assert "started from" in comparison.sentence

    def test_nothing_to_compare(self, tmp_path: Path) -> None:
        folder = made_up(tmp_path / "run", {"a": 1.0})
        folder.metrics.write_text(folder.metrics.read_text().splitlines(keepends=True)[0])
        assert compare_with_base(folder) is None

    def test_no_reward(self, tmp_path: Path) -> None:
        comparison = compared(made_up(tmp_path / "run", {}))
        assert (comparison.gain, comparison.rewards) == (Gain.TOO_LITTLE, ())
        assert "evaluation.rewards" in comparison.sentence

    @pytest.mark.parametrize("content", ["{", '{"a": [1, 2]}', '{"a": [["x"]]}', "[]"])
    def test_damaged_scores_are_named(self, tmp_path: Path, content: str) -> None:
        folder = made_up(tmp_path / "run", {"a": 1.0})
        scores_file(folder.samples, 0).write_text(content)
        with pytest.raises(RunFolderError, match=r"scores-000000\.json"):
            compare_with_base(folder)


def test_scores_survive_the_file(tmp_path: Path) -> None:
    save_scores({"a": [[1.5, float("nan")], [0.1, 2.0]]}, tmp_path, 7)
    np.testing.assert_array_equal(read_scores(tmp_path, 7)["a"], [[1.5, np.nan], [0.1, 2.0]])
    assert read_scores(tmp_path, 8) == {}
