"""The published losses in plain numpy float64, written from the papers; it imports nothing of the package.

``python -m tests.golden.reference`` records inputs, losses and gradients in ``losses.json``; the tests compare the
package with the recorded numbers and the recorded numbers with this file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

RECORD = Path(__file__).with_name("losses.json")


def sigmoid(z: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-z))


def mean_over_latents(values: Array) -> Array:
    return values.mean(axis=(1, 2, 3))


# --- Diffusion-DPO, arXiv 2311.12908: the official training script's formula -----------------------------------------


def diffusion_dpo(sides: dict[str, Array], beta_dpo: float) -> Array:
    """-log sigma(-beta_dpo/2 (model_diff - ref_diff)), squared errors averaged over latent dimensions."""
    error = {name: mean_over_latents((sides[name] - sides[f"target_{name[-1]}"]) ** 2) for name in PREDICTIONS}
    model_diff = error["model_w"] - error["model_l"]
    ref_diff = error["ref_w"] - error["ref_l"]
    return -np.log(sigmoid(-0.5 * beta_dpo * (model_diff - ref_diff)))


def loss_and_pull(margin: Array, b: float, loss: str) -> tuple[Array, Array]:
    """Losses of margins, and minus their slope."""
    if loss == "ipo":  # arXiv 2310.12036, eq. 17: (h - 1 / (2 tau))^2 with h = margin / b and tau = b
        return (margin / b - 1 / (2 * b)) ** 2, -2 * (margin / b - 1 / (2 * b)) / b
    if loss == "hinge":  # arXiv 2305.10425, in implicit rewards: max(0, 1 - margin)
        return np.maximum(0, 1 - margin), (margin < 1).astype(float)
    if loss == "linear":  # arXiv 2605.21123: the weight clip(1/2 - 0.4 m, eta, 1 - eta), and its integral
        weight = np.clip(0.5 - 0.4 * margin, 0.001, 0.999)
        reach = (0.5 - 0.001) / 0.4
        middle, low, high = 0.2 * (1.25 - margin) ** 2, 0.999**2 / 0.8, 0.001**2 / 0.8
        left, right = low - 0.999 * (margin + reach), high - 0.001 * (margin - reach)
        return np.where(margin < -reach, left, np.where(margin > reach, right, middle)), weight
    if loss == "dmpo":  # arXiv 2507.07510: KL(p || q) of Bernoulli p = sigma(m) and q = 1 - alpha
        p, q = sigmoid(margin), 0.99
        divergence = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
        return divergence, -p * (1 - p) * (np.log(p / (1 - p)) - np.log(q / (1 - q)))
    return -np.log(sigmoid(margin)), sigmoid(-margin)


def see_diffusion_dpo(sides: dict[str, Array], a: float, b: float, loss: str = "sigmoid") -> tuple[Array, Array, Array]:
    """The loss of -1/2 (a model_diff - b ref_diff), with its gradient for the policy's two predictions."""
    error = {name: mean_over_latents((sides[name] - sides[f"target_{name[-1]}"]) ** 2) for name in PREDICTIONS}
    margin = -0.5 * (a * (error["model_w"] - error["model_l"]) - b * (error["ref_w"] - error["ref_l"]))
    size = sides["model_w"][0].size
    losses, pull = loss_and_pull(margin, b, loss)
    slope = (a * pull)[:, None, None, None] / size
    return (
        losses,
        slope * (sides["model_w"] - sides["target_w"]),
        -slope * (sides["model_l"] - sides["target_l"]),
    )


def safeguarded(
    sides: dict[str, Array], a: float, b: float, mu: float, per: str
) -> tuple[tuple[Array, Array, Array], Array]:
    """Diffusion-SDPO, arXiv 2511.03317: the same losses, the loser's gradient times the scale, and the scale."""
    losses, chosen, rejected = see_diffusion_dpo(sides, a, b)
    axes = (1, 2, 3) if per == "pair" else (0, 1, 2, 3)
    winner, loser = sides["model_w"] - sides["target_w"], sides["model_l"] - sides["target_l"]
    size, overlap = (winner**2).sum(axis=axes, keepdims=True), (winner * loser).sum(axis=axes, keepdims=True)
    scale = np.where(overlap > 0, np.clip((1 - mu) * size / overlap, 0, 1), 1.0)
    return (losses, chosen, scale * rejected), np.broadcast_to(scale.reshape(-1), losses.shape)


PREDICTIONS = ("model_w", "model_l", "ref_w", "ref_l")
OTHER_LOSSES = ("ipo", "hinge", "linear", "dmpo")


# --- D3PO, arXiv 2311.13231, and SPO, arXiv 2406.04314: DDIM steps, mean log-probability, clipped ratio ---------------


