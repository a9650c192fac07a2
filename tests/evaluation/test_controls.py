"""What is done at sampling: values, names, and the images of a policy in memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from seedpo.errors import ConfigError
from seedpo.evaluation.controls import SamplingControl
from seedpo.evaluation.drawing import Choice, controlled, draw_best, draw_samples
from seedpo.evaluation.image_evaluation import ImageEvaluation
from seedpo.evaluation.settings import EvaluationConfig
from seedpo.training.configuration import resolve_config
from seedpo.training.run import refuse_shards
from tests.evaluation.small_evaluations import drawing
from tests.models.tiny import PROMPTS, move, tiny_policy
from tests.toy_denoiser import ToyDenoiser

SETTINGS: dict[str, Any] = {"images_per_prompt": 2, "num_inference_steps": 3, "guidance_scale": 2.0, "seed": 7}


SHORT = ["a", "bb", "ccc"]
"""Prompts whose images the toy draws neither black nor white."""


def brightness(images: Tensor, prompts: Sequence[str]) -> Tensor:
    return images.mean((1, 2, 3))


class TestValues:
    @pytest.mark.parametrize(
        "values",
        [
            {"mixing": 0.0},
            {"mixing": -1.0},
            {"mixing": math.nan},
            {"mixing": math.inf},
            {"best_of": 0},
            {"best_of": 1001},
            {"strength": math.nan},
            {"strength": -math.inf},
            {"strength": 0.0, "mixing": 1.0},
        ],
    )
    def test_that_nothing_can_be_drawn_with(self, values: dict[str, Any]) -> None:
        with pytest.raises(ConfigError, match=next(iter(values))):
            SamplingControl(**values)

    def test_names(self) -> None:
        assert SamplingControl().name == ""
        assert SamplingControl(strength=0.5).name == "strength-0.5"
        assert SamplingControl(mixing=2, best_of=4).name == "mixing-2-best-of-4"
        names = {
            SamplingControl(strength=strength, mixing=mixing, best_of=count).name
            for strength in (0.5, 1.0)
            for mixing in (None, 1.0)
            for count in (1, 2)
        }
        assert len(names) == 8

    @pytest.mark.parametrize(
        ("keys", "named"),
        [
            ({"mixing": 0}, "mixing"),
            ({"best_of": 0}, "best_of"),
            ({"best_of": 2, "rewards": []}, "best_of"),
            ({"strength": 0, "mixing": 1}, "strength"),
            ({"strength": math.nan}, "strength"),
        ],
    )
    def test_of_a_run(self, keys: dict[str, Any], named: str) -> None:
        with pytest.raises(ConfigError, match=rf"evaluation\.{named} = ") as refused:
            resolve_config("spo", {"evaluation": keys})
        assert "{" not in str(refused.value)

    def test_shards_have_no_place_for_weights_of_another_strength(self) -> None:
        for adapter, strength, refused in (("full", 0.5, True), ("full", 1.0, False), ("lora", 0.5, False)):
            config = resolve_config("spo", {"adapter": adapter, "evaluation": {"strength": strength}})
            with pytest.raises(ConfigError, match=r"evaluation\.strength") if refused else nullcontext():
                refuse_shards(config)

    def test_a_run_draws_as_it_is(self) -> None:
        assert EvaluationConfig().control == SamplingControl()


class TestBestOfN:
    def test_is_the_best_of_its_candidates(self) -> None:
        """Image k of two is the best of k, k + 2 and k + 4."""
        best = draw_samples(
            ToyDenoiser(), SHORT, drawing(guidance_scale=1.0), Choice(best_of=3, reward=brightness)
        ).images
        every = draw_samples(ToyDenoiser(), SHORT, drawing(guidance_scale=1.0, images=6)).images
        scores = every.mean((2, 3, 4))
        assert scores.std(1).min() > 0.01
        for prompt in range(len(SHORT)):
            for image in range(2):
                first = max(range(image, 6, 2), key=lambda number: float(scores[prompt, number]))
                torch.testing.assert_close(best[prompt, image], every[prompt, first])

    def test_more_are_never_worse(self) -> None:
        means = []
        for count in (1, 2, 4, 8):
            images = draw_samples(
                ToyDenoiser(), SHORT, drawing(guidance_scale=1.0), Choice(best_of=count, reward=brightness)
            ).images
            means.append(images.mean((2, 3, 4)))
        assert torch.stack(means).diff(dim=0).min() >= 0
        assert (means[-1] > means[0]).float().mean() > 0.5

    def test_of_one_is_the_image_itself(self) -> None:
        plain = draw_samples(ToyDenoiser(), SHORT, drawing(guidance_scale=1.0))
        one = draw_samples(ToyDenoiser(), SHORT, drawing(guidance_scale=1.0), Choice(best_of=1, reward=brightness))
        assert torch.equal(plain.images, one.images)

    def test_images_that_are_not_finite_come_back(self) -> None:
        denoiser, calls = ToyDenoiser(), []

        def decode(latents: Tensor) -> Tensor:
            calls.append(1)
            return latents * (math.nan if len(calls) == 2 else 1.0)

        denoiser.decode = decode  # type: ignore[method-assign]
        images = draw_best(denoiser, PROMPTS, [(0, 0)], drawing(), Choice(best_of=3, reward=brightness))
        assert not torch.isfinite(images).all()


class TestPolicies:
    def evaluation(self, **changes: Any) -> ImageEvaluation:
        config = EvaluationConfig(**(SETTINGS | {"rewards": ("bright",)} | changes))
        return ImageEvaluation(PROMPTS[:2], config=config, rewards={"bright": brightness}, metrics={})

    def figure(self, policy: Any, folder: Path, control: SamplingControl) -> float:
        return self.evaluation().under(control)(policy, step=0, folder=folder)["reward/bright"]

    @pytest.mark.parametrize("adapter", ["lora", "full"])
    def test_each_control_moves_the_images_and_leaves_the_policy(self, tmp_path: Path, adapter: Any) -> None:
        policy = move(tiny_policy(adapter=adapter), scale=0.1)
        plain = self.figure(policy, tmp_path, SamplingControl())
        found = {
            control.name: self.figure(policy, tmp_path, control)
            for control in (
                SamplingControl(strength=0.5),
                SamplingControl(mixing=1.0),
                SamplingControl(best_of=3),
                SamplingControl(strength=0.5, mixing=2.0, best_of=2),
            )
        }
        assert len({plain, *found.values()}) == 5
        assert found["best-of-3"] > plain
        assert self.figure(policy, tmp_path, SamplingControl()) == plain

    def test_strength_0_is_the_model_before_training(self, tmp_path: Path) -> None:
        policy = move(tiny_policy(), scale=0.1)
        untrained = self.figure(tiny_policy(), tmp_path, SamplingControl())
        assert self.figure(policy, tmp_path, SamplingControl(strength=0.0)) == pytest.approx(untrained, abs=1e-6)
        with controlled(policy, SamplingControl(mixing=50.0)) as mixed:
            # Nearly all steps are those of the base model.
            images = draw_samples(mixed, PROMPTS[:2], self.evaluation().drawing).images
        assert float(images.mean()) == pytest.approx(untrained, abs=0.01)

    def test_two_processes_draw_what_one_draws(self) -> None:
        policy = move(tiny_policy(), scale=0.1)
        evaluation = self.evaluation(mixing=2.0, best_of=2, batch_size=1)
        whole = evaluation.draw(policy, rank=0, world=1)["batches"]
        parts = [evaluation.draw(policy, rank=rank, world=2)["batches"] for rank in range(2)]
        assert all(torch.equal(image, parts[row % 2][row // 2]) for row, image in enumerate(whole))

    def test_untrained_models_have_nothing_to_mix(self, tmp_path: Path) -> None:
        for control in (SamplingControl(mixing=1.0), SamplingControl(strength=0.5)):
            with pytest.raises(ConfigError, match=control.name):
                self.figure(ToyDenoiser(), tmp_path, control)

    def test_a_reward_must_pick(self, tmp_path: Path) -> None:
        evaluation = ImageEvaluation(PROMPTS[:2], config=EvaluationConfig(**SETTINGS), rewards={}, metrics={})
        with pytest.raises(ConfigError, match="best_of"):
            evaluation.under(SamplingControl(best_of=2))(ToyDenoiser(), step=0, folder=tmp_path)
