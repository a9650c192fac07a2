from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from seedpo.config import SamplingConfig, TrajectoryConfig
from seedpo.core.types import TransitionPairs
from seedpo.errors import SeedpoError
from seedpo.sources.trajectories import TrajectoryRollout, trajectory_source
from tests.sources.toys import PROMPTS, SHAPE, ToyDenoiser, ToyReward, brightness, schedule, seeded

STEPS = 5


def rollout(
    model: ToyDenoiser | None = None,
    reward: ToyReward | None = None,
    *,
    guidance_scale: float = 2.0,
    eta: float = 1.0,
    **settings: Any,
) -> TrajectoryRollout:
    return TrajectoryRollout(
        model or ToyDenoiser(),
        reward or ToyReward(),
        sampling=SamplingConfig(num_inference_steps=STEPS, guidance_scale=guidance_scale, eta=eta),
        config=TrajectoryConfig(**settings),
    )


def pairs_of(made: tuple[TransitionPairs | None, Any]) -> TransitionPairs:
    assert made[0] is not None
    return made[0]


def steps_by_pair(pairs: TransitionPairs, steps: int) -> list[TransitionPairs]:
    """Each pair's steps from the noisiest on."""
    by_pair = [pairs[slice(start, start + steps)] for start in range(0, len(pairs), steps)]
    return [one[one.timestep.argsort(descending=True)] for one in by_pair]


def final(pair: TransitionPairs) -> tuple[Tensor, Tensor]:
    return pair.chosen_next_latents[-1:], pair.rejected_next_latents[-1:]


class TestTrajectories:
    def test_images_of_a_prompt_share_their_first_latents(self) -> None:
        model = ToyDenoiser()
        rollout(model, images_per_prompt=3)(PROMPTS[:4], generator=seeded())
        first = model.asked[0][0]
        assert len(first) == 2 * 12, "the negative prompts first"
        start = first[12:].view(4, 3, *SHAPE)
        assert torch.equal(start, start[:, :1].expand_as(start))
        assert all((start[one, 0] != start[other, 0]).all() for one, other in itertools.combinations(range(4), 2))

    def test_pairs_start_together_and_part(self) -> None:
        pairs = pairs_of(rollout(images_per_prompt=2)(PROMPTS[:3], generator=seeded()))
        for pair in steps_by_pair(pairs, STEPS):
            assert torch.equal(pair.chosen_latents[0], pair.rejected_latents[0])
            assert (pair.chosen_latents[1:] != pair.rejected_latents[1:]).flatten(1).all()

    @pytest.mark.parametrize(("last_step_has_density", "steps"), [(True, STEPS), (False, STEPS - 1)])
    def test_every_step_with_a_density_and_no_other(self, last_step_has_density: bool, steps: int) -> None:
        model = ToyDenoiser(schedule(last_step_has_density=last_step_has_density))
        pairs = pairs_of(rollout(model)(PROMPTS[:3], generator=seeded()))
        timesteps, previous = model.schedule.timesteps(STEPS)
        assert len(pairs) == 3 * steps
        for pair in steps_by_pair(pairs, steps):
            assert torch.equal(pair.timestep, timesteps[:steps])
            assert torch.equal(pair.previous_timestep, previous[:steps])
            for side in ("chosen", "rejected"):
                latents, following = getattr(pair, f"{side}_latents"), getattr(pair, f"{side}_next_latents")
                assert torch.equal(latents[1:], following[:-1]), "a step starts where the one before it ended"
            for name in ("conditioning", "negative_conditioning"):
                embeds = getattr(pair, name).prompt_embeds
                assert torch.equal(embeds, embeds[:1].expand_as(embeds))

    def test_every_row_has_its_prompt(self) -> None:
        model = ToyDenoiser()
        pairs = pairs_of(rollout(model, images_per_prompt=3)(PROMPTS[:2], generator=seeded()))
        expected = model.encode_prompts(PROMPTS[:2]).prompt_embeds.repeat_interleave(3 * STEPS, 0)
        assert torch.equal(pairs.conditioning.prompt_embeds, expected)
        assert torch.equal(pairs.negative_conditioning.prompt_embeds, torch.zeros_like(expected))

    @pytest.mark.parametrize(("guidance_scale", "passes"), [(1.0, 1), (2.0, 2)])
    def test_cost_is_one_forward_per_image_and_step(self, guidance_scale: float, passes: int) -> None:
        model = ToyDenoiser()
        rollout(model, guidance_scale=guidance_scale, images_per_prompt=3)(PROMPTS[:2], generator=seeded())
        assert model.rows() == passes * 2 * 3 * STEPS

    def test_reproducible_from_the_generator(self) -> None:
        first, second = (pairs_of(rollout()(PROMPTS[:3], generator=seeded(4))) for _ in range(2))
        other = pairs_of(rollout()(PROMPTS[:3], generator=seeded(5)))
        assert torch.equal(first.chosen_next_latents, second.chosen_next_latents)
        assert torch.equal(first.timestep, second.timestep)
        assert not torch.equal(first.chosen_next_latents.sort(0)[0], other.chosen_next_latents.sort(0)[0])