def ddim_coefficients(alpha: Array, alpha_prev: Array, eta: float) -> tuple[Array, Array, Array]:
    """A step's mean is from_latents * x_t + from_noise * predicted noise; the third value is its standard deviation."""
    std = eta * np.sqrt((1 - alpha_prev) / (1 - alpha) * (1 - alpha / alpha_prev))
    from_latents = np.sqrt(alpha_prev / alpha)
    from_noise = np.sqrt(1 - alpha_prev - std**2) - np.sqrt(alpha_prev * (1 - alpha) / alpha)
    return from_latents, from_noise, std


def step_log_prob(x_next: Array, x: Array, noise: Array, coefficients: tuple[Array, Array, Array]) -> Array:
    """Gaussian log-density of a step, averaged over latent dimensions, as in the official code."""
    from_latents, from_noise, std = (value[:, None, None, None] for value in coefficients)
    mean = from_latents * x + from_noise * noise
    density = -((x_next - mean) ** 2) / (2 * std**2) - np.log(std) - np.log(np.sqrt(2 * np.pi))
    return mean_over_latents(density)


def clipped_step_dpo(log_probs: dict[str, Array], beta: float, eps: float) -> Array:
    """D3PO's and SPO's loss: -log sigma(beta log clip(ratio_w) - beta log clip(ratio_l))."""
    ratio_w = np.clip(np.exp(log_probs["model_w"] - log_probs["ref_w"]), 1 - eps, 1 + eps)
    ratio_l = np.clip(np.exp(log_probs["model_l"] - log_probs["ref_l"]), 1 - eps, 1 + eps)
    return -np.log(sigmoid(beta * np.log(ratio_w) - beta * np.log(ratio_l)))


def see_step_margin(log_probs: dict[str, Array], a: float, b: float, eps: float | None) -> Array:
    """a (clipped log ratio_w - clipped log ratio_l) + (a - b) (log ref_w - log ref_l)."""
    ratio_w = np.exp(log_probs["model_w"] - log_probs["ref_w"])
    ratio_l = np.exp(log_probs["model_l"] - log_probs["ref_l"])
    if eps is not None:
        ratio_w, ratio_l = np.clip(ratio_w, 1 - eps, 1 + eps), np.clip(ratio_l, 1 - eps, 1 + eps)
    return a * np.log(ratio_w / ratio_l) + (a - b) * (log_probs["ref_w"] - log_probs["ref_l"])


def steps_log_probs(case: dict[str, Any], sides: dict[str, Array]) -> dict[str, Array]:
    """Mean log-probabilities of both sides under the policy and the reference."""
    coefficients = ddim_coefficients(np.array(case["alpha"]), np.array(case["alpha_prev"]), case["eta"])
    return {
        name: step_log_prob(sides[f"next_{name[-1]}"], sides[f"x_{name[-1]}"], sides[name], coefficients)
        for name in PREDICTIONS
    }


def see_step_dpo(
    case: dict[str, Any], sides: dict[str, Array], a: float, b: float, loss: str = "sigmoid"
) -> tuple[Array, Array, Array]:
    """The SEE loss of steps, with its gradient for the policy's two noise predictions."""
    eps = case["clip_range"]
    log_probs = steps_log_probs(case, sides)
    margin = see_step_margin(log_probs, a, b, eps)
    coefficients = ddim_coefficients(np.array(case["alpha"]), np.array(case["alpha_prev"]), case["eta"])
    from_latents, from_noise, std = (value[:, None, None, None] for value in coefficients)
    losses, slope = loss_and_pull(margin, b, loss)
    gradients = []
    for side, sign in (("w", -1.0), ("l", 1.0)):
        ratio = np.exp(log_probs[f"model_{side}"] - log_probs[f"ref_{side}"])
        passes = np.ones_like(ratio) if eps is None else ((ratio > 1 - eps) & (ratio < 1 + eps)).astype(float)
        mean = from_latents * sides[f"x_{side}"] + from_noise * sides[f"model_{side}"]
        pull = (sides[f"next_{side}"] - mean) / std**2 * from_noise / mean[0].size
        gradients.append((sign * a * slope * passes)[:, None, None, None] * pull)
    return losses, gradients[0], gradients[1]


# --- recording -------------------------------------------------------------------------------------------------------


