"""The runs behind the figures of SEE-DPO's paper, on the embedded world: few, small, and shared between figures.

Figures 1 and 4 need one setting with and without the entropy term, and its temperature control. Figure 2 needs the same
for three rewards. Figure 5 varies gamma at one beta, and beta at one gamma, each setting with its control. The long
form trains the same runs for ten times as many images, at lower rates and with fewer denoising steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from seedpo.settings import merge
from seedpo.training.sweeps.definition import Cell
from seedpo.training.sweeps.demonstration import HACKING, METHODS, SHARED

REWARDS = ("scenes-scorer", "scenes-plain")
"""Rewards of Figure 2 besides the one that is hacked: the step-aware and the plain preference model."""

GAMMAS = (0.0, 1.0, 3.0)
"""Values of Figure 5's upper part, at the beta of the demonstration's hacked example."""

BETA_FACTORS = (0.5, 1.0, 2.0)
"""Values of beta in Figure 5's lower part, as multiples of the demonstration's, at gamma = 3."""

GAMMA = 3.0

LONG: Mapping[str, Any] = {
    "learning_rate": 2e-3,
    "batch_size": 16,
    "max_steps": 256,
    "evaluate_every": 32,
    "steps": {"candidates": 4, "plain_steps": 2, "prompts_per_rollout": 8},
    "sampling": {"num_inference_steps": 6},
    "evaluation": {"num_inference_steps": 6, "num_prompts": 12, "images_per_prompt": 3},
}
"""What the long form changes: reward hacking is slow enough to be seen at several evaluations, and goes to its end.

Ten times the length of a run of the benchmark of objectives, counted in rows through the network.
"""


def trio(seed: int, form: Mapping[str, Any]) -> Iterator[Cell]:
    """The demonstration's hacked example, with and without the entropy term, and its control: Figures 1 and 4."""
    yield from _trio("", merge(HACKING, form), seed)


def rewards(seed: int, form: Mapping[str, Any]) -> Iterator[Cell]:
    """The same for other rewards: Figure 2, together with :func:`trio`."""
    for reward in REWARDS:
        measured = [reward, *(name for name in REWARDS if name != reward)]
        changes = {"reward": reward, "evaluation": {"rewards": measured}}
        yield from _trio(f"{reward}-", merge(merge(METHODS["spo"], changes), form), seed)


def _trio(name: str, settings: Mapping[str, Any], seed: int) -> Iterator[Cell]:
    beta = float(settings["beta"])
    yield _cell(f"{name}base", settings, seed, beta=beta)
    yield _cell(f"{name}see", settings, seed, beta=beta, gamma=GAMMA)
    yield _cell(f"{name}control", settings, seed, beta=beta * (1.0 + GAMMA))


def ablation(seed: int, form: Mapping[str, Any]) -> Iterator[Cell]:
    """Gamma varied at fixed beta and beta at fixed gamma, with controls: Figure 5, together with :func:`trio`."""
    beta = float(HACKING["beta"])
    weights = [(beta, gamma) for gamma in GAMMAS] + [(beta * factor, GAMMA) for factor in BETA_FACTORS]
    weights += [(own * (1.0 + gamma), 0.0) for own, gamma in weights]
    trained = {(beta, 0.0), (beta, GAMMA), (beta * (1.0 + GAMMA), 0.0)}
    for own, gamma in sorted({*weights} - trained):
        yield _cell(f"beta={own:g}_gamma={gamma:g}", merge(HACKING, form), seed, beta=own, gamma=gamma)


def paper_runs(seeds: int = 1, *, long: bool = False) -> dict[str, list[Cell]]:
    """The runs of every part, by its name: ``trio``, ``ablation`` and ``rewards``; with ``long`` changed by `LONG`."""
    parts, form = {"trio": trio, "ablation": ablation, "rewards": rewards}, LONG if long else {}
    return {name: [cell for seed in range(seeds) for cell in part(seed, form)] for name, part in parts.items()}


def _cell(name: str, settings: Mapping[str, Any], seed: int, *, beta: float, gamma: float = 0.0) -> Cell:
    weights = {"method": "spo", "seed": seed, "beta": beta, "gamma": gamma}
    keys = merge(merge(SHARED, settings), weights)
    return Cell(name=f"{name}-seed{seed}", keys=keys, steps=int(keys["max_steps"]))
