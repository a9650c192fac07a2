"""A beta that changes in the course of a run."""

from __future__ import annotations

import math

import pytest

from seedpo.methods.beta_rule import BetaRule, beta_rule
from seedpo.methods.settings import ObjectiveConfig


def margins_under(rule: BetaRule, margins: list[float]) -> list[float]:
    """Factors of the updates, of which ``margins`` are the mean |m| at a factor of 1."""
    factors = []
    for margin in margins:
        factors.append(rule.factor)
        rule.after_update({"margin_abs": margin * rule.factor})
    return factors


def test_nothing_set_is_no_rule() -> None:
    assert beta_rule(ObjectiveConfig()) is None
    assert beta_rule(ObjectiveConfig(gradient_factor=0.2)) == BetaRule(gradient_factor=0.2)
    assert beta_rule(ObjectiveConfig(beta_decay=(3, 9))) == BetaRule(decay=(3, 9))


def test_it_starts_at_the_greatest_beta_and_holds_the_factor() -> None:
    factors = margins_under(BetaRule(gradient_factor=0.2, memory=0.0), [0.0, 0.5, 4.0, 8.0, 2.0])
    wanted = math.log(4)
    assert factors == pytest.approx([1.0, 1.0, 1.0, wanted / 4, wanted / 8])


def test_the_average_remembers() -> None:
    rule = BetaRule(gradient_factor=0.2, memory=0.9)
    margins_under(rule, [4.0, 8.0])
    assert rule.mean_margin == pytest.approx(0.9 * 4.0 + 0.1 * 8.0)
    assert rule.factor == pytest.approx(math.log(4) / 4.4)


def test_decay_counts_updates_and_goes_with_a_held_factor() -> None:
    rule = BetaRule(decay=(1, 3), gradient_factor=0.2, memory=0.0)
    factors = margins_under(rule, [4.0] * 5)
    assert factors == pytest.approx([1.0, *[math.log(4) / 4] * 4]), "a lower beta needs less holding"
    assert margins_under(BetaRule(decay=(1, 3)), [4.0] * 5) == pytest.approx([1.0, 1.0, 0.75, 0.5, 0.5])


def test_the_state_is_all_of_it() -> None:
    margins = [1.0, 3.0, 9.0, 2.0, 7.0, 5.0]
    whole, first = (BetaRule(decay=(2, 5), gradient_factor=0.1, memory=0.7) for _ in range(2))
    expected = margins_under(whole, margins)
    before = margins_under(first, margins[:3])
    second = BetaRule(decay=(2, 5), gradient_factor=0.1, memory=0.7)
    second.restore(first.state())
    assert before + margins_under(second, margins[3:]) == expected
