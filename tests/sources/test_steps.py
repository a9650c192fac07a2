from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from seedpo.config import SamplingConfig, StepPoolConfig
from seedpo.core.diffusion import predicted_original
from seedpo.core.transitions import ddim_transition
from seedpo.core.types import TransitionPairs
from seedpo.errors import SeedpoError
from seedpo.sources.steps import StepRollout, step_source
from tests.sources.toys import PROMPTS, ToyDenoiser, ToyReward, brightness, schedule, seeded

STEPS, PLAIN, CANDIDATES = 6, 2, 3
B = 4
ASKED = PROMPTS[:B]


def rollout(
    model: ToyDenoiser | None = None,
    reward: ToyReward | None = None,
    *,
    guidance_scale: float = 2.0,
    **settings: Any,
) -> StepRollout:
    defaults = {"candidates": CANDIDATES, "plain_steps": PLAIN, "min_gap": 0.0}
    return StepRollout(
        model or ToyDenoiser(),
        reward or ToyReward(),
        sampling=SamplingConfig(num_inference_steps=STEPS, guidance_scale=guidance_scale, eta=1.0),
        config=StepPoolConfig(**(defaults | settings)),
    )


class Replay:
    """A roll-out and all that the model and the scorer were asked in it."""

    def __init__(self, *, model: ToyDenoiser | None = None, score: Any = brightness, seed: int = 0, **settings: Any):
        self.model = model or ToyDenoiser()
        self.reward = ToyReward(score=score)
        self.pairs, self.observed = rollout(self.model, self.reward, **settings)(ASKED, generator=seeded(seed))
        self.timesteps, self.previous = self.model.schedule.timesteps(STEPS)

    def candidates(self, step: int) -> Tensor:
        """The candidates drawn at a step, (B, K, ...), as the model saw them when it looked ahead of them."""
        latents = self.model.asked[step + 1][0]
        return latents[len(latents) // 2 :].view(B, -1, *latents.shape[1:])

    def at(self, step: int) -> TransitionPairs:
        """The pairs of a step."""
        assert self.pairs is not None
        return self.pairs[self.pairs.timestep == self.timesteps[step]]

    def x(self, step: int) -> Tensor:
        """x_t of a step that made pairs for all prompts."""
        return self.at(step).chosen_latents


class TestPairs:
    def test_x_t_is_shared_and_the_sides_differ(self) -> None:
        pairs = Replay().pairs
        assert pairs is not None
        assert torch.equal(pairs.chosen_latents, pairs.rejected_latents)
        assert (pairs.chosen_next_latents != pairs.rejected_next_latents).flatten(1).any(1).all()

    def test_sides_are_the_best_and_the_worst_candidate(self) -> None:
        replay = Replay()
        assert len(replay.reward.scores) == STEPS - PLAIN
        for step in range(PLAIN, STEPS - 1):
            scores = replay.reward.scores[step - PLAIN].view(B, CANDIDATES)
            rows = torch.arange(B)
            drawn, pairs = replay.candidates(step), replay.at(step)
            assert torch.equal(pairs.chosen_next_latents, drawn[rows, scores.argmax(1)])
            assert torch.equal(pairs.rejected_next_latents, drawn[rows, scores.argmin(1)])
            assert (pairs.previous_timestep == replay.previous[step]).all()

    def test_plain_steps_make_no_pairs(self) -> None:
        replay = Replay(plain_steps=3)
        assert replay.pairs is not None
        assert sorted(set(replay.pairs.timestep.tolist()), reverse=True) == replay.timesteps[3:].tolist()
        assert len(replay.reward.scores) == STEPS - 3
        assert Replay(plain_steps=STEPS).pairs is None

    def test_candidates_are_drawn_from_the_step_of_the_shared_x_t(self) -> None:
        """Many candidates have the mean and the spread of the Gaussian that the loss will ask for."""
        replay = Replay(candidates=2000)
        schedule = replay.model.schedule
        for step in (PLAIN, STEPS - 2):
            x, time = replay.x(step), replay.timesteps[step].expand(B)
            embeds = replay.model.encode_prompts(ASKED)
            negative = replay.model.encode_prompts([""] * B)
            output = replay.model.predict(x, time, negative)
            output = output + 2.0 * (replay.model.predict(x, time, embeds) - output)
            expected = ddim_transition(output, x, time, replay.previous[step].expand(B), schedule, eta=1.0)
            drawn = replay.candidates(step)
            std = expected.std.view(-1, 1, 1, 1)
            assert ((drawn.mean(1) - expected.mean) / std).abs().max() < 4 / 2000**0.5
            torch.testing.assert_close(drawn.std(1), std.expand_as(expected.mean), rtol=0.08, atol=0)

    def test_every_row_has_its_prompt(self) -> None:
        replay = Replay()
        expected = replay.model.encode_prompts(ASKED).prompt_embeds
        for step in range(PLAIN, STEPS):
            pairs = replay.at(step)
            assert torch.equal(pairs.conditioning.prompt_embeds, expected)
            assert torch.equal(pairs.negative_conditioning.prompt_embeds, torch.zeros_like(expected))


class TestGap:
    @pytest.mark.parametrize("min_gap", [0.05, 0.2])
    def test_kept_if_the_softmax_of_best_and_worst_differs_enough(self, min_gap: float) -> None:
        """Only two scores count: the softmax over all candidates would keep fewer."""
        replay = Replay(score=lambda images, prompts: 4 * brightness(images, prompts), min_gap=min_gap, candidates=4)
        kept = []
        for scores in replay.reward.scores:
            rows = scores.view(B, 4)
            extremes = torch.softmax(torch.stack([rows.amax(1), rows.amin(1)]), 0)
            kept.append(extremes[0] - extremes[1] > min_gap)
        share = torch.stack(kept).float().mean()
        assert 0 < share < 1
        assert replay.observed["pairs_kept"] == pytest.approx(float(share))
        for step, rows in zip(range(PLAIN, STEPS), kept, strict=True):
            expected = replay.model.encode_prompts(ASKED)[rows].prompt_embeds
            assert torch.equal(replay.at(step).conditioning.prompt_embeds, expected)

    def test_ties_make_no_pairs(self) -> None:
        replay = Replay(score=lambda images, prompts: torch.ones(len(images)))
        assert replay.pairs is None
        assert replay.observed["pairs_kept"] == 0.0
        assert replay.observed["reward"] == 1.0


class TestWalk:
    def test_goes_on_from_one_of_the_candidates_each_equally_likely(self) -> None:
        chosen = []
        for seed in range(60):
            replay = Replay(seed=seed)
            for step in range(PLAIN, STEPS - 1):
                drawn, following = replay.candidates(step), replay.x(step + 1)
                same = (drawn == following[:, None]).flatten(2).all(2)
                assert (same.sum(1) == 1).all()
                chosen += same.long().argmax(1).tolist()
        counts = torch.bincount(torch.tensor(chosen), minlength=CANDIDATES)
        # 720 draws: each candidate 240 times, give or take four standard deviations (12.6).
        assert (counts - len(chosen) / CANDIDATES).abs().max() < 51

    def test_choice_does_not_depend_on_the_scores(self) -> None:
        """With the scores turned round, the same path is walked, and winners and losers change places."""
        forward, backward = Replay(), Replay(score=lambda images, prompts: -brightness(images, prompts))
        assert forward.pairs is not None
        assert backward.pairs is not None
        assert torch.equal(forward.pairs.chosen_latents, backward.pairs.chosen_latents)
        assert torch.equal(forward.pairs.chosen_next_latents, backward.pairs.rejected_next_latents)
        assert torch.equal(forward.pairs.rejected_next_latents, backward.pairs.chosen_next_latents)

    def test_plain_steps_follow_their_single_candidate(self) -> None:
        replay = Replay()
        assert replay.candidates(0).shape[1] == replay.candidates(1).shape[1] == 1
        assert torch.equal(replay.x(PLAIN), replay.candidates(PLAIN - 1)[:, 0])

    @pytest.mark.parametrize(("guidance_scale", "passes"), [(1.0, 1), (2.0, 2)])
    @pytest.mark.parametrize("last_step_has_density", [True, False])
    def test_rows_that_reach_the_network(self, guidance_scale: float, passes: int, last_step_has_density: bool) -> None:
        """The first x_T, one row behind each plain step, K behind each other step, none behind the last."""
        model = ToyDenoiser(schedule(last_step_has_density=last_step_has_density))
        rollout(model, guidance_scale=guidance_scale)(ASKED, generator=seeded())
        assert model.rows() == passes * B * (1 + PLAIN + (STEPS - 1 - PLAIN) * CANDIDATES)

    def test_a_last_step_without_density_makes_no_pair(self) -> None:
        replay = Replay(model=ToyDenoiser(schedule(last_step_has_density=False)))
        assert replay.pairs is not None
        assert set(replay.pairs.timestep.tolist()) == set(replay.timesteps[PLAIN:-1].tolist())
        assert len(replay.reward.scores) == STEPS - 1 - PLAIN

    def test_reproducible_from_the_generator(self) -> None:
        first, second, other = (Replay(seed=seed).pairs for seed in (4, 4, 5))
        assert first is not None
        assert second is not None
        assert other is not None
        assert torch.equal(first.chosen_next_latents, second.chosen_next_latents)
        assert torch.equal(first.rejected_next_latents, second.rejected_next_latents)
        assert not torch.equal(first.chosen_latents, other.chosen_latents)


class TestScoring:
    def test_candidates_are_judged_by_the_clean_image_predicted_from_them(self) -> None:
        replay = Replay()
        schedule = replay.model.schedule
        embeds = replay.model.encode_prompts(ASKED).repeat_interleave(CANDIDATES)
        negative = replay.model.encode_prompts([""] * B * CANDIDATES)
        for step in range(PLAIN, STEPS - 1):
            drawn = replay.candidates(step).flatten(0, 1)
            time = replay.timesteps[step + 1].expand(len(drawn))
            output = replay.model.predict(drawn, time, negative)
            output = output + 2.0 * (replay.model.predict(drawn, time, embeds) - output)
            clean = predicted_original(output, drawn, schedule.alpha_cumprod(time), "epsilon")
            call = step - PLAIN
            torch.testing.assert_close(replay.reward.images[call], replay.model.decode(clean))
            assert torch.equal(replay.reward.timesteps[call], time)
            assert replay.reward.prompts[call] == [prompt for prompt in ASKED for _ in range(CANDIDATES)]

    def test_last_candidates_are_clean_and_judged_at_time_step_0(self) -> None:
        replay = Replay()
        pairs, images = replay.at(STEPS - 1), replay.reward.images[-1].view(B, CANDIDATES, 3, 2, 2)
        assert torch.equal(replay.reward.timesteps[-1], torch.zeros(B * CANDIDATES, dtype=torch.int64))
        scores = replay.reward.scores[-1].view(B, CANDIDATES)
        rows = torch.arange(B)
        torch.testing.assert_close(replay.model.decode(pairs.chosen_next_latents), images[rows, scores.argmax(1)])
        torch.testing.assert_close(replay.model.decode(pairs.rejected_next_latents), images[rows, scores.argmin(1)])
        assert replay.observed["reward"] == pytest.approx(float(scores.mean()))
        assert replay.observed["reward_std"] == pytest.approx(float(scores.std(1).mean()))

    def test_a_score_that_is_not_a_number_names_the_prompt(self) -> None:
        def broken(images: Tensor, prompts: Any) -> Tensor:
            return torch.tensor([math.nan if prompt == "four" else 0.5 for prompt in prompts])

        with pytest.raises(SeedpoError, match="gave nan for an image of the prompt 'four'"):
            rollout(reward=ToyReward(score=broken))(ASKED, generator=seeded())

    def test_scores_of_another_shape_are_refused(self) -> None:
        reward = ToyReward(score=lambda images, prompts: torch.zeros(3))
        with pytest.raises(SeedpoError, match=r"scores of shape \(3,\) for 12 images"):
            rollout(reward=reward)(ASKED, generator=seeded())


@pytest.mark.parametrize("taken", [0, 1, 3, 7])
def test_restored_source_goes_on(taken: int) -> None:
    def source() -> Any:
        return step_source(
            ToyDenoiser(),
            ToyReward(score=lambda images, prompts: 10 * brightness(images, prompts)),
            PROMPTS,
            sampling=SamplingConfig(num_inference_steps=STEPS),
            config=StepPoolConfig(candidates=3, plain_steps=1, min_gap=0.1, prompts_per_rollout=2),
            batch_size=3,
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
        assert torch.equal(again.rejected_next_latents, batch.rejected_next_latents)
        assert torch.equal(again.conditioning.prompt_embeds, batch.conditioning.prompt_embeds)
    assert other.metrics() == one.metrics()
