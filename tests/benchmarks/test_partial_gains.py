"""What a feature adds to truth at equal proxy, told from images alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.equal_proxy import World, at_proxy, divergence, see, tilted
from benchmarks.partial_gains import atypicality, distances, gain, gain_interval
from seedpo.evaluation.targets import ModelOptions, load_target, parse_target
from seedpo.metrics.records import Samples
from seedpo.scenes.prompts import EVALUATION_PROMPTS


def values(prompts: int = 1, images: int = 50, seed: int = 0) -> Tensor:
    """Truth, proxy and feature (3, P, K), each with something of the others."""
    mixed = torch.tensor([[1.0, 0.4, 0.5], [0.0, 1.0, 0.6], [0.0, 0.0, 1.0]], dtype=torch.float64)
    drawn = torch.randn(3, prompts, images, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return torch.einsum("ij,jpk->ipk", mixed, drawn)


def test_is_what_a_slight_tilt_at_equal_proxy_gives() -> None:
    truth, proxy, feature = values()
    images = truth.shape[1]
    numbers = np.arange(images)
    world = World(
        log_reference=np.full(images, -math.log(images)),
        proxy=proxy[0].numpy(),
        truth=truth[0].numpy(),
        opinion=feature[0].numpy(),
        content=numbers,
        artefact=numbers,
    )
    mean = float(world.proxy.mean())
    base, policy = at_proxy(world, see(world, 0.0), mean), at_proxy(world, tilted(world, world.opinion, 1e-3), mean)
    np.testing.assert_allclose(base, 1 / images, rtol=1e-9)
    paid = divergence(policy, world.log_reference)
    assert gain(truth, proxy, feature, nats=paid) == pytest.approx(float((policy - base) @ world.truth), rel=1e-2)


def test_only_differences_within_a_prompt_and_given_the_proxy_count() -> None:
    truth, proxy, feature = values(prompts=6)
    plain = gain(truth, proxy, feature)
    assert plain > 0.1
    moved = torch.arange(6.0)[:, None]
    assert gain(truth + 3 * moved, proxy - moved, 5 * feature + 7 * moved) == pytest.approx(plain)
    assert gain(truth, proxy, feature + 2.5 * proxy) == pytest.approx(plain)
    assert gain(truth, proxy, -feature) == pytest.approx(-plain)
    mean, low, high = gain_interval(truth, proxy, feature)
    assert low < mean < high
    assert mean == plain


def test_distance_to_the_nearest_other_image() -> None:
    angles = torch.tensor([[0.0, 0.1, 1.0, 0.1]])
    features = torch.stack([angles.cos(), angles.sin()], -1) * torch.tensor([1.0, 2.0, 3.0, 4.0])[None, :, None]
    far = distances(features).exp()
    torch.testing.assert_close(far[0, 0].item(), 1 - math.cos(0.1), rtol=1e-3, atol=0)
    torch.testing.assert_close(far[0, 2].item(), 1 - math.cos(0.9), rtol=1e-3, atol=0)
    assert far[0, 1] == far[0, 3] < 2e-6


def test_noise_is_atypical_of_the_model() -> None:
    model = load_target(parse_target("scenes", ModelOptions()))
    prompts = EVALUATION_PROMPTS[:2]
    flat = torch.full((2, 1, 3, 32, 32), 0.5)
    noise = torch.rand(2, 1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    errors = atypicality(model, Samples(images=torch.cat([flat, noise], 1), prompts=prompts))
    assert errors.shape == (2, 2)
    assert (errors[:, 1] > errors[:, 0]).all()
