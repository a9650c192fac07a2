"""DGPO and DiffusionNFT in plain numpy float64, written from papers and published code; nothing of the package is used.

``python -m tests.golden.groups`` records inputs, losses and gradients in ``groups.json``; the tests compare the package
with the recorded numbers and the recorded numbers with this file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

RECORD = Path(__file__).with_name("groups.json")


def sigmoid(z: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-z))


def over_pixels(values: Array) -> Array:
    """Means over all but the first axis."""
    return values.reshape(len(values), -1).mean(1)


# --- DGPO, arXiv 2510.08425 ---


def dgpo(
    sides: dict[str, Array], advantages: Array, beta: float, gamma: float = 0.0, clip: float | None = None
) -> tuple[Array, Array]:
    """Losses of groups (P,), and the gradient of their sum for the policy's predictions (P G, ...).

    At gamma = 0 the gradient is that of the published loss, G times mean_i stop(sigmoid(S)) A_i e_i / G, whose mean
    over the images of a group is written out here.
    """
    groups, count = advantages.shape
    error, reference = (
        over_pixels((sides[name] - sides["target"]) ** 2).reshape(groups, count) for name in ("model", "ref")
    )
    a = beta * (1 + gamma)
    s = (advantages * (a * error - beta * reference)).sum(1) / count
    factor = np.repeat(sigmoid(s), count) * advantages.ravel() / count * a / beta
    if clip is not None:
        ratio = np.exp(reference - error)
        factor = factor * ~np.where(advantages > 0, ratio > 1 + clip, ratio < 1 - clip).ravel()
    size = sides["target"][0].size
    gradient = factor.reshape(-1, 1, 1, 1) * 2 * (sides["model"] - sides["target"]) / size
    return np.log1p(np.exp(s)) / beta, gradient


# --- DiffusionNFT, arXiv 2509.16117 ---


def nft(
    sides: dict[str, Array], advantages: Array, beta: float, limit: float, slope: Array, offset: Array
) -> tuple[Array, Array]:
    """Losses of images (R,), and their gradient for the policy's predictions.

    The clean image of a prediction v is offset - slope v: x_t - sigma v for velocities, and
    (x_t - sqrt(1 - level) eps) / sqrt(level) for noise.
    """
    wide = slope.reshape(-1, 1, 1, 1)
    good = 0.5 + np.clip(advantages / limit, -1, 1) / 2
    losses, gradient = np.zeros(len(advantages)), np.zeros_like(sides["model"])
    for sign, share in ((1.0, good), (-1.0, 1 - good)):
        mixed = sides["ref"] + sign * beta * (sides["model"] - sides["ref"])
        difference = offset - wide * mixed - sides["clean"]
        weight = np.maximum(over_pixels(np.abs(difference)), 1e-5)
        factor = limit * share / beta / weight
        losses += factor * over_pixels(difference**2)
        inner = 2 * difference / sides["clean"][0].size * -wide * sign * beta
        gradient += factor.reshape(-1, 1, 1, 1) * inner
    return losses, gradient


def near(generator: np.random.Generator, rows: int) -> dict[str, Array]:
    """Clean images, noise, and predictions near a target."""
    shape = (rows, 2, 3, 3)
    sides = {name: generator.normal(size=shape) for name in ("clean", "noise", "target")}
    sides["ref"] = sides["target"] + 0.7 * generator.normal(size=shape)
    sides["model"] = sides["ref"] + 0.2 * generator.normal(size=shape)
    return sides


def listed(arrays: dict[str, Array]) -> dict[str, Any]:
    return {name: value.tolist() for name, value in arrays.items()}


def cases() -> dict[str, Any]:
    """Every case, from fixed seeds."""
    generator = np.random.default_rng(21)
    sides = near(generator, 12)
    rewards = generator.normal(size=(3, 4))
    advantages = (rewards - rewards.mean(1, keepdims=True)) / rewards.std(1, keepdims=True)
    record: dict[str, Any] = {"sides": listed(sides), "advantages": advantages.tolist()}
    record["dgpo"] = [
        {"beta": beta, "gamma": gamma, "clip": clip, "losses": losses.tolist(), "model": gradient.tolist()}
        for beta, gamma, clip in ((0.5, 0.0, None), (10.0, 0.0, None), (10.0, 0.5, None), (10.0, 0.0, 0.05))
        for losses, gradient in [dgpo(sides, advantages, beta, gamma, clip)]
    ]
    time = np.linspace(0.05, 0.95, 12)
    wide = time.reshape(-1, 1, 1, 1)
    processes = {
        "flow": (time, (1 - wide) * sides["clean"] + wide * sides["noise"]),
        "epsilon": (
            np.sqrt((1 - time) / time),
            (np.sqrt(wide) * sides["clean"] + np.sqrt(1 - wide) * sides["noise"]) / np.sqrt(wide),
        ),
    }
    record["time"] = time.tolist()
    record["nft"] = [
        {"process": name, "beta": beta, "limit": limit, "losses": losses.tolist(), "model": gradient.tolist()}
        for name, (slope, offset) in processes.items()
        for beta, limit in ((1.0, 5.0), (0.1, 1.0))
        for losses, gradient in [nft(sides, advantages.ravel(), beta, limit, slope, offset)]
    ]
    return record


if __name__ == "__main__":
    RECORD.write_text(json.dumps(cases()) + "\n", encoding="utf-8")
