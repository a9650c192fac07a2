"""Probabilities of the first token against a softmax over the whole vocabulary in float64."""

from __future__ import annotations

import numpy as np
import pytest

from seedpo.rewards.remote.vlm.probabilities import log_odds, log_probability, probability

VOCABULARY = [
    "Yes", " Yes", "yes", "\u2581yes", "\u0120Yes", "YES", "No", " no", "NO", "Yeah", "Nope", "three", "3", " Three",
    *(f"word{number}" for number in range(300)),
]  # fmt: skip
YES = [place for place, token in enumerate(VOCABULARY) if token.strip(" \u2581\u0120").lower() == "yes"]
NO = [place for place, token in enumerate(VOCABULARY) if token.strip(" \u2581\u0120").lower() == "no"]
THREE = [VOCABULARY.index("three"), VOCABULARY.index("3"), VOCABULARY.index(" Three")]


def softmax(seed: int, likely: list[int], lift: float) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(size=len(VOCABULARY))
    logits[likely] += lift
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def listed(probabilities: np.ndarray, count: int = 20) -> list[tuple[str, float]]:
    order = np.argsort(-probabilities)[:count]
    return [(VOCABULARY[place], float(np.log(probabilities[place]))) for place in order]


@pytest.mark.parametrize("seed", range(20))
def test_all_words_among_the_likely_ones(seed: int) -> None:
    p = softmax(seed, YES + NO + THREE, 8.0)
    tokens = listed(p)
    assert len(YES) == 6
    assert len(NO) == 3
    assert log_odds(tokens, ["yes"], ["no"]) == pytest.approx(np.log(p[YES].sum() / p[NO].sum()), rel=1e-12, abs=1e-12)
    assert log_odds(tokens, ["no"], ["yes"]) == pytest.approx(np.log(p[NO].sum() / p[YES].sum()), rel=1e-12, abs=1e-12)
    assert log_probability(tokens, ["Yes"]) == pytest.approx(np.log(p[YES].sum()), rel=1e-12)
    assert probability(tokens, ["three", "3"]) == pytest.approx(p[THREE].sum(), rel=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_a_word_that_is_not_listed_counts_as_the_most_that_it_can_be(seed: int) -> None:
    p = softmax(seed, YES, 9.0)
    p[NO] = 1e-12
    p /= p.sum()
    tokens = listed(p)
    odds = log_odds(tokens, ["yes"], ["no"])
    assert odds is not None
    assert odds <= np.log(p[YES].sum() / p[NO].sum())
    most = min(p[np.argsort(-p)[19]], 1.0 - p[np.argsort(-p)[:20]].sum())
    assert odds == pytest.approx(np.log(p[YES].sum() / most), rel=1e-9)
    assert probability(tokens, ["no"]) == pytest.approx(most, rel=1e-9)
    assert log_odds(tokens, ["no"], ["yes"]) == pytest.approx(-odds)


def test_neither_among_the_likely_ones() -> None:
    assert log_odds(listed(softmax(0, list(range(20, 60)), 20.0)), ["yes"], ["no"]) is None


def test_a_list_that_leaves_nothing_over() -> None:
    odds = log_odds([("Yes", 0.0)], ["yes"], ["no"])
    assert odds == pytest.approx(24 * np.log(2.0))
    assert probability([("Yes", 0.0)], ["yes"]) == 1.0


def test_a_text_that_occurs_twice_is_summed() -> None:
    assert probability([("Yes", np.log(0.3)), ("Yes", np.log(0.2)), ("No", np.log(0.5))], ["yes"]) == pytest.approx(0.5)
