"""The runs of the demonstration on the embedded models: base method, entropy term, temperature control and a cure.

One example hacks its reward, so that its images are destroyed, and has a term beside it that sees this coming; one gets
better, and one does so by flow matching. The others are the three methods, and each of them by flow matching.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from seedpo.models.catalogue import MODELS
from seedpo.settings import merge
from seedpo.training.sweeps.definition import Cell

SHARED: Mapping[str, Any] = {
    "lora_rank": 8,
    "clip_range": None,
    "sampling": {"num_inference_steps": 10, "guidance_scale": 3.0},
    "evaluation": {"num_inference_steps": 10, "guidance_scale": 3.0, "num_prompts": 16, "images_per_prompt": 4},
}
"""What all runs share; evaluations use held-out prompts and the same latents."""

METHODS: Mapping[str, Mapping[str, Any]] = {
    "diffusion-dpo": {
        "beta": 50.0,
        "gamma": 0.5,
        "learning_rate": 3e-3,
        "batch_size": 16,
        "max_steps": 64,
        "evaluate_every": 16,
    },
    "spo": {
        "beta": 10.0,
        "gamma": 3.0,
        "reward": "scenes-plain",
        "evaluation": {"rewards": ["scenes-plain", "scenes-scorer"]},
        "learning_rate": 1.5e-3,
        "batch_size": 32,
        "max_steps": 50,
        "evaluate_every": 10,
        "steps": {
            "candidates": 4,
            "plain_steps": 5,
            "min_gap": 0.1,
            "prompts_per_rollout": 16,
            "updates_per_rollout": 3,
        },
    },
    "d3po": {
        "beta": 10.0,
        "gamma": 3.0,
        "learning_rate": 3e-3,
        "batch_size": 16,
        "max_steps": 20,
        "evaluate_every": 10,
        "trajectories": {"images_per_prompt": 4, "prompts_per_rollout": 12, "min_gap": 0.1, "steps_per_pair": 1},
    },
}
"""Settings of each method in the embedded world, chosen so that over-training is seen.

``gamma`` is that of the SEE variant: 3 is the value at which the paper varies beta; on the fixed pairs of Diffusion-DPO
it would saturate every fourth pair, and a smaller one is used. SPO is trained on the scorer that is the easier to hack;
the step-aware one is measured beside it, as a reward that nothing is trained on.
"""


HACKING: Mapping[str, Any] = {
    "method": "spo",
    "beta": 10.0,
    "gamma": 3.0,
    "reward": "scenes-vividness",
    "sampling": {"num_inference_steps": 6},
    "evaluation": {"num_inference_steps": 6, "rewards": ["scenes-vividness", "scenes-scorer"]},
    "learning_rate": 3e-3,
    "batch_size": 16,
    "max_steps": 60,
    "evaluate_every": 10,
    "steps": {
        "candidates": 4,
        "plain_steps": 2,
        "min_gap": 0.0,
        "prompts_per_rollout": 8,
        "updates_per_rollout": 3,
    },
}
"""SPO on a reward that sees one aspect of an image only, as the aesthetic score is said to: how vivid its colours are.

The learned scorers saturate before an image is destroyed. This reward does not.
"""

OPINION: Mapping[str, Any] = {"weighting": {"second_opinion": ["scenes-scorer"], "suspect_anchor": 15.0}}
"""The term beside the hacked example: a second reward raises beta, to 16 times, for the winners that it doubts most."""

LEARNING: Mapping[str, Any] = {
    **METHODS["diffusion-dpo"],
    "method": "diffusion-dpo",
    "max_steps": 32,
    "evaluate_every": 8,
}
"""Diffusion-DPO on labelled pairs, stopped while the truth still rises in all three variants."""


def _by_flow(method: str, gamma: float) -> Mapping[str, Any]:
    """What a run of the flow-matching twin sets, written out."""
    row = MODELS["scenes-flow"]
    return merge(merge(*row.layers(method)), {"model": row.name, "method": method, "gamma": gamma})


FLOW: Mapping[str, Mapping[str, Any]] = {
    "diffusion-dpo": _by_flow("diffusion-dpo", 0.5),
    "spo": _by_flow("spo", 3.0),
    "d3po": _by_flow("d3po", 3.0),
}
"""Each method on the flow-matching twin, at the rates and with the numbers of steps of its row."""

EXAMPLES: Mapping[str, Mapping[str, Any]] = {
    "hacking": HACKING,
    "learning": LEARNING,
    "flow-learning": merge(FLOW["diffusion-dpo"], {"evaluate_every": 8}),
    **METHODS,
    **{f"flow-{name}": keys for name, keys in FLOW.items()},
}
"""Everything that the demonstration can train, by the beginning of the runs' names."""

SHOWN = ("hacking", "learning", "flow-learning")
"""Examples that are trained where none are named: images that a reward destroys, and training that helps two models."""


def demo_runs(seeds: int = 1) -> Iterator[Cell]:
    """Base method, SEE variant, and the base method at SEE's temperature (beta' = a), for every example and seed."""
    for seed in range(seeds):
        for name, settings in EXAMPLES.items():
            beta, gamma = settings["beta"], settings["gamma"]
            common = merge(merge(merge(SHARED, {"method": name}), settings), {"seed": seed})
            variants: Mapping[str, Mapping[str, Any]] = {
                "base": {"gamma": 0.0},
                "see": {},
                "control": {"gamma": 0.0, "beta": beta * (1.0 + gamma)},
                **({"opinion": {"gamma": 0.0, **OPINION}} if name == "hacking" else {}),
            }
            for variant, changes in variants.items():
                keys = merge(common, changes)
                yield Cell(name=f"{name}-{variant}-seed{seed}", keys=keys, steps=int(keys["max_steps"]))
