"""Anchors in plain numpy float64, written from the papers; it imports nothing of the package.

``python -m tests.golden.anchors`` records inputs, terms and gradients in ``anchors.json``; the tests compare the
package with the recorded numbers and the recorded numbers with this file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

RECORD = Path(__file__).with_name("anchors.json")

TIMES = 30
"""Time steps of the small DDPM; its noisiest third begins at step 20."""

SHAPE = (2, 3, 3)


def levels() -> Array:
    """alpha_cumprod of the small DDPM's time steps."""
    return np.cumprod(1 - np.linspace(0.02, 0.25, TIMES) ** 1.5)


def over(values: Array) -> Array:
    return values[:, None, None, None]


def mean_over_latents(values: Array) -> Array:
    return values.mean(axis=(1, 2, 3))


# --- predictions: DiverseGRPO's distance (arXiv 2512.21514) on what the network predicts, and errors of the target ----


def distance(policy: Array, anchor: Array, counts: Array) -> tuple[float, Array]:
    """Mean over rows of counts |policy - anchor|^2 / D, with its gradient for the policy."""
    size = policy[0].size
    value = (counts * mean_over_latents((policy - anchor) ** 2)).mean()
    return float(value), over(counts) * 2 * (policy - anchor) / (size * len(policy))


def noisy(clean: Array, noise: Array, level: Array) -> Array:
    """arXiv 2006.11239, eq. 4."""
    return np.sqrt(over(level)) * clean + np.sqrt(1 - over(level)) * noise


# --- steps: means of guided DDIM steps (arXiv 2010.02502, eq. 12), without 1 / std^2 ----------------------------------


def step_coefficients(level: Array, following: Array, eta: float) -> tuple[Array, Array]:
    """A step's mean is the first value times x_t plus the second times the predicted noise."""
    std = eta * np.sqrt((1 - following) / (1 - level) * (1 - level / following))
    from_latents = np.sqrt(following / level)
    return from_latents, np.sqrt(1 - following - std**2) - np.sqrt(following * (1 - level) / level)


def guided(negative: Array, positive: Array, scale: float) -> Array:
    """arXiv 2207.12598."""
    return negative + scale * (positive - negative)


# --- recording -------------------------------------------------------------------------------------------------------


def noise_case(generator: np.random.Generator) -> dict[str, Any]:
    """Four pairs, rows of the preferred images first."""
    timestep = np.array([3, 19, 20, 29])
    clean_w, clean_l, noise = generator.normal(size=(3, 4, *SHAPE))
    level = levels()[np.tile(timestep, 2)]
    clean, noise = np.concatenate([clean_w, clean_l]), np.concatenate([noise, noise])
    reference = noise + 0.3 * generator.normal(size=noise.shape)
    policy = reference + 0.1 * generator.normal(size=noise.shape)
    early = (np.tile(timestep, 2) >= 2 / 3 * TIMES).astype(float)
    winner, winner_gradient = distance(policy[:4], noise[:4], np.ones(4))
    return {
        "timestep": timestep.tolist(),
        "clean": clean.tolist(),
        "latents": noisy(clean, noise, level).tolist(),
        "policy": policy.tolist(),
        "reference": reference.tolist(),
        "all": record(*distance(policy, reference, np.ones(8))),
        "early": record(*distance(policy, reference, early)),
        "winner": record(winner, np.concatenate([winner_gradient, np.zeros_like(winner_gradient)])),
    }


def step_case(generator: np.random.Generator) -> dict[str, Any]:
    """Three x_t at the first, second and last of a sampler's four steps, two steps from each; guidance 3.

    The sampler visits 21, 14, 7 and 0, so that its first third, rounded up, is 21 and 14.
    """
    timestep, following = np.array([21, 14, 0]), np.array([14, 7, -7])
    scale, eta = 3.0, 0.8
    alphas = levels()
    level, next_level = alphas[timestep], np.where(following < 0, 1.0, alphas[np.maximum(following, 0)])
    from_latents, from_noise = (over(value) for value in step_coefficients(level, next_level, eta))
    latents = generator.normal(size=(3, *SHAPE))
    reference = generator.normal(size=(6, *SHAPE))  # negative prompts first
    policy = reference + 0.2 * generator.normal(size=reference.shape)
    means = [from_latents * latents + from_noise * guided(*np.split(side, 2), scale) for side in (policy, reference)]
    start = np.repeat(np.arange(3), 2)
    next_latents = means[1][start] + 0.1 * generator.normal(size=(6, *SHAPE))
    chosen = np.array([1, 2, 4])

    def for_predictions(gradient: Array) -> Array:
        """The chain rule through guidance and the step."""
        return np.concatenate([from_noise * (1 - scale) * gradient, from_noise * scale * gradient])

    terms = {}
    for name, counts in (("all", np.ones(3)), ("early", np.array([1.0, 1.0, 0.0]))):
        value, gradient = distance(*means, counts)
        terms[name] = record(value, for_predictions(gradient))
    value, gradient = distance(means[0][start[chosen]], next_latents[chosen], np.ones(3))
    terms["winner"] = record(value, for_predictions(gradient))
    return {
        "timestep": timestep.tolist(),
        "next_timestep": following.tolist(),
        "guidance_scale": scale,
        "eta": eta,
        "latents": latents.tolist(),
        "next_latents": next_latents.tolist(),
        "start": start.tolist(),
        "chosen": chosen.tolist(),
        "rejected": (chosen ^ 1).tolist(),
        "policy": policy.tolist(),
        "reference": reference.tolist(),
        **terms,
    }


def record(value: float, gradient: Array) -> dict[str, Any]:
    return {"value": value, "gradient": gradient.tolist()}


def cases() -> dict[str, Any]:
    """Every case, from fixed seeds."""
    return {
        "levels": levels().tolist(),
        "noise": noise_case(np.random.default_rng(1)),
        "steps": step_case(np.random.default_rng(2)),
    }


if __name__ == "__main__":
    RECORD.write_text(json.dumps(cases()) + "\n", encoding="utf-8")
