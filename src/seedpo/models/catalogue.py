"""Every model that has a name, and what its runs set otherwise. Nothing heavy is imported before one is used."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from seedpo.registry import Entry, Registry, load_target

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class NamedModel(Entry):
    """A registered model; its target gives its folder.

    Attributes:
        num_inference_steps: denoising steps at which its figures are stated and images are drawn.
        guidance_scale: classifier-free guidance of the same.
        unknown_words: target of a function that gives the words of a prompt that it has never seen.
        loading: keys of the model itself that differ from the general defaults, in runs and elsewhere.
        settings: keys of a run that do, whatever the method.
        by_method: further keys by the name of the method. All win over a method's published settings, which are those
            for Stable Diffusion 1.5.
    """

    num_inference_steps: int
    guidance_scale: float
    unknown_words: str
    loading: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    by_method: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def layers(self, method: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """The keys of a run with a method; the second win."""
        return self.of_runs, self.by_method.get(method, {})

    @property
    def of_runs(self) -> Mapping[str, Any]:
        """The keys of a run, whatever the method."""
        return {**self.loading, **self.settings}


def _of_scenes(*, guidance_scale: float, eta: float) -> Mapping[str, Any]:
    """The keys of a run of any model of the embedded world.

    Args:
        guidance_scale: of roll-outs and evaluations.
        eta: of roll-outs.
    """
    return {
        "data": "scenes-pairs",
        "prompts": "scenes-training",
        "reward": "scenes-scorer",
        "weighting": {"features": "scenes-clip"},
        "lora_rank": 8,
        "clip_range": None,
        "batch_size": 16,
        "gradient_accumulation_steps": 1,
        "sampling": {"num_inference_steps": 10, "guidance_scale": guidance_scale, "eta": eta},
        "evaluation": {
            "prompts": "scenes-evaluation",
            "num_prompts": 16,
            "num_inference_steps": 10,
            "guidance_scale": guidance_scale,
            "rewards": ["scenes-scorer"],
            "metrics": ["truth", "attribute_accuracy", "pairwise_diversity", "free_spread"],
            "batch_size": 64,
        },
    }


def _of_pairs(*, max_steps: int, evaluate_every: int) -> dict[str, Mapping[str, Any]]:
    """What the objectives on labelled pairs change for an embedded model: all of them the same but for beta."""
    changes = {"beta": 50.0, "learning_rate": 1e-3, "max_steps": max_steps, "evaluate_every": evaluate_every}
    own: dict[str, Mapping[str, Any]] = {
        "dspo": changes | {"beta": 1.0},
        "mapo": changes | {"beta": 0.1},
        # The scores of both scorers, of the drawings and PickScore, span about 17 units: T stays as published.
        "smpo": {**changes, "pairs": {"gap_reward": "scenes-scorer"}},
        "kto": {**changes, "pairs": {"from_scores": "likes-of-pairs"}},
    }
    return dict.fromkeys(("diffusion-dpo", "linear-dpo", "dmpo", "sdpo"), changes) | own


def _of_images(*, max_steps: int, evaluate_every: int) -> dict[str, dict[str, Any]]:
    """What the objectives on images that the policy draws change for an embedded model."""
    changes = {"learning_rate": 1e-3, "batch_size": 4, "max_steps": max_steps, "evaluate_every": evaluate_every}
    groups = {"images_per_prompt": 8, "prompts_per_rollout": 8}
    return {
        "online-dpo": {**changes, "beta": 50.0, "batch_size": 16, "groups": {**groups, "prompts_per_rollout": 16}},
        "pnapo": {**changes, "beta": 50.0, "batch_size": 16, "groups": {"prompts_per_rollout": 64}},
        "dgpo": {**changes, "beta": 50.0, "groups": groups},
        "nft": {**changes, "groups": groups},
    }


def _of_step_groups(*, max_steps: int, evaluate_every: int) -> dict[str, dict[str, Any]]:
    """What Flow-GRPO changes for an embedded model.

    The ratio of a policy that moves as fast spreads 11 times as far at 512 entries as at Stable Diffusion 3's 65,536.
    """
    return {
        "flow-grpo": {
            "learning_rate": 3e-3,
            "clip_range": 0.01,
            "batch_size": 32,
            "max_steps": max_steps,
            "evaluate_every": evaluate_every,
            "groups": {"images_per_prompt": 8, "prompts_per_rollout": 12},
            "step_groups": {"trained_steps": 3},
        }
    }


MODELS = Registry(
    "model",
    (
        NamedModel(
            name="scenes",
            target="seedpo.scenes.shipped:scenes_folder",
            summary="the embedded text-to-image pipeline: 32 x 32 px drawings, ships with the package",
            num_inference_steps=20,
            guidance_scale=3.0,
            unknown_words="seedpo.scenes.prompts:unknown_words",
            settings=_of_scenes(guidance_scale=3.0, eta=1.0),
            # Rates at which the truth rises within two minutes on two cores; docs/embedded-world.md has the figures.
            by_method={
                **_of_pairs(max_steps=64, evaluate_every=16),
                **_of_images(max_steps=32, evaluate_every=8),
                **_of_step_groups(max_steps=32, evaluate_every=8),
                "spo": {
                    "learning_rate": 6e-4,
                    "batch_size": 32,
                    "max_steps": 40,
                    "evaluate_every": 10,
                    "steps": {"plain_steps": 5, "min_gap": 0.1, "updates_per_rollout": 3},
                },
                "lpo": {
                    "beta": 10.0,
                    "learning_rate": 6e-4,
                    "batch_size": 32,
                    "max_steps": 40,
                    "evaluate_every": 10,
                    "steps": {"plain_steps": 2, "min_gap": 0.1, "min_gap_noisiest": 0.2, "updates_per_rollout": 3},
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
        NamedModel(
            name="scenes-flow",
            target="seedpo.scenes.shipped:flow_folder",
            summary="the same world by flow matching: a Stable Diffusion 3 pipeline, ships with the package",
            num_inference_steps=20,
            guidance_scale=2.0,
            unknown_words="seedpo.scenes.prompts:unknown_words",
            loading={"max_sequence_length": 1},  # zeros in place of the T5's states; more of them cost time only
            settings=_of_scenes(guidance_scale=1.6, eta=0.5),  # less guidance leaves colours more of their spread
            by_method={
                **_of_pairs(max_steps=24, evaluate_every=12),
                **_of_images(max_steps=16, evaluate_every=8),
                **_of_step_groups(max_steps=24, evaluate_every=12),
                "spo": {
                    "beta": 10.0,
                    "learning_rate": 1e-3,
                    "batch_size": 32,
                    "max_steps": 12,
                    "evaluate_every": 6,
                    "steps": {"plain_steps": 4, "min_gap": 0.1, "updates_per_rollout": 3},
                },
                "d3po": {
                    "beta": 10.0,
                    "learning_rate": 1e-3,
                    "max_steps": 16,
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


def loading_keys(model: str) -> Mapping[str, Any]:
    """What a registered model sets of its loading; nothing for other models."""
    return MODELS[model].loading if model in MODELS else {}


def warn_of_unknown_words(model: str, prompts: Sequence[str]) -> None:
    """Says which words a registered model has never seen, as a real tokenizer would not; nothing of other models."""
    if model not in MODELS:
        return
    unknown_words = load_target(MODELS[model].unknown_words)
    for prompt in prompts:
        if unknown := unknown_words(prompt):
            words = ", ".join(map(repr, unknown))
            logger.warning("prompt %r: the embedded model %s has never seen %s", prompt, model, words)
