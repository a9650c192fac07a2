from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from seedpo.methods.settings import Distance, SamplingConfig, StepPoolConfig, TrajectoryConfig
from seedpo.methods.sources.diversity import LEAST_DISTANCE, distances, with_bonus
from seedpo.methods.sources.embeddings import PromptEmbeddings
from seedpo.methods.sources.rolled import as_pairs
from seedpo.methods.sources.steps import StepRollout
from seedpo.methods.sources.trajectories import TrajectoryRollout
from tests.methods.sources.toys import PROMPTS, ToyDenoiser, ToyReward, brightness, seeded

ALL: tuple[Distance, ...] = ("mean", "nearest", "log_nearest")


def images(prompts: int = 3, count: int = 4) -> Tensor:
    return torch.rand(prompts, count, 3, 5, 4, generator=seeded(1))


def directly(shown: Tensor, distance: Distance) -> Tensor:
    """Every distance by itself, in plain loops."""
    rows = []
    for of_prompt in shown:
        for one, image in enumerate(of_prompt):
            apart = [
                math.sqrt((image - other).double().square().mean()) for n, other in enumerate(of_prompt) if n != one
            ]
            values = {"mean": sum(apart) / len(apart), "nearest": min(apart), "log_nearest": math.log(min(apart))}
            rows.append(values[distance])
    return torch.tensor(rows).view(shown.shape[:2])


class TestDistances:
    @pytest.mark.parametrize("distance", ALL)
    def test_are_those_computed_one_by_one(self, distance: Distance) -> None:
        torch.testing.assert_close(distances(images(), distance), directly(images(), distance), rtol=1e-5, atol=1e-6)

    def test_black_and_white_are_at_distance_1(self) -> None:
        two = torch.stack([torch.zeros(3, 2, 2), torch.ones(3, 2, 2)])[None]
        assert distances(two, "mean").tolist() == distances(two, "nearest").tolist() == [[1.0, 1.0]]
        assert distances(two, "log_nearest").tolist() == [[0.0, 0.0]]

    def test_copies_are_at_distance_0_and_have_a_logarithm(self) -> None:
        same = images()[:, :1].expand(-1, 30, -1, -1, -1)
        assert distances(same, "mean").abs().max() == distances(same, "nearest").abs().max() == 0
        assert torch.equal(distances(same, "log_nearest"), torch.full((3, 30), LEAST_DISTANCE).log())

    def test_of_two_clusters_the_smaller_one_is_farther_from_the_others(self) -> None:
        """By the mean; by the nearest neighbour a lone image is far and both clusters of copies are at 0."""
        dark, light = torch.zeros(3, 2, 2), torch.ones(3, 2, 2)
        shown = torch.stack([dark, dark, dark, light, light])[None]
        assert distances(shown, "mean")[0].tolist() == pytest.approx([0.5, 0.5, 0.5, 0.75, 0.75])
        assert distances(shown, "nearest")[0].tolist() == [0.0] * 5
        assert distances(shown[:, :4], "nearest")[0].tolist() == [0.0, 0.0, 0.0, 1.0]

    def test_half_precision_images_are_read_as_float32(self) -> None:
        found = distances(images().bfloat16(), "mean")
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, directly(images().bfloat16().float(), "mean"), rtol=1e-5, atol=1e-6)


class TestBonus:
    def test_weight_0_is_the_reward_itself(self) -> None:
        rewards = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
        ranked = with_bonus(rewards, torch.zeros(0), weight=0.0, distance="mean")
        assert ranked.scores is rewards
        assert ranked.observed == {}

    @pytest.mark.parametrize("distance", ALL)
    def test_adds_weight_times_distance(self, distance: Distance) -> None:
        rewards = torch.randn(3, 4, generator=seeded(2))
        ranked = with_bonus(rewards, images().flatten(0, 1), weight=7.0, distance=distance)
        bonus = 7 * directly(images(), distance)
        torch.testing.assert_close(ranked.scores, rewards + bonus, rtol=1e-5, atol=1e-5)
        assert ranked.observed["diversity_bonus"] == pytest.approx(float(bonus.mean()), rel=1e-4)
        assert ranked.observed["diversity_bonus_std"] == pytest.approx(float(bonus.std(1).mean()), rel=1e-4)

    @pytest.mark.parametrize(
        ("section", "count", "message"),
        [
            (TrajectoryConfig, {"images_per_prompt": 2}, "set trajectories.images_per_prompt to 3 or more"),
            (StepPoolConfig, {"candidates": 2}, "set steps.candidates to 3 or more"),
        ],
    )
    def test_two_images_are_refused(self, section: Any, count: dict[str, int], message: str) -> None:
        """Each is as far from the other as the other from it: the bonus could never change an order."""
        section(**count)
        with pytest.raises(ValidationError, match=message):
            section(**count, diversity_bonus=1.0)

    @pytest.mark.parametrize("section", [TrajectoryConfig, StepPoolConfig])
    @pytest.mark.parametrize(
        "wrong", [{"diversity_bonus": -0.1}, {"diversity_bonus": math.inf}, {"diversity_distance": "clip"}]
    )
    def test_bad_values_are_refused(self, section: Any, wrong: dict[str, Any]) -> None:
        with pytest.raises(ValidationError, match=next(iter(wrong))):
            section(**wrong)


