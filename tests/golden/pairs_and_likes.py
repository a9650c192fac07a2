"""DSPO, MaPO and Diffusion-KTO in plain numpy float64, written from the papers; it imports nothing of the package.

``python -m tests.golden.pairs_and_likes`` records inputs, losses and gradients in ``pairs_and_likes.json``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

RECORD = Path(__file__).with_name("pairs_and_likes.json")


def sigmoid(z: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-z))


def inner(first: Array, second: Array) -> Array:
    """Sum of the products of the entries of each row, shaped to be broadcast over them."""
    product: Array = (first * second).sum(axis=(1, 2, 3), keepdims=True)
    return product


def dspo(sides: dict[str, Array], beta: float) -> tuple[Array, dict[str, Array]]:
    """Losses, and gradients for the policy's two predictions: the official code's loss for SD1.5."""
    size = sides["target_w"][0].size
    d = {side: sides[f"model_{side}"] - sides[f"target_{side}"] for side in "wl"}
    r = {side: sides[f"ref_{side}"] - sides[f"target_{side}"] for side in "wl"}
    error = {side: inner(d[side], d[side]) / size for side in "wl"}
    ref_error = {side: inner(r[side], r[side]) / size for side in "wl"}
    u = -0.5 * beta * ((error["w"] - error["l"]) - (ref_error["w"] - ref_error["l"]))
    g, e = 1 - sigmoid(u), sides["model_w"] - sides["ref_w"]
    v = d["w"] - beta * g * e
    through_sigma = 2 * beta**2 / size**2 * g * (1 - g) * inner(v, e)
    gradients = {
        "model_w": 2 / size * (1 - beta * g) * v - through_sigma * d["w"],
        "model_l": through_sigma * d["l"],
    }
    return (inner(v, v) / size).ravel(), gradients


def mapo(sides: dict[str, Array], beta: float, s: float, steps: float) -> tuple[Array, dict[str, Array]]:
    """Losses, and gradients for the policy's two predictions."""
    size = sides["target_w"][0].size
    d = {side: sides[f"model_{side}"] - sides[f"target_{side}"] for side in "wl"}
    x = {side: s * inner(d[side], d[side]) / size for side in "wl"}
    fit = {side: x[side] / (np.exp(x[side]) - 1) for side in "wl"}
    slope = {side: s * (np.exp(x[side]) - 1 - x[side] * np.exp(x[side])) / (np.exp(x[side]) - 1) ** 2 for side in "wl"}
    margin = steps * (fit["w"] - fit["l"])
    losses = x["w"] / s - beta * np.log(sigmoid(margin))
    pull = beta * steps * sigmoid(-margin)
    gradients = {
        "model_w": (1 - pull * slope["w"]) * 2 / size * d["w"],
        "model_l": pull * slope["l"] * 2 / size * d["l"],
    }
    return losses.ravel(), gradients


def kto(sides: dict[str, Array], liked: NDArray[np.bool_], beta: float, weights: Array) -> tuple[Array, Array, float]:
    """Losses, the gradient for the policy's prediction, and Q, of single images."""
    size = sides["target"][0].size
    d, r = sides["model"] - sides["target"], sides["ref"] - sides["target"]
    reward = beta * (inner(r, r) - inner(d, d)) / size
    baseline = max(0.0, float(reward.mean()))
    y = np.where(liked, 1.0, -1.0)[:, None, None, None]
    w = np.where(liked, *weights)[:, None, None, None]
    h = sigmoid(y * (reward - baseline))
    gradient = -y * w * h * (1 - h) * beta * (-2 / size) * d
    return (w * (1 - h)).ravel(), gradient, baseline


def predictions(generator: np.random.Generator, suffixes: tuple[str, ...], rows: int) -> dict[str, Array]:
    """Targets, and predictions near them."""
    shape = (rows, 2, 3, 3)
    sides = {f"target{suffix}": generator.normal(size=shape) for suffix in suffixes}
    for suffix in suffixes:
        sides[f"ref{suffix}"] = sides[f"target{suffix}"] + 0.7 * generator.normal(size=shape)
        sides[f"model{suffix}"] = sides[f"ref{suffix}"] + 0.2 * generator.normal(size=shape)
    return sides


def listed(arrays: dict[str, Array]) -> dict[str, Any]:
    return {name: value.tolist() for name, value in arrays.items()}


def cases() -> dict[str, Any]:
    """Every case, from fixed seeds."""
    pairs = predictions(np.random.default_rng(11), ("_w", "_l"), 4)
    images = predictions(np.random.default_rng(12), ("",), 6)
    liked = np.array([True, False, True, True, False, False])
    record: dict[str, Any] = {"pairs": listed(pairs), "images": listed(images), "liked": liked.tolist()}
    record["dspo"] = [
        {"beta": beta, "losses": losses.tolist(), **listed(gradients)}
        for beta in (0.001, 0.5, 5.0)
        for losses, gradients in [dspo(pairs, beta)]
    ]
    record["mapo"] = [
        {"beta": beta, "scale": s, "steps": steps, "losses": losses.tolist(), **listed(gradients)}
        for beta, s, steps in ((0.1, 0.5, 1000.0), (1.0, 2.0, 10.0))
        for losses, gradients in [mapo(pairs, beta, s, steps)]
    ]
    record["kto"] = [
        {"beta": beta, "weights": list(w), "losses": losses.tolist(), "model": gradient.tolist(), "baseline": baseline}
        for beta, w in ((5.0, (1.0, 1.0)), (-5.0, (1.0, 1.0)), (20.0, (1.6, 0.4)))
        for losses, gradient, baseline in [kto(images, liked, beta, np.array(w))]
    ]
    return record


if __name__ == "__main__":
    RECORD.write_text(json.dumps(cases()) + "\n", encoding="utf-8")
