from __future__ import annotations

import itertools
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from seedpo.methods.settings import SamplingConfig, StepPoolConfig
from seedpo.methods.sources.embeddings import PromptEmbeddings
from seedpo.methods.sources.step_pairs import StepPairs, step_batch
from seedpo.methods.sources.steps import Decode, StepRollout, step_source
from seedpo.training.codec import load_tree, save_tree
from tests.methods.pair_rows import PairRows, pair_rows
from tests.methods.sources.toys import PROMPTS, ToyDenoiser, ToyPolicy, ToyReward, brightness, schedule, seeded

STEPS, PLAIN, CANDIDATES = 6, 2, 3
B = 4
ASKED = PROMPTS[:B]


def rollout(
    model: ToyDenoiser | None = None,
    reward: ToyReward | None = None,
    *,
    guidance_scale: float = 2.0,
    preview_decode: Decode | None = None,
    **settings: Any,
) -> StepRollout:
    defaults = {"candidates": CANDIDATES, "plain_steps": PLAIN, "min_gap": 0.0}
    return StepRollout(
        model or ToyDenoiser(),
        reward or ToyReward(),
        sampling=SamplingConfig(num_inference_steps=STEPS, guidance_scale=guidance_scale, eta=1.0),
        config=StepPoolConfig(**(defaults | settings)),
        preview_decode=preview_decode,
    )


def pairs_of(rolled: StepPairs) -> PairRows:
    return pair_rows(step_batch(rolled, PromptEmbeddings(ToyDenoiser()), share_between_pairs=False))


