from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from seedpo.core.sampling import Sampling
from seedpo.core.types import StepBatch
from seedpo.methods.settings import SamplingConfig, TrajectoryConfig
from seedpo.methods.sources.embeddings import PromptEmbeddings
from seedpo.methods.sources.rollouts import RolloutSource
from seedpo.methods.sources.step_pairs import StepPairs, step_batch
from seedpo.methods.sources.trajectories import TrajectoryRollout, trajectory_source
from seedpo.training.codec import load_tree, save_tree
from tests.methods.pair_rows import PairRows, log_probs_of_side, pair_rows
from tests.methods.sources.toys import PROMPTS, SHAPE, ToyDenoiser, ToyPolicy, ToyReward, brightness, schedule, seeded

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


def pairs_of(made: tuple[StepPairs | None, Any]) -> PairRows:
    assert made[0] is not None
    return pair_rows(step_batch(made[0], PromptEmbeddings(ToyDenoiser()), share_between_pairs=False))


def steps_by_pair(pairs: PairRows, steps: int) -> list[PairRows]:
    """Each pair's steps from the noisiest on."""
    by_pair = [pairs[slice(start, start + steps)] for start in range(0, len(pairs), steps)]
    return [one[one.timestep.argsort(descending=True)] for one in by_pair]


def final(pair: PairRows) -> tuple[Tensor, Tensor]:
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
        timesteps, previous = model.process.timesteps(STEPS)
        assert len(pairs) == 3 * steps
        for pair in steps_by_pair(pairs, steps):
            assert torch.equal(pair.timestep, timesteps[:steps])
            assert torch.equal(pair.next_timestep, previous[:steps])
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
        pairs = pairs_of((made, observed))
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
        for pair in steps_by_pair(pairs, STEPS):
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


class TestStepsPerPair:
    def test_some_steps_of_each_pair(self) -> None:
        model = ToyDenoiser()
        pairs = pairs_of(rollout(model, images_per_prompt=4, steps_per_pair=2)(PROMPTS, generator=seeded()))
        assert len(pairs) == len(PROMPTS) * 6 * 2
        drawn = pairs.timestep.view(-1, 2)
        assert (drawn[:, 0] != drawn[:, 1]).all()
        assert set(drawn.flatten().tolist()) == set(model.process.timesteps(STEPS)[0].tolist())
        assert len({tuple(sorted(row)) for row in drawn.tolist()}) > 5

    def test_no_more_than_there_are(self) -> None:
        pairs = pairs_of(rollout(steps_per_pair=100)(PROMPTS[:2], generator=seeded()))
        assert len(pairs) == 2 * STEPS


class TestReference:
    """The reference is asked once per image and step, whatever number of pairs and passes an image serves in."""

    @pytest.mark.parametrize(("guidance_scale", "passes"), [(1.0, 1), (2.0, 2)])
    def test_one_forward_per_image_and_step_and_one_for_the_shared_start(
        self, guidance_scale: float, passes: int
    ) -> None:
        model = ToyPolicy()
        made = rollout(model, guidance_scale=guidance_scale, images_per_prompt=7)(PROMPTS[:2], generator=seeded())
        assert len(pairs_of(made)) == 2 * 21 * STEPS
        assert model.reference_rows() == passes * 2 * (7 * (STEPS - 1) + 1)

    def test_images_in_no_clear_pair_are_left_out(self) -> None:
        """Scores 0, 0, 1: two pairs, and all three images are in one; scores 0, 0 of another prompt make none."""
        scores = torch.tensor([0.0, 0.0, 5.0, 1.0, 1.0, 1.0])
        model = ToyPolicy()
        reward = ToyReward(score=lambda images, prompts: scores)
        made = rollout(model, reward, guidance_scale=1.0, images_per_prompt=3)(PROMPTS[:2], generator=seeded())
        assert len(pairs_of(made)) == 2 * STEPS
        assert model.reference_rows() == 3 * (STEPS - 1) + 1

    def test_no_forward_in_inner_epochs(self) -> None:
        model = ToyPolicy()
        one = source_of(model, updates_per_rollout=3, images_per_prompt=3, prompts_per_rollout=2)
        one.next_batch()
        rows = model.reference_rows(), model.rows()
        for _ in range(3 * 2 * 3 * STEPS // 4 - 1):
            one.next_batch()
        assert (model.reference_rows(), model.rows()) == rows

    def test_numbers_are_those_of_the_reference(self) -> None:
        model = ToyPolicy()
        pairs = pairs_of(rollout(model, images_per_prompt=3)(PROMPTS[:2], generator=seeded()))
        sampling = Sampling(num_inference_steps=STEPS, guidance_scale=2.0, eta=1.0)
        for side in ("chosen", "rejected"):
            with model.reference():
                expected = log_probs_of_side(model, sampling, pairs, side)
            found = getattr(pairs, f"{side}_reference_log_prob")
            assert found.dtype == torch.float64
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)

    def test_a_model_without_reference_leaves_it_to_the_loss(self) -> None:
        pairs = pairs_of(rollout()(PROMPTS[:2], generator=seeded()))
        assert pairs.chosen_reference_log_prob is pairs.rejected_reference_log_prob is None


