"""Flow-GRPO's loss in plain numpy float64, written from the paper; it imports nothing of the package.

``python -m tests.golden.policy_gradient`` records inputs, losses and gradients in ``policy_gradient.json``. A step's
mean is from_latents * x + from_prediction * prediction, with coefficients of DDIM or of one of three flow SDEs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.golden.reference import Array, ddim_coefficients, step_log_prob

RECORD = Path(__file__).with_name("policy_gradient.json")

SIGMA = np.array([1.0, 0.9, 0.8, 0.65, 0.5, 0.35, 0.2, 0.1])
NEXT_SIGMA = np.array([0.9, 0.8, 0.65, 0.5, 0.35, 0.2, 0.1, 0.02])
ALPHA = np.linspace(0.05, 0.9, 8)
ALPHA_PREV = ALPHA + 0.08

Coefficients = tuple[Array, Array, Array]


def euler_maruyama(sigma: Array, following: Array, rate: Array) -> Coefficients:
    """x + [v + rate^2 / (2 sigma) (x + (1 - sigma) v)] dt, and rate sqrt(-dt) (arXiv 2505.05470, eq. 9)."""
    dt, share = following - sigma, rate**2 / (2 * sigma)
    return 1 + share * dt, dt * (1 + share * (1 - sigma)), rate * np.sqrt(-dt)


def flow_grpo(sigma: Array, following: Array, strength: float) -> Coefficients:
    """rate = a sqrt(sigma / (1 - sigma)); the published code takes the next level in the denominator at sigma = 1."""
    rate = strength * np.sqrt(sigma / (1 - np.where(sigma == 1, following, sigma)))
    return euler_maruyama(sigma, following, rate)


def dance(sigma: Array, following: Array, strength: float) -> Coefficients:
    """A constant rate (arXiv 2505.07818)."""
    return euler_maruyama(sigma, following, np.full_like(sigma, strength))


def cps(sigma: Array, following: Array, strength: float) -> Coefficients:
    """(1 - sigma') x0 + sqrt(sigma'^2 - std^2) noise, std = sigma' sin(a pi / 2) (arXiv 2509.05952)."""
    std = following * np.sin(strength * np.pi / 2)
    clean, noise = 1 - following, np.sqrt(following**2 - std**2)
    return clean + noise, noise * (1 - sigma) - clean * sigma, std


STEPS = {
    "ddim": ddim_coefficients(ALPHA, ALPHA_PREV, 1.0),
    "flow-grpo": flow_grpo(SIGMA, NEXT_SIGMA, 0.7),
    "dance": dance(SIGMA, NEXT_SIGMA, 0.3),
    "cps": cps(SIGMA, NEXT_SIGMA, 0.8),
}


def over_latents(values: Array) -> Array:
    return values[:, None, None, None]


def loss_and_gradient(
    rows: dict[str, Array], coefficients: Coefficients, *, clip_range: float | None, beta: float
) -> tuple[Array, Array]:
    """max(-A rho, -A clip(rho)) + beta |mean - reference mean|^2 / (2 std^2 D), and its gradient by the prediction."""
    log_prob, rollout = (
        step_log_prob(rows["next"], rows["x"], rows[name], coefficients) for name in ("model", "rollout")
    )
    ratio, advantage = np.exp(log_prob - rollout), rows["advantage"]
    clipped = ratio if clip_range is None else np.clip(ratio, 1 - clip_range, 1 + clip_range)
    losses = np.maximum(-advantage * ratio, -advantage * clipped)
    passes = -advantage * ratio >= -advantage * clipped
    from_latents, from_prediction, std = (over_latents(value) for value in coefficients)
    mean, reference = (from_latents * rows["x"] + from_prediction * rows[name] for name in ("model", "ref"))
    size = mean[0].size
    losses = losses + beta * ((mean - reference) ** 2 / (2 * std**2)).mean(axis=(1, 2, 3))
    by_mean = over_latents(-advantage * ratio * passes) * (rows["next"] - mean) / std**2 / size
    by_mean += beta * (mean - reference) / std**2 / size
    return losses, by_mean * from_prediction


SETTINGS = (
    {"clip_range": None, "beta": 0.0},
    {"clip_range": 0.1, "beta": 0.0},
    {"clip_range": 0.1, "beta": 0.5},
    {"clip_range": 1e-4, "beta": 0.04},
)


def case(kind: str, generator: np.random.Generator) -> dict[str, Any]:
    """Eight steps at eight levels, whose policies lie about half a standard deviation apart."""
    shape = (8, 2, 3, 3)
    coefficients = STEPS[kind]
    from_latents, from_prediction, std = (over_latents(value) for value in coefficients)
    x, rollout, noise, moved, back = generator.normal(size=(5, *shape))
    apart = std / np.abs(from_prediction)
    rows = {
        "x": x,
        "rollout": rollout,
        "model": rollout + 0.6 * apart * moved,
        "ref": rollout + 0.6 * apart * back,
        "next": from_latents * x + from_prediction * rollout + std * noise,
        "advantage": np.array([1.2, -0.8, 0.5, -1.5, 0.9, -0.3, 2.0, -2.0]),
    }
    recorded = [
        {**settings, **dict(zip(("losses", "gradient"), map(np.ndarray.tolist, result), strict=True))}
        for settings in SETTINGS
        for result in [loss_and_gradient(rows, coefficients, **settings)]
    ]
    return {"rows": {name: value.tolist() for name, value in rows.items()}, "recorded": recorded}


def cases() -> dict[str, Any]:
    """Every case, from fixed seeds."""
    return {kind: case(kind, np.random.default_rng(seed)) for seed, kind in enumerate(STEPS)}


if __name__ == "__main__":
    RECORD.write_text(json.dumps(cases()) + "\n", encoding="utf-8")