class TestRanking:
    @pytest.mark.parametrize("images", [2, 3, 5])
    def test_every_two_images_make_a_pair_won_by_the_higher_reward(self, images: int) -> None:
        model, reward = ToyDenoiser(), ToyReward()
        made = rollout(model, reward, images_per_prompt=images)(PROMPTS[:2], generator=seeded())
        pairs = steps_by_pair(pairs_of(made), STEPS)
        assert len(pairs) == 2 * images * (images - 1) // 2
        assert reward.prompts == [[prompt for prompt in PROMPTS[:2] for _ in range(images)]]
        assert reward.images[0].shape == (2 * images, *SHAPE)
        seen: set[tuple[int, int]] = set()
        for pair in pairs:
            rows = [
                next(row for row, image in enumerate(reward.images[0]) if torch.allclose(model.decode(side)[0], image))
                for side in final(pair)
            ]
            assert reward.scores[0][rows[0]] > reward.scores[0][rows[1]]
            assert rows[0] // images == rows[1] // images, "two images of one prompt"
            seen.add((min(rows), max(rows)))
        assert len(seen) == len(pairs)

    @pytest.mark.parametrize("min_gap", [0.0, 0.05, 0.5])
    def test_only_clear_pairs_are_kept(self, min_gap: float) -> None:
        model, reward = ToyDenoiser(), ToyReward(score=lambda images, prompts: 8.0 * brightness(images, prompts))
        made, observed = rollout(model, reward, images_per_prompt=4, min_gap=min_gap)(PROMPTS, generator=seeded())
        assert made is not None
        scores = reward.scores[0].view(len(PROMPTS), 4)
        gaps = [
            float(torch.softmax(row[[one, other]], 0).diff().abs())
            for row in scores
            for one, other in itertools.combinations(range(4), 2)
        ]
        expected = sum(gap > min_gap for gap in gaps)
        assert 0 < expected <= len(gaps)
        assert len(made) == expected * STEPS
        assert observed["pairs_kept"] == pytest.approx(expected / len(gaps))
        for pair in steps_by_pair(made, STEPS):
            values = torch.cat([8.0 * brightness(model.decode(side), []) for side in final(pair)])
            assert torch.softmax(values, 0)[0] - torch.softmax(values, 0)[1] > min_gap

    def test_ties_make_no_pairs(self) -> None:
        reward = ToyReward(score=lambda images, prompts: torch.zeros(len(images)))
        made, observed = rollout(reward=reward)(PROMPTS, generator=seeded())
        assert made is None
        assert observed["pairs_kept"] == 0.0

    def test_what_is_observed(self) -> None:
        reward = ToyReward()
        _, observed = rollout(reward=reward, images_per_prompt=3)(PROMPTS[:4], generator=seeded())
        scores = reward.scores[0].view(4, 3)
        assert observed["reward"] == pytest.approx(float(scores.mean()))
        assert observed["reward_std"] == pytest.approx(float(scores.std(1).mean()))

    def test_a_reward_that_is_not_a_number_names_the_prompt(self) -> None:
        def broken(images: Tensor, prompts: Any) -> Tensor:
            return torch.tensor([math.nan if prompt == "three" else 0.5 for prompt in prompts])

        with pytest.raises(SeedpoError, match="gave nan for an image of the prompt 'three'"):
            rollout(reward=ToyReward(score=broken))(PROMPTS, generator=seeded())

    def test_a_reward_of_another_shape_is_refused(self) -> None:
        reward = ToyReward(score=lambda images, prompts: torch.zeros(len(images), 1))
        with pytest.raises(SeedpoError, match=r"scores of shape \(14, 1\) for 14 images"):
            rollout(reward=reward)(PROMPTS, generator=seeded())


class TestStepsPerPair:
    def test_some_steps_of_each_pair(self) -> None:
        model = ToyDenoiser()
        pairs = pairs_of(rollout(model, images_per_prompt=4, steps_per_pair=2)(PROMPTS, generator=seeded()))
        assert len(pairs) == len(PROMPTS) * 6 * 2
        drawn = pairs.timestep.view(-1, 2)
        assert (drawn[:, 0] != drawn[:, 1]).all()
        assert set(drawn.flatten().tolist()) == set(model.schedule.timesteps(STEPS)[0].tolist())
        assert len({tuple(sorted(row)) for row in drawn.tolist()}) > 5

    def test_no_more_than_there_are(self) -> None:
        pairs = pairs_of(rollout(steps_per_pair=100)(PROMPTS[:2], generator=seeded()))
        assert len(pairs) == 2 * STEPS


@pytest.mark.parametrize("taken", [0, 2, 5])
def test_restored_source_goes_on(taken: int) -> None:
    def source() -> Any:
        return trajectory_source(
            ToyDenoiser(),
            ToyReward(),
            PROMPTS,
            sampling=SamplingConfig(num_inference_steps=STEPS),
            config=TrajectoryConfig(images_per_prompt=3, prompts_per_rollout=2, updates_per_rollout=2),
            batch_size=4,
            seed=9,
        )

    one, other = source(), source()
    for _ in range(taken):
        one.next_batch()
    state = one.state()
    expected = [one.next_batch() for _ in range(20)]
    other.next_batch()
    other.restore(state)
    for batch in expected:
        again = other.next_batch()
        assert torch.equal(again.timestep, batch.timestep)
        assert torch.equal(again.chosen_next_latents, batch.chosen_next_latents)
        assert torch.equal(again.rejected_latents, batch.rejected_latents)
        assert torch.equal(again.conditioning.prompt_embeds, batch.conditioning.prompt_embeds)
    assert other.metrics() == one.metrics()
