"""Images that the policy draws: as pairs and as groups, judged by a reward or by people, with their prior noise."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from seedpo.core.sampling import Sampler, Sampling
from seedpo.core.types import ImageGroups, ImagePairs
from seedpo.methods.settings import GroupConfig, SamplingConfig
from seedpo.methods.sources.drawn_images import DrawnImages, image_groups, image_pairs
from seedpo.methods.sources.embeddings import PromptEmbeddings
from seedpo.methods.sources.online import ImageRollout, image_source
from seedpo.methods.sources.rollouts import UnitBuffer, preference
from seedpo.training.codec import load_tree, save_tree
from tests.methods.sources.toys import PROMPTS, ToyPolicy, ToyReward, seeded

SAMPLING = SamplingConfig(num_inference_steps=4, guidance_scale=2.0, eta=1.0)
BOTH: list[Literal["pairs", "groups"]] = ["pairs", "groups"]


def rollout(
    model: ToyPolicy, reward: Any, packing: Literal["pairs", "groups"] = "pairs", **settings: Any
) -> ImageRollout:
    return ImageRollout(model, reward, sampling=SAMPLING, config=GroupConfig(**settings), packing=packing)


def units_of(rolled: ImageRollout, prompts: Sequence[str] = PROMPTS[:3]) -> DrawnImages:
    drawn, _ = rolled(prompts, generator=seeded())
    assert drawn is not None
    return drawn


def pairs_of(drawn: DrawnImages, model: ToyPolicy) -> ImagePairs:
    return image_pairs(drawn, PromptEmbeddings(model))


def groups_of(drawn: DrawnImages, model: ToyPolicy) -> ImageGroups:
    return image_groups(drawn, PromptEmbeddings(model))


class TestDrawing:
    @pytest.mark.parametrize("packing", BOTH)
    def test_each_image_follows_from_its_own_noise_alone(self, packing: Literal["pairs", "groups"]) -> None:
        """The sampler of users: no noise in the steps, whatever eta says."""
        model = ToyPolicy()
        drawn = units_of(rollout(model, ToyReward(), packing, images_per_prompt=3))
        prompts = [drawn.prompts[row] for row in drawn.prompt.tolist()]
        again = Sampler(model, Sampling(num_inference_steps=4, guidance_scale=2.0, eta=0.0)).sample(
            drawn.prior_noise, model.encode_prompts(prompts), model.encode_prompts([""] * len(prompts))
        )
        torch.testing.assert_close(again, drawn.latents)
        noises = drawn.prior_noise.flatten(1)
        assert all((one != other).all() for one, other in itertools.combinations(noises, 2))

    @pytest.mark.parametrize(("drawn_by", "asks_reference"), [("policy", False), ("reference", True)])
    def test_policy_or_reference_draws(self, drawn_by: str, asks_reference: bool) -> None:
        model = ToyPolicy()
        units_of(rollout(model, ToyReward(), "groups", images_per_prompt=3, drawn_by=drawn_by))
        assert (model.rows(), model.reference_rows())[asks_reference] == 2 * 4 * 9
        assert (model.rows(), model.reference_rows())[not asks_reference] == 0

    def test_reproducible_from_the_generator(self) -> None:
        first, second = (units_of(rollout(ToyPolicy(), ToyReward(), "groups")) for _ in range(2))
        assert torch.equal(first.latents, second.latents)


class TestPairs:
    def test_the_best_against_the_worst(self) -> None:
        model, reward = ToyPolicy(), ToyReward()
        drawn = units_of(rollout(model, reward, images_per_prompt=5))
        pairs, scores = pairs_of(drawn, model), reward.scores[0].view(3, 5)
        assert len(pairs) == 3
        assert len(drawn.latents) == 6, "what is in no pair is dropped"
        images = reward.images[0].view(3, 5, -1)
        rows = torch.arange(3)
        for side, places in ((pairs.chosen_latents, scores.argmax(1)), (pairs.rejected_latents, scores.argmin(1))):
            torch.testing.assert_close(model.decode(side).flatten(1), images[rows, places])
        assert pairs.gap is not None
        torch.testing.assert_close(pairs.gap, scores.max(1).values - scores.min(1).values)
        expected = model.encode_prompts(PROMPTS[:3]).prompt_embeds
        assert torch.equal(pairs.conditioning.prompt_embeds, expected)  # type: ignore[attr-defined]

    def test_every_two_images(self) -> None:
        model, reward = ToyPolicy(), ToyReward()
        drawn = units_of(rollout(model, reward, images_per_prompt=4, pairs="all"))
        pairs = pairs_of(drawn, model)
        assert len(pairs) == 3 * 6
        assert len(drawn.latents) == 12, "each latent once"
        assert pairs.gap is not None
        assert (pairs.gap > 0).all()

    @pytest.mark.parametrize(("pairing", "min_gap"), [("all", 0.2), ("best-worst", 0.5)])
    def test_only_clear_pairs_are_kept(self, pairing: str, min_gap: float) -> None:
        model, reward = ToyPolicy(), ToyReward(score=lambda images, prompts: 8 * images.mean((1, 2, 3)))
        drawn, observed = rollout(model, reward, images_per_prompt=4, min_gap=min_gap, pairs=pairing)(
            PROMPTS, generator=seeded()
        )
        scores = reward.scores[0].view(-1, 4)
        differences = preference(scores[:, :, None], scores[:, None, :])
        kept = (differences > min_gap).sum() if pairing == "all" else (differences.amax((1, 2)) > min_gap).sum()
        possible = len(PROMPTS) * (6 if pairing == "all" else 1)
        assert drawn is not None
        assert 0 < drawn.units() == kept < possible
        assert observed["pairs_kept"] == pytest.approx(int(kept) / possible)

    def test_prior_noise_is_that_of_its_image(self) -> None:
        model = ToyPolicy()
        pairs = pairs_of(units_of(rollout(model, ToyReward(), images_per_prompt=3)), model)
        assert pairs.prior_noise is not None
        sampler = Sampler(model, Sampling(num_inference_steps=4, guidance_scale=2.0))
        negative = model.encode_prompts([""] * len(pairs))
        for side, latents in enumerate((pairs.chosen_latents, pairs.rejected_latents)):
            again = sampler.sample(pairs.prior_noise[:, side], pairs.conditioning, negative)
            torch.testing.assert_close(again, latents)


class TestGroups:
    @pytest.mark.parametrize("normalise", ["std", "pooled", "mean", "raw"])
    def test_whole_groups_with_advantages(self, normalise: str) -> None:
        model, reward = ToyPolicy(), ToyReward()
        groups = groups_of(units_of(rollout(model, reward, "groups", images_per_prompt=4, normalise=normalise)), model)
        scores = reward.scores[0].view(3, 4)
        assert groups.latents.shape == (3, 4, *model.latent_shape)
        assert torch.equal(groups.rewards, scores)
        torch.testing.assert_close(model.decode(groups.latents.flatten(0, 1)), reward.images[0])
        centred = scores - scores.mean(1, keepdim=True)
        expected = {
            "std": centred / scores.std(1, keepdim=True, correction=0),
            "pooled": centred / scores.std(correction=0),
            "mean": centred,
            "raw": scores,
        }
        torch.testing.assert_close(groups.advantages, expected[normalise])
        assert groups.prior_noise is not None
        assert groups.prior_noise.shape == groups.latents.shape

    def test_a_group_of_equal_rewards_teaches_nothing_and_is_dropped(self) -> None:
        scores = torch.tensor([1.0, 1.0, 0.0, 2.0, 3.0, 3.0])
        model = ToyPolicy()
        drawn, observed = rollout(model, ToyReward(lambda images, prompts: scores), "groups", images_per_prompt=2)(
            PROMPTS[:3], generator=seeded()
        )
        assert drawn is not None
        assert (drawn.prompts, drawn.reward.tolist()) == ((PROMPTS[1],), [0.0, 2.0])
        assert observed["groups_kept"] == pytest.approx(1 / 3)

    def test_pairs_have_no_advantages(self) -> None:
        model = ToyPolicy()
        with pytest.raises(ValueError, match="advantages"):
            groups_of(units_of(rollout(model, ToyReward(), images_per_prompt=2)), model)


@dataclass
class Preferring:
    """People who prefer later images; of some prompts they have no preference."""

    undecided: tuple[str, ...] = ()

    def compare(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        names = list(dict.fromkeys(prompts))
        count = len(prompts) // len(names)
        order = torch.arange(count).float()
        preferences = torch.sign(order[:, None] - order[None, :]).repeat(len(names), 1, 1)
        for row, name in enumerate(names):
            preferences[row] *= name not in self.undecided
        return preferences


@pytest.mark.parametrize("packing", BOTH)
def test_people_judge(packing: Literal["pairs", "groups"]) -> None:
    model = ToyPolicy()
    drawn, observed = rollout(model, Preferring((PROMPTS[1],)), packing, images_per_prompt=3)(
        PROMPTS[:3], generator=seeded()
    )
    assert drawn is not None
    assert drawn.prompts == (PROMPTS[0], PROMPTS[2])
    assert observed == {f"{packing}_kept": pytest.approx(2 / 3)}
    if packing == "groups":
        assert torch.equal(drawn.reward.view(2, 3), torch.tensor([[-1.0, 0.0, 1.0]] * 2))
    else:
        assert pairs_of(drawn, model).gap.tolist() == [2.0, 2.0]  # type: ignore[union-attr]


def source(packing: Literal["pairs", "groups"], **changes: Any) -> Any:
    config = GroupConfig(images_per_prompt=3, prompts_per_rollout=3, updates_per_rollout=2, pairs="all")
    arguments: dict[str, Any] = {"batch_size": 2, "seed": 0} | changes
    return image_source(
        ToyPolicy(), ToyReward(), PROMPTS, packing=packing, sampling=SAMPLING, config=config, **arguments
    )


def tensors_of(batch: ImagePairs | ImageGroups) -> list[Tensor]:
    return [*batch.tensors().values(), *batch.conditioning.tensors().values()]


@pytest.mark.parametrize("before", [1, 2, 4])
@pytest.mark.parametrize("packing", BOTH)
def test_a_restored_source_goes_on_with_the_same_batches(
    tmp_path: Path, packing: Literal["pairs", "groups"], before: int
) -> None:
    whole = source(packing)
    for _ in range(before):
        whole.next_batch()
    save_tree(whole.state(), tmp_path / "state")
    restored = source(packing)
    restored.restore(load_tree(tmp_path / "state"))
    for _ in range(8):
        expected, ours = tensors_of(whole.next_batch()), tensors_of(restored.next_batch())
        assert all(torch.equal(one, other) for one, other in zip(ours, expected, strict=True))


@pytest.mark.parametrize("packing", BOTH)
def test_one_batch_of_4_is_4_of_1(packing: Literal["pairs", "groups"]) -> None:
    whole, single = source(packing, batch_size=4), source(packing, batch_size=1)
    for _ in range(3):
        expected = tensors_of(whole.next_batch())
        parts = [tensors_of(single.next_batch()) for _ in range(4)]
        ours = [torch.cat(some) for some in zip(*parts, strict=True)]
        assert all(torch.equal(one, other) for one, other in zip(ours, expected, strict=True))


def test_processes_draw_other_prompts_and_other_noise() -> None:
    first, second = (source("groups", rank=rank, world=2).next_batch() for rank in range(2))
    assert not torch.isin(first.latents, second.latents).any()
    assert not torch.equal(first.conditioning.prompt_embeds, second.conditioning.prompt_embeds)


def test_the_buffer_holds_each_image_once_and_prompts_as_text() -> None:
    buffer = UnitBuffer(DrawnImages, passes=3)
    drawn = units_of(rollout(ToyPolicy(), ToyReward(), images_per_prompt=4, pairs="all"))
    buffer.fill(drawn, generator=seeded())
    assert len(buffer) == 3 * 18
    state = buffer.state()
    assert len(state["latents"]) == len(state["prior_noise"]) == 12
    assert sorted(state["prompts"]) == sorted(PROMPTS[:3])
    buffer.take(3 * 18 - 1)
    assert len(buffer.state()["latents"]) == 2