def noise_case(generator: np.random.Generator, *, alike: float = 0.0) -> dict[str, Any]:
    """Four pairs of predictions and targets, with losses at gamma = 0 and at two others.

    ``alike`` is how much the loser's error is like the winner's, as it is where both share their noise.
    """
    shape = (4, 2, 3, 3)
    sides = {name: generator.normal(size=shape) for name in ("target_w", "target_l", "ref_w", "ref_l")}
    sides["model_w"] = sides["ref_w"] + 0.1 * generator.normal(size=shape)
    sides["model_l"] = sides["ref_l"] + 0.1 * generator.normal(size=shape)
    if alike:
        winner, loser = sides["model_w"] - sides["target_w"], sides["model_l"] - sides["target_l"]
        sides["target_l"] = sides["model_l"] - alike * winner - np.sqrt(1 - alike**2) * loser
    case: dict[str, Any] = {"kind": "noise", "beta": 5.0, "clip_range": None, "sides": listed(sides)}
    case["base"] = diffusion_dpo(sides, case["beta"]).tolist()
    case["see"] = [
        see_record(gamma, convention, a, see_diffusion_dpo(sides, a, case["beta"]))
        for gamma, convention, a in settings(case["beta"])
    ]
    case["other_losses"] = [
        {"loss": loss, **see_record(gamma, convention, a, see_diffusion_dpo(sides, a, case["beta"], loss))}
        for loss in OTHER_LOSSES
        for gamma, convention, a in settings(case["beta"])[:2]
    ]
    if alike:
        case["safeguarded"] = [
            safeguarded_record(per, mu, gamma, convention, a, safeguarded(sides, a, case["beta"], mu, per))
            for per, mu in (("pair", 0.9), ("pair", 0.6), ("batch", 0.9), ("batch", 0.6))
            for gamma, convention, a in settings(case["beta"])[:2]
        ]
    return case


def step_case(
    generator: np.random.Generator, *, shared: bool, beta: float, clip_range: float | None, spread: float
) -> dict[str, Any]:
    """Six pairs of steps at six noise levels; ``shared`` is SPO's common x_t."""
    shape = (6, 2, 3, 3)
    alpha = np.linspace(0.05, 0.9, 6)
    case: dict[str, Any] = {
        "kind": "step",
        "beta": beta,
        "clip_range": clip_range,
        "eta": 1.0,
        "alpha": alpha.tolist(),
        "alpha_prev": (alpha + 0.08).tolist(),
    }
    from_latents, from_noise, std = (
        value[:, None, None, None] for value in ddim_coefficients(alpha, alpha + 0.08, case["eta"])
    )
    sides: dict[str, Array] = {}
    for side in "wl":
        if side == "l" and shared:
            sides |= {"x_l": sides["x_w"], "ref_l": sides["ref_w"], "model_l": sides["model_w"]}
        else:
            # The models' means lie ``spread`` standard deviations apart, which decides how many ratios are clipped.
            x, predicted, shift = generator.normal(size=(3, *shape))
            sides |= {f"x_{side}": x, f"ref_{side}": predicted}
            sides[f"model_{side}"] = predicted + spread * shift * std / np.abs(from_noise)
        mean = from_latents * sides[f"x_{side}"] + from_noise * sides[f"ref_{side}"]
        sides[f"next_{side}"] = mean + std * generator.normal(size=shape)
    case["sides"] = listed(sides)
    case["base"] = clipped_step_dpo(
        steps_log_probs(case, sides), beta, 1e9 if clip_range is None else clip_range
    ).tolist()
    case["see"] = [
        see_record(gamma, convention, a, see_step_dpo(case, sides, a, beta)) for gamma, convention, a in settings(beta)
    ]
    case["other_losses"] = [
        {"loss": loss, **see_record(gamma, convention, a, see_step_dpo(case, sides, a, beta, loss))}
        for loss in OTHER_LOSSES
        for gamma, convention, a in settings(beta)[:2]
    ]
    return case


def settings(beta: float) -> list[tuple[float, str, float]]:
    """(gamma, convention, a)."""
    return [
        (0.0, "relative", beta),
        (3.0, "relative", 4 * beta),
        (-0.5, "relative", beta / 2),
        (2.0, "absolute", beta + 2),
    ]


def see_record(gamma: float, convention: str, a: float, result: tuple[Array, Array, Array]) -> dict[str, Any]:
    losses, chosen_gradient, rejected_gradient = result
    return {
        "gamma": gamma,
        "convention": convention,
        "policy_weight": a,
        "losses": losses.tolist(),
        "chosen_gradient": chosen_gradient.tolist(),
        "rejected_gradient": rejected_gradient.tolist(),
    }


def safeguarded_record(
    per: str, mu: float, gamma: float, convention: str, a: float, result: tuple[tuple[Array, Array, Array], Array]
) -> dict[str, Any]:
    gradients, scale = result
    return {"per": per, "mu": mu, "scale": scale.tolist(), **see_record(gamma, convention, a, gradients)}


def listed(sides: dict[str, Array]) -> dict[str, Any]:
    return {name: value.tolist() for name, value in sides.items()}


def cases() -> dict[str, Any]:
    """Every case, from fixed seeds."""
    return {
        "diffusion-dpo": noise_case(np.random.default_rng(1)),
        "alike": noise_case(np.random.default_rng(5), alike=0.6),
        "d3po": step_case(np.random.default_rng(2), shared=False, beta=0.1, clip_range=0.1, spread=0.3),
        "spo": step_case(np.random.default_rng(3), shared=True, beta=10.0, clip_range=0.1, spread=0.4),
        "unclipped": step_case(np.random.default_rng(4), shared=True, beta=2.0, clip_range=None, spread=0.3),
    }


if __name__ == "__main__":
    RECORD.write_text(json.dumps(cases()) + "\n", encoding="utf-8")
