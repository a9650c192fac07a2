"""Optimal policies at equal proxy: docs/derivations.md, section 13, in float64 on random discrete worlds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from benchmarks.equal_proxy import (
    Family,
    World,
    anchored,
    at_proxy,
    entropy,
    grid_world,
    normalised,
    opinion_table,
    root,
    see,
    spread,
    suspects,
    table,
    tilted,
)
from seedpo.core.objectives import entropy_weights
from tests.invariants.test_toy_optimum import REFERENCE, REWARD, optimum, total_variation, trained

Array = NDArray[np.float64]

GAMMAS = (-0.4, 0.3, 1.0, 3.0, 20.0)
SEEDS = range(6)
DOCUMENT = Path("docs/derivations.md").read_text(encoding="utf-8")


def random_world(seed: int) -> World:
    """From 3 to 40 images with normal rewards; references from nearly even to very uneven."""
    generator = np.random.default_rng(seed)
    size = int(generator.integers(3, 41))
    logits = generator.normal(size=size) * generator.uniform(0.3, 3.0)
    proxy, truth, opinion = generator.normal(size=(3, size))
    return World(
        log_reference=logits - np.logaddexp.reduce(logits),
        proxy=proxy,
        truth=truth,
        opinion=opinion,
        content=generator.integers(0, 3, size),
        artefact=np.arange(size),
    )


def mean_of(world: World, share: float = 0.6) -> float:
    """A proxy that policies can have: between the reference's and the highest."""
    start = float(np.exp(world.log_reference) @ world.proxy)
    return start + share * (float(world.proxy.max()) - start)


def kl(policy: Array, other: Array) -> float:
    return float(policy @ (np.log(policy) - np.log(other)))


def rivals(world: World, count: int = 200) -> list[Array]:
    """Other policies with the same proxy: random weights, tilted until E[r] fits."""
    generator = np.random.default_rng(99)

    def family(logits: Array) -> Family:
        return lambda weight: normalised(logits + weight * world.proxy)

    noise = generator.normal(size=(count, len(world.proxy))) * generator.uniform(0.01, 2.0, size=(count, 1))
    return [at_proxy(world, family(world.log_reference + part), mean_of(world)) for part in noise]


def of(world: World, family: Family) -> Array:
    policy = at_proxy(world, family, mean_of(world))
    assert float(policy @ world.proxy) == pytest.approx(mean_of(world), abs=1e-12)
    return policy


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("gamma", GAMMAS)
def test_more_entropy_and_more_divergence_at_equal_proxy(seed: int, gamma: float) -> None:
    """The inequality, and the two divergences that it consists of."""
    world = random_world(seed)
    reference = np.exp(world.log_reference)
    base, term = of(world, see(world, 0.0)), of(world, see(world, gamma))
    farther = kl(term, reference) - kl(base, reference)
    diverse = -float(term @ np.log(term)) + float(base @ np.log(base))
    assert farther == pytest.approx(kl(term, base), abs=1e-11)
    assert gamma * diverse == pytest.approx(kl(term, base) + (1 + gamma) * kl(base, term), abs=1e-10)
    assert gamma * diverse > farther > 0


@pytest.mark.parametrize("seed", SEEDS)
def test_each_policy_is_the_best_of_its_objective_at_its_proxy(seed: int) -> None:
    """KL - gamma H, KL - strength E[f], KL - power H(cells), and a KL that counts more on suspects.

    Against random policies with the same proxy.
    """
    world = random_world(seed)
    doubted = np.arange(len(world.proxy)) % 3 == 0
    stiffness = np.where(doubted, 4.0, 1.0)

    def cells_entropy(policy: Array) -> float:
        mass = np.bincount(world.content, weights=policy)
        return entropy(mass[mass > 0])

    reference = np.exp(world.log_reference)
    objectives: list[tuple[Family, Callable[[Array], float]]] = [
        (see(world, 0.0), lambda policy: kl(policy, reference)),
        (see(world, 3.0), lambda policy: kl(policy, reference) - 3.0 * entropy(policy)),
        (tilted(world, world.opinion, 0.7), lambda policy: kl(policy, reference) - 0.7 * float(policy @ world.opinion)),
        (
            spread(see(world, 0.0), world.content, 2.0),
            lambda policy: kl(policy, reference) - 2.0 * cells_entropy(policy),
        ),
        (
            anchored(world, doubted, 3.0),
            lambda policy: float(stiffness @ (policy * np.log(policy / reference) - policy + reference)),
        ),
    ]
    others = rivals(world)
    for family, objective in objectives:
        best = objective(of(world, family))
        assert all(objective(other) > best - 1e-12 for other in others)


