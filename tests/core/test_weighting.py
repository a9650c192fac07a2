"""How much the images of a roll-out teach, against loops in numpy's float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seedpo.core.entropy import entropy_weights
from seedpo.core.objectives import see_loss
from seedpo.core.weighting import (
    agreed_gaps,
    balanced,
    excess,
    highest,
    nearest_distances,
    novelty_weights,
    suspect_share,
    suspicion,
    temperature_factor,
    weighed,
    win_rates,
)

P, K, D = 5, 4, 6


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def features(seed: int = 0) -> torch.Tensor:
    return torch.randn(P, K, D, generator=seeded(seed))


def rewards(seed: int = 1) -> torch.Tensor:
    return torch.randn(P, K, generator=seeded(seed))


class TestNovelty:
    def test_golden(self) -> None:
        values, scores = features(), rewards()
        array, reward = values.numpy().astype(np.float64), scores.numpy().astype(np.float64)
        for power in (0.5, 1.0, 2.0):
            weights = novelty_weights(nearest_distances(values), scores, power=power)
            for p in range(P):
                length = np.linalg.norm(array[p], axis=1)
                cosine = array[p] @ array[p].T / np.outer(length, length)
                near = [min(1 - cosine[i, j] for j in range(K) if j != i) for i in range(K)]
                for i in range(K):
                    wins = reward[p, i] > reward[p].mean()
                    expected = (near[i] / np.mean(near)) ** power if wins else 1.0
                    assert weights[p, i].item() == pytest.approx(expected, rel=1e-12)

    def test_power_0_weighs_all_alike(self) -> None:
        assert torch.equal(
            novelty_weights(nearest_distances(features()), rewards(), power=0.0), torch.ones(P, K).double()
        )

    def test_images_that_are_all_alike_weigh_1(self) -> None:
        alike = torch.ones(2, K, D)
        distances = torch.zeros_like(nearest_distances(alike))
        assert torch.equal(novelty_weights(distances, rewards()[:2], power=1.0), torch.ones(2, K).double())

    def test_the_twin_of_an_image_weighs_nothing_and_losers_weigh_1(self) -> None:
        values = torch.eye(K).expand(1, K, K).clone()
        values[0, 1] = values[0, 0]
        weights = novelty_weights(nearest_distances(values), torch.tensor([[3.0, -3.0, 2.0, -2.0]]), power=1.0)
        assert weights.tolist() == [[0.0, 1.0, 2.0, 1.0]]

    def test_no_unit_of_length_and_no_order(self) -> None:
        values, order = features(), torch.tensor([2, 0, 3, 1])
        near = nearest_distances(values)
        torch.testing.assert_close(nearest_distances(7.0 * values), near)
        torch.testing.assert_close(nearest_distances(values[:, order]), near[:, order])

    def test_a_single_image_has_no_neighbour(self) -> None:
        with pytest.raises(ValueError, match="neighbour"):
            nearest_distances(features()[:, :1])


class TestSuspicion:
    def test_golden(self) -> None:
        scores, opinions = rewards(1), torch.stack([rewards(2), rewards(3)])
        opinions[0, 0, :2] = opinions[0, 0, 2]  # ties

        def rate(values: np.ndarray, i: int) -> float:
            others = [values[j] for j in range(K) if j != i]
            return float(
                np.mean([1.0 if values[i] > other else 0.5 if values[i] == other else 0.0 for other in others])
            )

        for p in range(P):
            for i in range(K):
                held = np.mean([rate(opinion[p].numpy(), i) for opinion in opinions])
                expected = rate(scores[p].numpy(), i) - held
                assert suspicion(scores, opinions)[p, i].item() == pytest.approx(expected, abs=1e-12)

    def test_scale_and_offset_of_rewards_play_no_part(self) -> None:
        scores, opinions = rewards(1), rewards(2)[None]
        other = suspicion(5 * scores - 2, 0.1 * opinions + 100.0)
        torch.testing.assert_close(suspicion(scores, opinions), other, atol=0, rtol=0)

    def test_nobody_is_suspect_whom_all_rank_alike(self) -> None:
        scores = rewards()
        assert not suspicion(scores, torch.stack([2 * scores, scores + 1])).any()

    @given(st.integers(0, 1000), st.integers(1, 3))
    def test_bounds_and_sum(self, seed: int, opinions: int) -> None:
        """Ranks of a group have one mean, whatever they are, so that U adds up to 0."""
        others = torch.stack([rewards(seed + 1 + number) for number in range(opinions)])
        doubt = suspicion(rewards(seed), others)
        assert doubt.abs().max() <= 1
        torch.testing.assert_close(doubt.sum(1), torch.zeros(P).double())
        assert win_rates(rewards(seed)).sum(1).allclose(torch.full((P,), K / 2).double())


class TestAgreement:
    def test_golden(self) -> None:
        scores, opinions = rewards(1), torch.stack([rewards(2), rewards(3)])
        opinions[0, 0, :2] = opinions[0, 0, 2]  # equal for one of them: no agreement
        gaps = agreed_gaps(scores, opinions)
        for p in range(P):
            for i in range(K):
                for j in range(K):
                    gap = float(scores[p, i].double() - scores[p, j].double())
                    alike = all(gap * float(other[p, i] - other[p, j]) > 0 for other in opinions)
                    assert gaps[p, i, j].item() == (gap if alike else 0.0)
        assert not gaps[0, 0, 1]
        assert torch.equal(gaps, -gaps.transpose(1, 2))

    def test_a_copy_agrees_and_its_opposite_never(self) -> None:
        scores = rewards()
        assert torch.equal(agreed_gaps(scores, 3 * scores[None] + 1), scores.double()[:, :, None] - scores[:, None, :])
        assert not agreed_gaps(scores, -scores[None]).any()


class TestHighest:
    def test_a_share_of_the_candidates_alone(self) -> None:
        values = torch.arange(20.0).view(4, 5)
        among = values % 2 == 0
        marked = highest(values, among, share=0.3, generator=seeded())
        assert values[marked].tolist() == [14.0, 16.0, 18.0]

    @pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.1, 1), (0.04, 0), (0.05, 1), (0.5, 5), (0.99, 10)])
    def test_how_many(self, share: float, count: int) -> None:
        everyone = torch.ones(10, dtype=torch.bool)
        assert int(highest(torch.rand(10), everyone, share=share, generator=seeded()).sum()) == count

    def test_a_lot_among_equals(self) -> None:
        """Each of ten equal candidates is drawn about as often, and the same generator draws the same."""
        everyone = torch.ones(10, dtype=torch.bool)
        drawn = sum(highest(torch.zeros(10), everyone, share=0.3, generator=seeded(n)).int() for n in range(400))
        assert torch.as_tensor(drawn).sum() == 1200
        assert torch.as_tensor(drawn).min() > 80
        assert torch.as_tensor(drawn).max() < 160
        again = [highest(torch.zeros(10), everyone, share=0.3, generator=seeded(7)) for _ in range(2)]
        assert torch.equal(*again)

    def test_excess_is_of_the_group(self) -> None:
        scores = torch.tensor([[100.0, 101.0], [0.0, 4.0]])
        assert excess(scores).tolist() == [[-0.5, 0.5], [-2.0, 2.0]]
        among = torch.ones_like(scores, dtype=torch.bool)
        assert highest(excess(scores), among, share=0.25, generator=seeded()).tolist() == [
            [False, False],
            [False, True],
        ]


class TestTemperature:
    SUSPECT = torch.tensor([False, True, True])

    def loss(self, log_probs: torch.Tensor, *, rise: float, gamma: float = 0.0, **settings: object) -> torch.Tensor:
        """Losses of three pairs, of log-probabilities (4, 3): chosen, rejected, and both under the reference."""
        a, b = entropy_weights(2.0, gamma, convention="relative")
        factor = temperature_factor(self.SUSPECT, rise)
        output = see_loss(*log_probs, policy_weight=a * factor, reference_weight=b * factor, **settings)  # type: ignore[arg-type]
        return output.losses / factor

    def log_probs(self) -> torch.Tensor:
        return torch.randn(4, 3, generator=seeded(), dtype=torch.float64).requires_grad_()

    def test_closed_form_of_the_gradient(self) -> None:
        """-a sigma(-(1 + kappa) m) for the chosen log-probability, with m the margin of a pair that is not suspect."""
        values, rise, gamma = self.log_probs(), 3.0, 0.5
        (gradient,) = torch.autograd.grad(self.loss(values, rise=rise, gamma=gamma).sum(), values)
        a, b = 2.0 * 1.5, 2.0
        for pair in range(3):
            chosen, rejected, chosen_reference, rejected_reference = values.detach()[:, pair].tolist()
            margin = a * (chosen - rejected) - b * (chosen_reference - rejected_reference)
            factor = 1 + rise * bool(self.SUSPECT[pair])
            slope = -a / (1 + math.exp(factor * margin))
            assert gradient[:, pair].tolist() == pytest.approx([slope, -slope, 0.0, 0.0], rel=1e-12)

    def test_pushes_as_much_at_the_start_and_less_later(self) -> None:
        values = torch.zeros(4, 3, dtype=torch.float64).requires_grad_()
        (start,) = torch.autograd.grad(self.loss(values, rise=3.0).sum(), values)
        assert start[0].tolist() == pytest.approx([-1.0] * 3)
        with torch.no_grad():
            values[0] = 1.0
        (later,) = torch.autograd.grad(self.loss(values, rise=3.0).sum(), values)
        assert later[0, 0] < later[0, 1] < 0

    @pytest.mark.parametrize("loss", ["sigmoid", "ipo", "hinge", "linear", "dmpo"])
    def test_a_pair_at_beta_times_the_factor(self, loss: str) -> None:
        """The suspects' losses are those of a run at beta (1 + kappa), divided by the factor, whatever the loss."""
        values, factor = self.log_probs(), 4.0
        apart = self.loss(values, rise=3.0, loss=loss)
        a, b = entropy_weights(2.0 * factor, 0.0, convention="relative")
        other = see_loss(*values, policy_weight=a, reference_weight=b, loss=loss).losses / factor
        torch.testing.assert_close(apart[1:], other[1:], atol=0, rtol=1e-12)

    def test_the_clip_is_of_the_ratio_itself(self) -> None:
        """Suspects are held at the same ratio to the reference as others."""
        values = torch.tensor([[5.0] * 3, [0.0] * 3, [0.0] * 3, [0.0] * 3], dtype=torch.float64)
        losses = self.loss(values, rise=3.0, clip_range=0.1) * torch.tensor([1.0, 4.0, 4.0])
        margin = 2.0 * math.log(1.1)
        assert losses.tolist() == pytest.approx([math.log1p(math.exp(-f * margin)) for f in (1, 4, 4)])

    def test_nothing_without_suspects(self) -> None:
        assert temperature_factor(None, 3.0) == temperature_factor(self.SUSPECT, 0.0) == 1.0

    def test_weights_of_losses(self) -> None:
        values = torch.tensor([1.0, 2.0])
        assert weighed(values, None) is values
        assert weighed(values, torch.tensor([0.0, 3.0]).double()).tolist() == [0.0, 6.0]