class Replay:
    """A roll-out and all that the model and the scorer were asked in it."""

    def __init__(self, *, model: ToyDenoiser | None = None, score: Any = brightness, seed: int = 0, **settings: Any):
        self.model = model or ToyDenoiser()
        self.reward = ToyReward(score=score)
        rolled, self.observed = rollout(self.model, self.reward, **settings)(ASKED, generator=seeded(seed))
        self.pairs = None if rolled is None else pairs_of(rolled)
        self.timesteps, self.previous = self.model.process.timesteps(STEPS)

    def candidates(self, step: int) -> Tensor:
        """The candidates drawn at a step, (B, K, ...), as the model saw them when it looked ahead of them."""
        latents = self.model.asked[step + 1][0]
        return latents[len(latents) // 2 :].view(B, -1, *latents.shape[1:])

    def at(self, step: int) -> PairRows:
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
            assert (pairs.next_timestep == replay.previous[step]).all()

    def test_plain_steps_make_no_pairs(self) -> None:
        replay = Replay(plain_steps=3)
        assert replay.pairs is not None
        assert sorted(set(replay.pairs.timestep.tolist()), reverse=True) == replay.timesteps[3:].tolist()
        assert len(replay.reward.scores) == STEPS - 3
        assert Replay(plain_steps=STEPS).pairs is None

    def test_candidates_are_drawn_from_the_step_of_the_shared_x_t(self) -> None:
        """Many candidates have the mean and the spread of the Gaussian that the loss will ask for."""
        replay = Replay(candidates=2000)
        schedule = replay.model.process
        for step in (PLAIN, STEPS - 2):
            x, time = replay.x(step), replay.timesteps[step].expand(B)
            embeds = replay.model.encode_prompts(ASKED)
            negative = replay.model.encode_prompts([""] * B)
            output = replay.model.predict(x, time, negative)
            output = output + 2.0 * (replay.model.predict(x, time, embeds) - output)
            expected = schedule.step(output, x, time, replay.previous[step].expand(B), eta=1.0)
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
        schedule = replay.model.process
        embeds = replay.model.encode_prompts(ASKED).repeat_interleave(CANDIDATES)
        negative = replay.model.encode_prompts([""] * B * CANDIDATES)
        for step in range(PLAIN, STEPS - 1):
            drawn = replay.candidates(step).flatten(0, 1)
            time = replay.timesteps[step + 1].expand(len(drawn))
            output = replay.model.predict(drawn, time, negative)
            output = output + 2.0 * (replay.model.predict(drawn, time, embeds) - output)
            clean = schedule.clean(output, drawn, time)
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


class TestInnerSteps:
    """Candidates walk on by themselves; 6 steps, 2 of them plain: blocks of 1 + inner steps, the last one cut."""

    @pytest.mark.parametrize(("inner", "blocks"), [(1, [(2, 3), (4, 5)]), (2, [(2, 3, 4), (5,)]), (9, [(2, 3, 4, 5)])])
    def test_every_step_of_a_block_makes_a_pair_and_the_first_shares_x_t(
        self, inner: int, blocks: list[tuple[int, ...]]
    ) -> None:
        replay = Replay(inner_steps=inner)
        assert len(replay.reward.scores) == len(blocks)
        for block in blocks:
            for step in block:
                pairs = replay.at(step)
                assert len(pairs) == B
                shared = (pairs.chosen_latents == pairs.rejected_latents).flatten(1).all(1)
                assert shared.tolist() == [step == block[0]] * B
                assert (pairs.next_timestep == replay.previous[step]).all()
            for before, after in itertools.pairwise(block):
                for side in ("chosen", "rejected"):
                    ended = getattr(replay.at(before), f"{side}_next_latents")
                    assert torch.equal(ended, getattr(replay.at(after), f"{side}_latents")), "each walks on by itself"

    def test_as_published_a_quarter_of_the_transitions_shares_x_t(self) -> None:
        """20 steps, 4 plain, 3 inner: 16 transitions per prompt, of which 4 start at a shared x_t."""
        made, _ = StepRollout(
            ToyDenoiser(),
            ToyReward(),
            sampling=SamplingConfig(num_inference_steps=20, guidance_scale=2.0),
            config=StepPoolConfig(candidates=2, plain_steps=4, inner_steps=3, min_gap=0.0),
        )(ASKED, generator=seeded())
        assert made is not None
        pairs = pairs_of(made)
        shared = (pairs.chosen_latents == pairs.rejected_latents).flatten(1).all(1)
        assert (len(pairs), int(shared.sum())) == (16 * B, 4 * B)

    def test_sides_are_the_walks_that_ended_best_and_worst(self) -> None:
        """A block's candidates are judged where they end, at the time step of the next block."""
        replay = Replay(inner_steps=1)
        scores = replay.reward.scores[0].view(B, CANDIDATES)
        rows = torch.arange(B)
        ends = replay.candidates(3)
        assert torch.equal(replay.at(3).chosen_next_latents, ends[rows, scores.argmax(1)])
        assert torch.equal(replay.at(3).rejected_next_latents, ends[rows, scores.argmin(1)])
        time = replay.reward.timesteps[0]
        assert time is not None
        assert (time == replay.timesteps[4]).all()

    def test_goes_on_from_the_end_of_one_of_the_walks(self) -> None:
        replay = Replay(inner_steps=1)
        same = (replay.candidates(3) == replay.x(4)[:, None]).flatten(2).all(2)
        assert (same.sum(1) == 1).all()

    def test_walks_part_by_their_own_noise(self) -> None:
        pairs = Replay(inner_steps=3).at(3)
        assert (pairs.chosen_next_latents != pairs.rejected_next_latents).flatten(1).all(1).all()

    @pytest.mark.parametrize("last_step_has_density", [True, False])
    def test_only_steps_with_a_density_make_pairs(self, last_step_has_density: bool) -> None:
        replay = Replay(model=ToyDenoiser(schedule(last_step_has_density=last_step_has_density)), inner_steps=1)
        assert replay.pairs is not None
        steps = replay.timesteps[PLAIN:] if last_step_has_density else replay.timesteps[PLAIN:-1]
        assert set(replay.pairs.timestep.tolist()) == set(steps.tolist())
        assert len(replay.reward.scores) == 2, "the walk to the clean image is judged all the same"

    @pytest.mark.parametrize("inner", [0, 1, 3])
    def test_rows_that_reach_the_network(self, inner: int) -> None:
        """K rows behind every step after the plain ones, inner or not, and none behind the last."""
        model = ToyDenoiser()
        rollout(model, guidance_scale=1.0, inner_steps=inner)(ASKED, generator=seeded())
        assert model.rows() == B * (1 + PLAIN + (STEPS - 1 - PLAIN) * CANDIDATES)


class TestReference:
    @pytest.mark.parametrize(("inner", "starts"), [(0, 4), (1, 2 + 2 * 2), (3, 1 + 3 * 2)])
    @pytest.mark.parametrize(("guidance_scale", "passes"), [(1.0, 1), (2.0, 2)])
    def test_one_forward_per_x_t(self, guidance_scale: float, passes: int, inner: int, starts: int) -> None:
        """A shared x_t once, the others once for each side."""
        model = ToyPolicy()
        replay = Replay(model=model, guidance_scale=guidance_scale, inner_steps=inner)
        assert model.reference_rows() == passes * B * starts
        assert replay.pairs is not None
        assert replay.pairs.chosen_reference_log_prob is not None

    def test_of_kept_pairs_only(self) -> None:
        model = ToyPolicy()
        replay = Replay(
            model=model, guidance_scale=1.0, score=lambda images, prompts: 4 * brightness(images, prompts), min_gap=0.2
        )
        assert replay.pairs is not None
        assert model.reference_rows() == len(replay.pairs) < B * (STEPS - PLAIN)


class TestPreviews:
    def test_are_decoded_by_what_is_handed_in(self) -> None:
        dim = Replay(preview_decode=lambda latents: torch.sigmoid(latents) / 2, preview_checks=0)
        plain = Replay()
        for found, expected in zip(dim.reward.images, plain.reward.images, strict=True):
            torch.testing.assert_close(found, expected / 2)
        assert "preview_agreement" not in dim.observed

    def test_agreement_is_the_share_of_pairs_that_keep_their_winner(self, caplog: pytest.LogCaptureFixture) -> None:
        def decode(latents: Tensor) -> Tensor:
            """Darker where the first channel is bright: another order for some."""
            images = torch.sigmoid(latents)
            return images - 1.8 * images[:, :1]

        caplog.set_level(logging.INFO)
        replay = Replay(preview_decode=decode, preview_checks=1)
        assert replay.pairs is not None
        per_step = STEPS - PLAIN
        assert len(replay.reward.scores) == 2 * per_step
        alike = []
        for check in range(per_step):
            own = replay.reward.scores[2 * check + 1].view(-1, 2)
            alike += (own[:, 0] > own[:, 1]).tolist()
        share = sum(alike) / len(alike)
        assert len(alike) == len(replay.pairs)
        assert 0 < share < 1
        assert replay.observed["preview_agreement"] == share
        assert f"roll-out 1: preview_vae and the model's own autoencoder rank {100 * share:.1f} %" in caplog.text

    def test_the_same_decoding_agrees_throughout(self) -> None:
        assert Replay(preview_decode=torch.sigmoid).observed["preview_agreement"] == 1.0

    def test_only_the_first_roll_outs_are_checked(self) -> None:
        for number, checked in ((0, True), (1, True), (2, False)):
            made = rollout(preview_decode=torch.sigmoid, preview_checks=2)(ASKED, generator=seeded(), number=number)
            assert ("preview_agreement" in made[1]) == checked

    def test_the_check_draws_nothing(self) -> None:
        """A run with and one without the check see the same pairs."""
        first, second = (Replay(preview_decode=torch.sigmoid, preview_checks=count).pairs for count in (0, 1))
        assert first is not None
        assert second is not None
        assert torch.equal(first.chosen_next_latents, second.chosen_next_latents)


@pytest.mark.parametrize("inner_steps", [0, 2])
@pytest.mark.parametrize("taken", [0, 1, 3, 7])
def test_restored_source_goes_on(tmp_path: Path, taken: int, inner_steps: int) -> None:
    def source() -> Any:
        return step_source(
            ToyPolicy(),
            ToyReward(score=lambda images, prompts: 10 * brightness(images, prompts)),
            PROMPTS,
            sampling=SamplingConfig(num_inference_steps=STEPS),
            config=StepPoolConfig(
                candidates=3, plain_steps=1, min_gap=0.1, prompts_per_rollout=2, inner_steps=inner_steps
            ),
            batch_size=3,
            seed=9,
        )

    one, other = source(), source()
    for _ in range(taken):
        one.next_batch()
    save_tree(one.state(), tmp_path / "state")
    expected = [one.next_batch() for _ in range(20)]
    other.next_batch()
    other.restore(load_tree(tmp_path / "state"))
    for batch in map(pair_rows, expected):
        again = pair_rows(other.next_batch())
        assert torch.equal(again.timestep, batch.timestep)
        assert torch.equal(again.chosen_latents, batch.chosen_latents)
        assert torch.equal(again.chosen_next_latents, batch.chosen_next_latents)
        assert torch.equal(again.rejected_next_latents, batch.rejected_next_latents)
        assert torch.equal(again.chosen_reference_log_prob, batch.chosen_reference_log_prob)
        assert torch.equal(again.conditioning.prompt_embeds, batch.conditioning.prompt_embeds)
    assert other.metrics() == one.metrics()