@pytest.mark.parametrize("seed", SEEDS)
def test_entropy_and_divergence_rise_with_gamma(seed: int) -> None:
    world = random_world(seed)
    policies = [of(world, see(world, gamma)) for gamma in (-0.4, 0.0, 0.3, 1.0, 3.0, 20.0)]
    for lower, higher in pairwise(policies):
        assert entropy(higher) > entropy(lower)
    for lower, higher in pairwise(policies[1:]):
        assert kl(higher, np.exp(world.log_reference)) > kl(lower, np.exp(world.log_reference))


def test_nothing_changes_where_the_reference_is_a_function_of_the_proxy() -> None:
    world = random_world(0)
    logits = 0.8 * world.proxy
    world = replace(world, log_reference=logits - np.logaddexp.reduce(logits))
    np.testing.assert_allclose(of(world, see(world, 3.0)), of(world, see(world, 0.0)), rtol=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("slope", [0.5, -0.5])
def test_where_truth_follows_the_reference_its_gain_has_the_opposite_sign_of_the_slope(seed: int, slope: float) -> None:
    world = random_world(seed)
    truth = world.proxy + slope * world.log_reference
    base, term = of(world, see(world, 0.0)), of(world, see(world, 1.0))
    reference = np.exp(world.log_reference)
    diverse, farther = entropy(term) - entropy(base), kl(term, reference) - kl(base, reference)
    assert float((term - base) @ truth) == pytest.approx(-slope * (diverse + farther), abs=1e-11)
    assert slope * float((term - base) @ truth) < 0


@pytest.mark.parametrize("seed", SEEDS)
def test_the_first_gain_in_truth_is_its_covariance_with_the_feature_given_the_proxy(seed: int) -> None:
    world = random_world(seed)
    base, size = of(world, see(world, 0.0)), 1e-4

    def partial_covariance(feature: Array) -> float:
        def covariance(one: Array, other: Array) -> float:
            return float(base @ (one * other)) - float(base @ one) * float(base @ other)

        slope = covariance(feature, world.proxy) / covariance(world.proxy, world.proxy)
        return covariance(world.truth, feature - slope * world.proxy)

    cases: list[tuple[Callable[[float], Family], Array]] = [
        (lambda strength: tilted(world, world.opinion, strength), world.opinion),
        (lambda strength: see(world, strength), -world.log_reference),
    ]
    for family, feature in cases:
        up, down = (of(world, family(sign * size)) for sign in (1, -1))
        slope = float((up - down) @ world.truth) / (2 * size)
        assert slope == pytest.approx(partial_covariance(feature), rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_second_opinion_rises_with_its_strength_and_pays_in_divergence(seed: int) -> None:
    world = random_world(seed)
    base = of(world, see(world, 0.0))
    before = float(base @ world.opinion)
    for strength in (0.2, 1.0, 3.0):
        policy = of(world, tilted(world, world.opinion, strength))
        assert float(policy @ world.opinion) > before
        before = float(policy @ world.opinion)
        paid = kl(policy, np.exp(world.log_reference)) - kl(base, np.exp(world.log_reference))
        assert paid == pytest.approx(kl(policy, base), abs=1e-10)


def test_where_features_see_everything_novelty_is_the_entropy_term() -> None:
    world = random_world(1)
    np.testing.assert_allclose(
        of(world, spread(see(world, 0.0), world.artefact, 3.0)), of(world, see(world, 3.0)), rtol=1e-9
    )


def test_a_stiffer_anchor_is_stationary() -> None:
    """r - (1 + kappa) log(pi / pi_ref) / weight is the same for all images; with kappa = 0 it is the base method."""
    world = grid_world(size=9)
    doubted, weight = suspects(world), 0.7
    policy = anchored(world, doubted, 3.0)(weight)
    assert 0 < doubted.sum() < doubted.size
    level = world.proxy - np.where(doubted, 4.0, 1.0) * (np.log(policy) - world.log_reference) / weight
    np.testing.assert_allclose(level, level[0], atol=1e-9)
    np.testing.assert_allclose(anchored(world, doubted, 0.0)(weight), see(world, 0.0)(weight), rtol=1e-9)


def test_a_winner_s_weight_is_a_reward_of_its_logarithm() -> None:
    weight = torch.tensor([1.0, 2.5, 0.4, 1.0, 3.0, 0.7], dtype=torch.float64)
    a, b = entropy_weights(0.5, 1.0, convention="relative")
    best = ((b / a) * REFERENCE.log() + (REWARD + weight.log()) / a).softmax(0)
    assert total_variation(trained(a, b, winner_weight=weight), best) < 1e-3
    assert total_variation(best, optimum(a, b)) > 0.1


def test_an_image_whose_wins_are_dropped_is_driven_out() -> None:
    """It is the reward's best, and keeps its losses alone."""
    kept = torch.ones(6, dtype=torch.float64)
    kept[2] = 0.0
    assert float(optimum(0.5, 0.5)[2]) > 0.1
    assert float(trained(0.5, 0.5, winner_weight=kept)[2]) < 1e-4


@pytest.mark.parametrize("kappa", [1.0, 3.0, 9.0])
def test_a_stiffer_anchor_of_wins_alone_lifts_a_suspect_that_ties(kappa: float) -> None:
    """The loss of two images that win half of the time; b and a are 1 + kappa times as large where the suspect wins."""

    def slope(lift: float, scale: float) -> float:
        return float(1 / (1 + np.exp(-lift)) - scale * (1 + kappa) / (1 + np.exp((1 + kappa) * lift)))

    assert root(lambda lift: slope(lift, 1.0), -9.0, 9.0) > 0.2
    assert root(lambda lift: slope(lift, 1 / (1 + kappa)), -9.0, 9.0) == pytest.approx(0.0, abs=1e-9)


def test_mixing_the_base_method_s_optimum_with_the_reference_is_the_base_method_at_a_larger_beta() -> None:
    world = random_world(2)
    mixed = normalised(0.3 * np.log(see(world, 0.0)(2.0)) + 0.7 * world.log_reference)
    np.testing.assert_allclose(mixed, see(world, 0.0)(0.6), rtol=1e-12)


def test_resets_of_the_reference_add_up_for_the_base_method_and_forget_it_for_the_term() -> None:
    world, beta, gamma = random_world(3), 2.0, 0.5
    for term, end in ((0.0, see(world, 0.0)(40 / beta)), (gamma, normalised(world.proxy / (beta * gamma)))):
        policy = np.exp(world.log_reference)
        for _ in range(40):
            policy = see(replace(world, log_reference=np.log(policy)), term)(1 / (beta * (1 + term)))
        np.testing.assert_allclose(policy, end, rtol=1e-5, atol=1e-12)


def numbers(row: str) -> list[float]:
    return [float(cell) for cell in row.split("|")[2:-1]]


def test_the_tables_of_the_document() -> None:
    for rows in (table(), opinion_table()):
        start = DOCUMENT.splitlines().index(rows[0])
        for row, written in zip(rows[2:], DOCUMENT.splitlines()[start + 2 :], strict=False):
            assert row.split("|")[1] == written.split("|")[1]
            assert numbers(row) == pytest.approx(numbers(written), abs=0.011)


def test_truth_and_diversity_rise_together_where_a_second_opinion_meets_novelty_of_content() -> None:
    gains = {row.split("|")[1].strip(): numbers(row) for row in table()[2:]}
    for figure in (0, 2, 3):
        assert gains["second opinion and novelty of content"][figure] > 0.3
    assert gains["SEE"][2] < -1 < 1 < gains["SEE"][3]
    assert gains["novelty of content"][2] > gains["novelty of artefacts"][2] + 1