class TestGroups:
    """All pairs of a prompt at one step, each image once."""

    def test_a_batch_of_one_is_every_pair_of_a_prompt_at_a_step(self) -> None:
        one = source_of(ToyPolicy(), update_per="group", images_per_prompt=4, prompts_per_rollout=3, batch_size=1)
        seen = set()
        for _ in range(3 * STEPS):
            batch = one.next_batch()
            assert isinstance(batch, StepBatch)
            assert len(batch) == 6
            assert len(set(batch.timestep.tolist())) == 1
            assert len(batch.next_latents) == 4
            assert len(batch.latents) == (1 if batch.timestep[0] == first_step() else 4), "x_T is shared"
            sides = zip(batch.chosen.tolist(), batch.rejected.tolist(), strict=True)
            assert len({frozenset(pair) for pair in sides}) == 6
            embeds = batch.conditioning.prompt_embeds
            assert torch.equal(embeds, embeds[:1].expand_as(embeds))
            seen.add((float(embeds[0, 0, 0]), int(batch.timestep[0])))
        assert len(seen) == 3 * STEPS
        assert len(one.rollout.reward.scores) == 1, "one roll-out"

    def test_the_same_pairs_as_one_by_one(self) -> None:
        """The steps, prompts and reference of every pair; only what is handed out together differs."""
        made = {}
        for update_per in ("pair", "group"):
            one = source_of(
                ToyPolicy(), update_per=update_per, images_per_prompt=3, prompts_per_rollout=2, batch_size=1
            )
            rows = []
            for _ in range(2 * STEPS * (3 if update_per == "pair" else 1)):
                rows += described(one.next_batch())
            made[update_per] = sorted(rows)
        assert made["pair"] == made["group"]
        assert len(set(made["pair"])) == 2 * STEPS * 3

    def test_some_steps_are_the_same_for_all_pairs_of_a_prompt(self) -> None:
        made, _ = rollout(ToyPolicy(), images_per_prompt=4, steps_per_pair=2, update_per="group")(
            PROMPTS, generator=seeded()
        )
        assert made is not None
        assert made.units() == 2 * len(PROMPTS)
        assert torch.equal(torch.bincount(made.unit), torch.full((made.units(),), 6))
        assert len(set(made.timestep.tolist())) == STEPS, "but other steps for other prompts"

    def test_what_waits_holds_every_image_once(self) -> None:
        made, _ = rollout(images_per_prompt=7)(PROMPTS[:2], generator=seeded())
        assert made is not None
        assert len(made) == 2 * 21 * STEPS
        assert len(made.latents) == 2 * (1 + 7 * STEPS)


def first_step() -> int:
    """The time step that leaves the shared x_T."""
    timesteps, _ = ToyDenoiser().process.timesteps(STEPS)
    return int(timesteps[0])


def described(batch: StepBatch) -> list[tuple[float, ...]]:
    """What a pair is made of, in numbers, one tuple per pair."""
    pairs = pair_rows(batch)
    columns = [
        pairs.timestep,
        pairs.conditioning.prompt_embeds[:, 0, 0],  # type: ignore[attr-defined]
        pairs.chosen_latents[:, 0, 0, 0],
        pairs.rejected_latents[:, 0, 0, 0],
        pairs.chosen_next_latents[:, 0, 0, 0],
        pairs.rejected_next_latents[:, 0, 0, 0],
    ]
    return list(zip(*(column.tolist() for column in columns), strict=True))


def source_of(
    model: ToyDenoiser, *, batch_size: int = 4, prompts: Sequence[str] = PROMPTS, **settings: Any
) -> RolloutSource[StepPairs, StepBatch]:
    return trajectory_source(
        model,
        ToyReward(),
        prompts,
        sampling=SamplingConfig(num_inference_steps=STEPS),
        config=TrajectoryConfig(**settings),
        batch_size=batch_size,
        seed=9,
    )


@pytest.mark.parametrize("update_per", ["pair", "group"])
@pytest.mark.parametrize("taken", [0, 2, 5])
def test_restored_source_goes_on(tmp_path: Path, taken: int, update_per: str) -> None:
    def source() -> RolloutSource[StepPairs, StepBatch]:
        return source_of(
            ToyPolicy(), images_per_prompt=3, prompts_per_rollout=2, updates_per_rollout=2, update_per=update_per
        )

    one, other = source(), source()
    for _ in range(taken):
        one.next_batch()
    save_tree(one.state(), tmp_path / "state")
    expected = [one.next_batch() for _ in range(20)]
    other.next_batch()
    other.restore(load_tree(tmp_path / "state"))
    for batch in expected:
        again = other.next_batch()
        assert described(again) == described(batch)
        for one_field in fields(batch):
            value = getattr(batch, one_field.name)
            if isinstance(value, Tensor):
                assert torch.equal(getattr(again, one_field.name), value), one_field.name
    assert other.metrics() == one.metrics()
