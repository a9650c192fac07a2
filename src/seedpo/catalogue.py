"""Every name that a user can write, by kind. Nothing heavy is imported before a name is used."""

from __future__ import annotations

from seedpo.methods.presets import METHODS
from seedpo.registry import Entry, Registry

DRAWING = 32
"""Height and width of the embedded world's drawings; its oracle reads nothing else."""

MODELS = Registry(
    "model",
    (
        Entry(
            name="scenes",
            target="seedpo.embedded:scenes_folder",
            summary="the embedded text-to-image pipeline: 32 x 32 px drawings, ships with the package",
        ),
    ),
)

DATA = Registry(
    "preference set",
    (
        Entry(
            name="scenes-pairs",
            target="seedpo.embedded:scenes_pairs",
            summary="3000 pairs of drawings with the choices of a simulated annotator, made on first use",
        ),
    ),
)

PROMPTS = Registry(
    "prompt set",
    (
        Entry(
            name="scenes-training",
            target="seedpo.embedded:training_prompts",
            summary="416 prompts of the embedded world",
        ),
        Entry(
            name="scenes-evaluation",
            target="seedpo.embedded:evaluation_prompts",
            summary="64 held-out prompts of the embedded world",
        ),
    ),
)

REWARDS = Registry(
    "reward",
    (
        Entry(
            name="scenes-scorer",
            target="seedpo.embedded:scenes_scorer",
            summary="step-aware preference model of the embedded world, learned from few noisy choices (hackable)",
        ),
        Entry(
            name="scenes-truth",
            target="seedpo.embedded:ScenesTruth",
            summary="the simulated annotator's true utility, read by the oracle (cannot be hacked)",
            image_size=DRAWING,
        ),
        Entry(
            name="jpeg-compressibility",
            target="seedpo.rewards.jpeg:compressibility",
            summary="minus the size of the image as a JPEG file, in kB (DDPO, D3PO)",
        ),
        Entry(
            name="jpeg-incompressibility",
            target="seedpo.rewards.jpeg:incompressibility",
            summary="the size of the image as a JPEG file, in kB (DDPO, D3PO)",
        ),
        Entry(
            name="pickscore",
            target="seedpo.rewards.clip_score:pickscore",
            summary="PickScore v1, from the hub (4 GB): what people prefer in pairs of images of a prompt",
        ),
    ),
)

METRICS = Registry(
    "metric",
    (
        Entry(
            name="truth",
            target="seedpo.scenes.metrics:TRUTH",
            summary="true utility of the simulated annotator",
            image_size=DRAWING,
        ),
        Entry(
            name="attribute_accuracy",
            target="seedpo.scenes.metrics:ATTRIBUTE_ACCURACY",
            summary="share of images with every named attribute right",
            image_size=DRAWING,
        ),
        Entry(
            name="residual",
            target="seedpo.scenes.metrics:RESIDUAL",
            summary="distance to the nearest legitimate drawing of the prompt",
            image_size=DRAWING,
        ),
        Entry(
            name="free_spread",
            target="seedpo.scenes.metrics:FREE_SPREAD",
            summary="spread of what the prompt leaves open, relative to the data",
            image_size=DRAWING,
        ),
        Entry(
            name="pairwise_diversity",
            target="seedpo.metrics.pairwise:PAIRWISE_DIVERSITY",
            summary="mean pixel distance between images of one prompt",
        ),
    ),
)

KINDS: dict[str, Registry] = {
    "methods": METHODS,
    "models": MODELS,
    "data": DATA,
    "prompts": PROMPTS,
    "rewards": REWARDS,
    "metrics": METRICS,
}
"""The registries by the word that ``seedpo list`` takes."""