def trajectories(weight: float, reward: ToyReward, **settings: Any) -> Any:
    return TrajectoryRollout(
        ToyDenoiser(),
        reward,
        sampling=SamplingConfig(num_inference_steps=4, guidance_scale=2.0),
        config=TrajectoryConfig(images_per_prompt=4, diversity_bonus=weight, **settings),
    )(PROMPTS, generator=seeded())


def steps(weight: float, reward: ToyReward, **settings: Any) -> Any:
    return StepRollout(
        ToyDenoiser(),
        reward,
        sampling=SamplingConfig(num_inference_steps=4, guidance_scale=2.0),
        config=StepPoolConfig(candidates=4, plain_steps=2, min_gap=0.0, diversity_bonus=weight, **settings),
        preview_decode=ToyDenoiser().decode,
    )(PROMPTS, generator=seeded())


class TestInTrajectories:
    @pytest.mark.parametrize("distance", ALL)
    @pytest.mark.parametrize("weight", [3.0, 1e4])
    def test_every_pair_is_won_by_the_higher_sum(self, weight: float, distance: Distance) -> None:
        reward = ToyReward()
        made, _ = trajectories(weight, reward, diversity_distance=distance)
        shown = reward.images[0].view(len(PROMPTS), 4, *reward.images[0].shape[1:])
        total = (reward.scores[0].view(-1, 4) + weight * directly(shown, distance)).flatten()
        pairs = as_pairs(made, PromptEmbeddings(ToyDenoiser()))
        last = pairs[pairs.timestep == pairs.timestep.min()]
        assert len(last) == 6 * len(PROMPTS)
        reordered = 0
        for chosen, rejected in zip(last.chosen_next_latents, last.rejected_next_latents, strict=True):
            rows = [
                int((ToyDenoiser().decode(side) - reward.images[0]).flatten(1).norm(dim=1).argmin())
                for side in (chosen, rejected)
            ]
            assert total[rows[0]] > total[rows[1]]
            reordered += int(reward.scores[0][rows[0]] < reward.scores[0][rows[1]])
        assert reordered > 0, "else the bonus did nothing"

    def test_reward_figures_stay_those_of_the_raw_reward(self) -> None:
        (_, plain), (_, with_it) = trajectories(0.0, ToyReward()), trajectories(3.0, ToyReward())
        assert (with_it["reward"], with_it["reward_std"]) == (plain["reward"], plain["reward_std"])
        assert with_it.keys() - plain.keys() == {"diversity_bonus", "diversity_bonus_std"}
        assert with_it["diversity_bonus"] > 0


class TestInSteps:
    @pytest.mark.parametrize("distance", ALL)
    def test_sides_are_best_and_worst_by_the_sum(self, distance: Distance) -> None:
        reward = ToyReward()
        made, observed = steps(20.0, reward, diversity_distance=distance, preview_checks=0)
        pairs, rows = as_pairs(made, PromptEmbeddings(ToyDenoiser())), torch.arange(len(PROMPTS))
        shown = reward.images[-1].view(len(PROMPTS), 4, *reward.images[-1].shape[1:])
        total = reward.scores[-1].view(-1, 4) + 20 * directly(shown, distance)
        last = pairs[pairs.timestep == pairs.timestep.min()]
        torch.testing.assert_close(torch.sigmoid(last.chosen_next_latents), shown[rows, total.argmax(1)])
        torch.testing.assert_close(torch.sigmoid(last.rejected_next_latents), shown[rows, total.argmin(1)])
        assert (total.argmax(1) != reward.scores[-1].view(-1, 4).argmax(1)).any(), "else the bonus did nothing"
        assert observed["reward"] == pytest.approx(float(reward.scores[-1].mean()))
        assert observed["diversity_bonus"] == pytest.approx(20 * float(directly(shown, distance).mean()), rel=1e-4)

    def test_previews_are_compared_by_their_rewards_alone(self) -> None:
        """The same decoding agrees with itself, whoever wins by the bonus."""
        _, observed = steps(1e4, ToyReward(score=lambda shown, prompts: brightness(shown, prompts)), preview_checks=1)
        assert observed["preview_agreement"] == 1.0
