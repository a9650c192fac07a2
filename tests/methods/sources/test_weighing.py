"""What roll-outs see of their images besides the reward, and how much their pairs teach for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from seedpo.core.weighting import excess, nearest_distances, novelty_weights, suspicion
from seedpo.methods.settings import GroupConfig, SamplingConfig, StepGroupConfig, StepPoolConfig, TrajectoryConfig
from seedpo.methods.sources.drawn_images import DrawnImages, image_groups, image_pairs
from seedpo.methods.sources.embeddings import PromptEmbeddings
from seedpo.methods.sources.online import ImageRollout
from seedpo.methods.sources.rollouts import UnitBuffer
from seedpo.methods.sources.step_groups import JudgedSteps, StepGroupRollout, step_groups
from seedpo.methods.sources.step_pairs import StepPairs, step_batch
from seedpo.methods.sources.steps import StepRollout
from seedpo.methods.sources.trajectories import TrajectoryRollout
from seedpo.methods.sources.weighing import Views, Weigher
from seedpo.methods.weighting_settings import WeightingConfig
from seedpo.training.codec import load_tree, save_tree
from tests.methods.sources.toys import PROMPTS, ToyPolicy, ToyReward, seeded

SAMPLING = SamplingConfig(num_inference_steps=4, guidance_scale=2.0, eta=1.0)
COUNT = 4
"""Images of a prompt, or candidates of an x_t."""


def redness(images: Tensor, prompts: Sequence[str]) -> Tensor:
    return images[:, 0].mean((1, 2))


def pixels(images: Tensor) -> Tensor:
    return images.flatten(1)


def weigher(**settings: Any) -> Weigher:
    config = WeightingConfig(features="pixels", **settings)
    opinions = [ToyReward(score=redness)] if config.second_opinion else []
    return Weigher(config, features=pixels if config.novelty else None, opinions=opinions)


@dataclass
class Rolled:
    """A roll-out whose reward was asked about groups one call after the other.

    Attributes:
        drawn: what it made.
        observed: what it observed.
        images: of each call, (P K, 3, H, W).
        scores: of each call, (P, K).
    """

    drawn: Any
    observed: dict[str, float]
    images: Tensor
    scores: Tensor

    @property
    def features(self) -> Tensor:
        return pixels(self.images).view(*self.scores.shape, -1)


@dataclass
class Source:
    """A kind of roll-out and what it makes."""

    roll_out: Callable[[ToyPolicy, ToyReward, Weigher | None], Any]
    record: type[Any]

    def __call__(self, look: Weigher | None, *, prompts: Sequence[str] = PROMPTS, seed: int = 3) -> Rolled:
        reward = ToyReward()
        drawn, observed = self.roll_out(ToyPolicy(), reward, look)(prompts, generator=seeded(seed))
        scores = torch.cat(reward.scores).view(-1, COUNT)
        return Rolled(drawn, dict(observed), torch.cat(reward.images), scores)


SPO = Source(
    lambda model, reward, look: StepRollout(
        model,
        reward,
        sampling=SAMPLING,
        config=StepPoolConfig(candidates=COUNT, plain_steps=1, min_gap=0.0),
        weigher=look,
    ),
    StepPairs,
)
D3PO = Source(
    lambda model, reward, look: TrajectoryRollout(
        model,
        reward,
        sampling=SAMPLING,
        config=TrajectoryConfig(images_per_prompt=COUNT, min_gap=0.0, steps_per_pair=1),
        weigher=look,
    ),
    StepPairs,
)
ONLINE = Source(
    lambda model, reward, look: ImageRollout(
        model,
        reward,
        sampling=SAMPLING,
        config=GroupConfig(images_per_prompt=COUNT, min_gap=0.0),
        packing="pairs",
        weigher=look,
    ),
    DrawnImages,
)
SOURCES = pytest.mark.parametrize("source", [SPO, D3PO, ONLINE], ids=["spo", "d3po", "online"])


def pairs_with(images: Tensor, rolled: Rolled, source: Source) -> Tensor:
    """Which of the pairs that there could be have one of some images on either side."""
    winners = all_winners(rolled, source)
    if source is not D3PO:
        return torch.isin(winners, images)
    first, second = torch.triu_indices(COUNT, COUNT, offset=1)
    rows = COUNT * torch.arange(len(rolled.scores))[:, None]
    return (torch.isin(rows + first, images) | torch.isin(rows + second, images)).flatten()


def all_winners(rolled: Rolled, source: Source) -> Tensor:
    """Number of the winner of each pair that there could be, in the order of the pairs."""
    rows = COUNT * torch.arange(len(rolled.scores))[:, None]
    if source is not D3PO:
        return rows[:, 0] + rolled.scores.argmax(1)
    first, second = torch.triu_indices(COUNT, COUNT, offset=1)
    swap = rolled.scores[:, first] < rolled.scores[:, second]
    return (rows + torch.where(swap, second, first)).flatten()


def weights_of(rolled: Rolled) -> Tensor:
    drawn = rolled.drawn
    if isinstance(drawn, DrawnImages):
        assert drawn.loss_weight is not None
        return drawn.loss_weight[drawn.member[:, 0]]
    assert drawn.loss_weight is not None
    return drawn.loss_weight


def suspects_of(rolled: Rolled) -> Tensor:
    drawn = rolled.drawn
    assert drawn.suspect is not None
    return drawn.suspect[drawn.member[:, 0]] if isinstance(drawn, DrawnImages) else drawn.suspect


@SOURCES
def test_a_pair_weighs_what_the_novelty_of_its_winner_does(source: Source) -> None:
    rolled = source(weigher(novelty=1.5))
    expected = novelty_weights(nearest_distances(rolled.features), rolled.scores, power=1.5).flatten()
    winners = all_winners(rolled, source)
    torch.testing.assert_close(weights_of(rolled), expected[winners])
    assert weights_of(rolled).std() > 0.1
    distinct = winners.unique()
    near = nearest_distances(rolled.features).flatten()[distinct]
    assert rolled.observed["novelty"] == pytest.approx(near.mean().item())
    assert rolled.observed["novelty_weight_std"] == pytest.approx(expected[distinct].std(correction=0).item())


@SOURCES
def test_the_label_stays_and_so_does_what_is_drawn(source: Source) -> None:
    plain, looked = source(None), source(weigher(novelty=1.0, second_opinion=("redness",), suspect_anchor=1.0))
    for name in ("latents", "chosen", "rejected", "member", "unit"):
        if hasattr(plain.drawn, name):
            assert torch.equal(getattr(plain.drawn, name), getattr(looked.drawn, name)), name
    assert plain.observed.items() <= looked.observed.items()
    assert plain.drawn.loss_weight is None
    assert plain.drawn.suspect is None


@SOURCES
def test_outliers_are_left_out(source: Source) -> None:
    """Half of the winners, those whose reward exceeds the mean of their group by most."""
    plain, cut = source(None), source(weigher(outliers=0.5))
    winners = all_winners(plain, source)
    distinct = winners.unique()
    above = excess(plain.scores).flatten()
    worst = distinct[above[distinct].argsort(descending=True)][: (len(distinct) + 1) // 2]
    stay = ~pairs_with(worst, plain, source)
    assert cut.drawn.units() == int(stay.sum())
    assert cut.observed["left_out"] == pytest.approx(len(worst) / len(distinct))
    assert cut.observed["pairs_kept"] == plain.observed["pairs_kept"]
    assert torch.equal(weights_of(cut), torch.ones(int(stay.sum())).double())


@SOURCES
def test_suspects_are_the_winners_that_others_doubt(source: Source) -> None:
    rolled = source(weigher(second_opinion=("redness",), suspect_share=0.3))
    doubt = suspicion(rolled.scores, redness(rolled.images, [])[None].view(1, *rolled.scores.shape)).flatten()
    winners = all_winners(rolled, source)
    suspect, distinct = suspects_of(rolled), winners.unique()
    assert 0 < rolled.observed["suspects"] <= 0.5
    assert rolled.observed["suspicion"] == pytest.approx(doubt[distinct].mean().item())
    assert doubt[winners[suspect]].min() > 0
    assert doubt[winners[suspect]].min() >= doubt[winners[~suspect]].max()
    assert len(winners[suspect].unique()) == pytest.approx(rolled.observed["suspects"] * len(distinct))
    assert rolled.drawn.loss_weight is None


@SOURCES
def test_suspects_can_be_left_out(source: Source) -> None:
    settings: dict[str, Any] = {"second_opinion": ("redness",), "suspect_share": 0.3}
    doubted, dropped = source(weigher(**settings)), source(weigher(**settings, drop_suspects=True))
    suspects = all_winners(doubted, source)[suspects_of(doubted)]
    assert dropped.drawn.units() == int((~pairs_with(suspects, doubted, source)).sum())
    assert dropped.drawn.suspect is None
    assert dropped.observed["left_out"] == doubted.observed["suspects"]


@SOURCES
def test_pairs_are_those_on_which_second_opinions_agree(source: Source) -> None:
    """By brute force: of each group the two with the widest gap that both rank alike, or for D3PO all such pairs."""
    rolled = source(weigher(second_opinion=("redness",), agreement=True, novelty=1.0))
    other = redness(rolled.images, []).view(rolled.scores.shape)
    expected = []
    for row, (scores, opinions) in enumerate(zip(rolled.scores.tolist(), other.tolist(), strict=True)):
        alike = [
            (scores[i] - scores[j], row * COUNT + i, row * COUNT + j)
            for i in range(COUNT)
            for j in range(COUNT)
            if scores[i] > scores[j] and opinions[i] > opinions[j]
        ]
        chosen = alike if source is D3PO else [max(alike)] if alike else []
        expected += [(first, second) for _, first, second in chosen]
    plain = source(None)
    winners = torch.tensor([first for first, _ in expected])
    assert not torch.equal(winners, all_winners(plain, source))
    assert rolled.drawn.units() == len(expected)
    assert rolled.observed["pairs_kept"] == pytest.approx(len(expected) / len(all_winners(plain, source)))
    novelty = novelty_weights(nearest_distances(rolled.features), rolled.scores, power=1.0).flatten()
    weights = weights_of(rolled)
    torch.testing.assert_close(weights.sort().values, novelty[winners].sort().values)
    if source is ONLINE:
        rewards_of = rolled.drawn.reward[rolled.drawn.member]
        flat = rolled.scores.flatten()
        assert rewards_of.tolist() == [[flat[first].item(), flat[second].item()] for first, second in expected]


@SOURCES
def test_without_agreement_there_is_no_pair(source: Source) -> None:
    look = Weigher(
        WeightingConfig(second_opinion=("opposite",), agreement=True),
        opinions=[ToyReward(score=lambda images, prompts: -redness(images, prompts))],
    )
    drawn, observed = source.roll_out(ToyPolicy(), ToyReward(score=redness), look)(PROMPTS, generator=seeded())
    assert drawn is None
    assert observed["pairs_kept"] == 0.0


@SOURCES
def test_a_roll_out_without_a_clear_pair_is_not_looked_at(source: Source) -> None:
    model, asked = ToyPolicy(), ToyReward(score=redness)
    blank = ToyReward(score=lambda images, prompts: torch.zeros(len(images)))
    look = Weigher(WeightingConfig(second_opinion=("redness",), outliers=0.5), opinions=[asked])
    drawn, observed = source.roll_out(model, blank, look)(PROMPTS, generator=seeded())
    assert drawn is None
    assert not {"suspicion", "left_out"} & observed.keys()


@SOURCES
def test_weights_travel_through_buffers_batches_and_checkpoints(source: Source, tmp_path: Path) -> None:
    """Each unit keeps its own, over two roll-outs, shuffled passes and a stop in between."""
    look = weigher(novelty=1.0, second_opinion=("redness",), suspect_share=0.5)
    model = ToyPolicy()
    buffer: UnitBuffer[Any] = UnitBuffer(source.record, passes=2)
    made = [source(look, seed=seed).drawn for seed in (1, 2)]
    for drawn in made:
        buffer.fill(drawn, generator=seeded())
    whole = source.record.join(made)

    def rows(drawn: Any) -> list[tuple[float, float, bool]]:
        batch: Any
        if source is ONLINE:
            batch = image_pairs(drawn, PromptEmbeddings(model))
            latents = batch.chosen_latents
        else:
            batch = step_batch(drawn, PromptEmbeddings(model), share_between_pairs=False)
            latents = batch.next_latents[batch.chosen]
        return sorted(
            zip(latents.flatten(1).sum(1).tolist(), batch.loss_weight.tolist(), batch.suspect.tolist(), strict=True)
        )

    first = rows(buffer.take(5))
    save_tree(buffer.state(), tmp_path / "buffer")
    resumed: UnitBuffer[Any] = UnitBuffer(source.record, passes=2)
    resumed.restore(load_tree(tmp_path / "buffer"))
    left = len(buffer)
    later = rows(resumed.take(left))
    assert later == rows(buffer.take(left))
    assert sorted(first + later) == sorted(2 * rows(whole))


GROUPS = Source(
    lambda model, reward, look: ImageRollout(
        model,
        reward,
        sampling=SAMPLING,
        config=GroupConfig(images_per_prompt=COUNT, min_gap=0.0),
        packing="groups",
        weigher=look,
    ),
    DrawnImages,
)
STEP_GROUPS = Source(
    lambda model, reward, look: StepGroupRollout(
        model,
        reward,
        sampling=SAMPLING,
        groups=GroupConfig(images_per_prompt=COUNT, min_gap=0.0),
        config=StepGroupConfig(trained_steps=2),
        weigher=look,
    ),
    JudgedSteps,
)
GROUPED = pytest.mark.parametrize("source", [GROUPS, STEP_GROUPS], ids=["images", "steps"])


def of_images(rolled: Rolled, name: str) -> Tensor:
    """A field of the batch of a roll-out, (P, K); all steps of an image have one value."""
    embeddings = PromptEmbeddings(ToyPolicy())
    if isinstance(rolled.drawn, DrawnImages):
        whole: Tensor = getattr(image_groups(rolled.drawn, embeddings), name)
        return whole
    steps: Tensor = getattr(step_groups(rolled.drawn, embeddings, share=False), name)
    first, second = steps.view(len(rolled.scores), 2, COUNT).unbind(1)
    assert torch.equal(first, second)
    return first


class TestGroups:
    @GROUPED
    def test_the_better_half_weighs_what_its_novelty_does(self, source: Source) -> None:
        rolled = source(weigher(novelty=1.0))
        expected = novelty_weights(nearest_distances(rolled.features), rolled.scores, power=1.0)
        torch.testing.assert_close(of_images(rolled, "loss_weight"), expected)
        winners = excess(rolled.scores) > 0
        assert rolled.observed["novelty_weight_std"] == pytest.approx(expected[winners].std(correction=0).item())

    @GROUPED
    def test_outliers_have_no_advantage(self, source: Source) -> None:
        rolled = source(weigher(outliers=0.25))
        above = excess(rolled.scores)
        winners = above > 0
        out = of_images(rolled, "loss_weight") == 0
        assert int(out.sum()) == int(0.25 * int(winners.sum()) + 0.5) > 0
        assert above[out].min() >= above[winners & ~out].max()
        assert rolled.observed["left_out"] == pytest.approx(int(out.sum()) / int(winners.sum()))
        assert rolled.drawn.units() == source(None).drawn.units()

    @GROUPED
    def test_suspects_are_among_the_better_half(self, source: Source) -> None:
        rolled = source(weigher(second_opinion=("redness",), suspect_share=0.4))
        suspect = of_images(rolled, "suspect")
        assert suspect.any()
        assert not suspect[excess(rolled.scores) <= 0].any()
        dropped = source(weigher(second_opinion=("redness",), suspect_share=0.4, drop_suspects=True))
        assert torch.equal(of_images(dropped, "loss_weight") == 0, suspect)


def test_previews_are_judged_at_their_time() -> None:
    look = weigher(second_opinion=("redness",))
    reward = ToyReward()
    SPO.roll_out(ToyPolicy(), reward, look)(PROMPTS, generator=seeded())
    (opinion,) = look.opinions
    assert len(reward.timesteps) == len(opinion.timesteps) > 1
    for told, other in zip(reward.timesteps, opinion.timesteps, strict=True):
        assert told is not None
        assert torch.equal(told, other)


def test_images_beyond_the_range_are_clamped_for_others() -> None:
    look = weigher(novelty=1.0)
    images = torch.tensor([[1.5, 0.2, -0.5], [1.0, 0.2, 0.0], [0.1, 0.9, 0.3]]).view(3, 3, 1, 1)
    views = look.look(images, ["a"] * 3, torch.zeros(1, 3))
    assert views.distances is not None
    assert views.distances[0, :2].tolist() == pytest.approx([0.0, 0.0], abs=1e-6)


def test_views_of_several_steps_are_one() -> None:
    parts = [Views(scores=torch.rand(2, 3), distances=torch.rand(2, 3), opinions=torch.rand(4, 2, 3)) for _ in range(3)]
    whole = Views.join(parts)
    assert whole.distances is not None
    assert whole.opinions is not None
    assert (whole.scores.shape, whole.distances.shape, whole.opinions.shape) == ((6, 3), (6, 3), (4, 6, 3))
    assert whole.scores[2:4].equal(parts[1].scores)
    assert Views.join([Views(scores=torch.rand(2, 3))]).opinions is None
