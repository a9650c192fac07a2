"""Every model that has a name, and what its runs set otherwise. Nothing heavy is imported before one is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from seedpo.registry import Entry, Registry


@dataclass(frozen=True, kw_only=True)
class NamedModel(Entry):
    """A registered model; its target gives its folder.

    Attributes:
        settings: keys of a run that differ from the general defaults, whatever the method.
        by_method: further keys by the name of the method. Both win over a method's published settings, which are those
            for Stable Diffusion 1.5.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    by_method: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def layers(self, method: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """The keys of a run with a method; the second win."""
        return self.settings, self.by_method.get(method, {})


MODELS = Registry(
    "model",
    (
        NamedModel(
            name="scenes",
            target="seedpo.scenes.shipped:scenes_folder",
            summary="the embedded text-to-image pipeline: 32 x 32 px drawings, ships with the package",
            settings={
                "data": "scenes-pairs",
                "prompts": "scenes-training",
                "reward": "scenes-scorer",
                "lora_rank": 8,
                "clip_range": None,
                "batch_size": 16,
                "gradient_accumulation_steps": 1,
                "sampling": {"num_inference_steps": 10, "guidance_scale": 3.0},
                "evaluation": {
                    "prompts": "scenes-evaluation",
                    "num_prompts": 16,
                    "num_inference_steps": 10,
                    "guidance_scale": 3.0,
                    "rewards": ["scenes-scorer"],
                    "metrics": ["truth", "attribute_accuracy", "pairwise_diversity", "free_spread"],
                    "batch_size": 64,
                },
            },
            # Rates at which the truth rises within two minutes on two cores; docs/embedded-world.md has the figures.
            by_method={
                "diffusion-dpo": {"beta": 50.0, "learning_rate": 1e-3, "max_steps": 64, "evaluate_every": 16},
                "spo": {
                    "learning_rate": 6e-4,
                    "batch_size": 32,
                    "max_steps": 40,
                    "evaluate_every": 10,
                    "steps": {"plain_steps": 5, "min_gap": 0.1, "updates_per_rollout": 3},
                },
                "d3po": {
                    "beta": 10.0,
                    "learning_rate": 1e-3,
                    "max_steps": 32,
                    "evaluate_every": 8,
                    "trajectories": {
                        "images_per_prompt": 4,
                        "prompts_per_rollout": 12,
                        "min_gap": 0.1,
                        "steps_per_pair": 1,
                    },
                },
            },
        ),
    ),
)
