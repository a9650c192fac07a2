from __future__ import annotations

import math

import pytest
import torch

from seedpo.scenes.taste import AVERSION, LIKING, PENALTY, TEMPERATURE, TIE, choose, true_utility, utility
from tests.scenes.drawings import seeded, some_drawings

PROMPTS = ["a large red circle on a gray background", "a small blue star on a white background"]


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


class TestUtility:
    def test_of_the_best_drawing_is_3(self) -> None:
        zero = torch.zeros(1)
        assert utility(vividness=torch.ones(1), wrong=zero, residual=zero).item() == LIKING == 3.0

    @pytest.mark.parametrize(
        ("vividness", "wrong", "residual", "wanted"),
        [(0.0, 0, 0.0, 0.0), (0.5, 0, 0.0, 1.5), (1.0, 1, 0.0, 1.0), (1.0, 4, 0.1, -7.0), (0.0, 0, 0.05, -1.0)],
    )
    def test_is_the_stated_sum(self, vividness: float, wrong: int, residual: float, wanted: float) -> None:
        value = utility(
            vividness=torch.tensor([vividness]), wrong=torch.tensor([wrong]), residual=torch.tensor([residual])
        )
        assert value.item() == pytest.approx(wanted, abs=1e-5)
        assert value.item() == pytest.approx(LIKING * vividness - PENALTY * wrong - AVERSION * residual, abs=1e-5)

    def test_a_wrong_attribute_costs_about_its_penalty(self) -> None:
        image = some_drawings(PROMPTS[:1])
        right, wrong = true_utility(
            image.expand(2, -1, -1, -1), [PROMPTS[0], "a large red circle on a brown background"]
        ).tolist()
        assert right - wrong > PENALTY

    def test_is_one_value_per_image(self) -> None:
        assert true_utility(some_drawings(PROMPTS), PROMPTS).shape == (2,)
        assert true_utility(some_drawings(PROMPTS[:1]), PROMPTS[:1]).shape == (1,)


class TestChoice:
    @pytest.mark.parametrize("difference", [-3.0, -1.0, -0.2, 0.0, 0.2, 0.5, 2.0])
    def test_frequencies_are_logistic(self, difference: float) -> None:
        """P(first) = sigmoid((d - tie) / temperature), P(second) = sigmoid((-d - tie) / temperature)."""
        count = 40_000
        second = torch.linspace(-2, 2, count)
        label = choose(second + difference, second, generator=seeded(1))
        wanted = {
            1.0: sigmoid((difference - TIE) / TEMPERATURE),
            0.0: sigmoid((-difference - TIE) / TEMPERATURE),
        }
        wanted[0.5] = 1 - sum(wanted.values())
        for value, chance in wanted.items():
            deviation = math.sqrt(chance * (1 - chance) / count)
            assert float((label == value).double().mean()) == pytest.approx(chance, abs=4 * deviation + 1e-6), value

    def test_labels_are_1_0_and_a_half(self) -> None:
        label = choose(torch.zeros(500), torch.zeros(500), generator=seeded())
        assert label.unique().tolist() == [0.0, 0.5, 1.0]

    def test_great_differences_decide(self) -> None:
        far = torch.full((1000,), 20.0)
        assert (choose(far, -far, generator=seeded()) == 1).all()
        assert (choose(-far, far, generator=seeded()) == 0).all()

    def test_is_reproducible(self) -> None:
        values = torch.randn(2, 100, generator=seeded())
        first, again = (choose(*values, generator=seeded(4)) for _ in range(2))
        assert torch.equal(first, again)
        assert not torch.equal(choose(*values, generator=seeded(5)), first)