class TestGroups:
    def test_balanced(self) -> None:
        advantages = torch.tensor([[4.0, 2.0, -1.0, -2.0], [1.0, 3.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.0]])
        assert balanced(advantages).tolist() == [[2.0, 1.0, -1.0, -2.0], [0.0] * 4, [0.0] * 4]

    @given(st.integers(0, 1000))
    def test_balanced_adds_up_to_0_and_keeps_the_others(self, seed: int) -> None:
        advantages = torch.randn(3, 5, generator=seeded(seed)).double()
        scaled = balanced(advantages)
        torch.testing.assert_close(scaled.sum(1), torch.zeros(3).double())
        mixed = (advantages > 0).any(1) & (advantages < 0).any(1)
        below = mixed[:, None] & (advantages < 0)
        assert torch.equal(scaled[below], advantages[below])
        ratio = (scaled / advantages)[mixed[:, None] & (advantages > 0)]
        assert (ratio > 0).all()

    def test_share_of_suspects(self) -> None:
        advantages = torch.tensor([[3.0, 1.0, -4.0], [1.0, -1.0, 0.0], [-1.0, 0.0, 0.0]])
        suspect = torch.tensor([[True, False, True], [False, False, False], [True, True, True]])
        assert suspect_share(advantages, suspect).tolist() == [0.75, 0.0, 0.0]
