"""Every name that a user can write, by kind. Nothing heavy is imported before a name is used."""

from __future__ import annotations

from seedpo.features.names import FEATURES, PROMPT_METRICS, SET_METRICS
from seedpo.methods.presets import METHODS
from seedpo.registry import Entry, MetricEntry, Registry, RewardEntry

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
        Entry(
            name="scenes-scorer-pairs",
            target="seedpo.embedded:scorer_pairs",
            summary="2500 pairs more, of which the embedded scorer is made",
        ),
        Entry(
            name="scenes-held-out-pairs",
            target="seedpo.embedded:held_out_pairs",
            summary="1000 pairs more, that nothing is trained on",
        ),
    ),
)

STARTS = Registry(
    "CLIP to start from",
    (
        Entry(
            name="scenes-clip",
            target="seedpo.embedded:clip_folder",
            summary="a small CLIP of the embedded world, trained on captions; `seedpo reward train` starts from it",
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
        Entry(
            name="pickapic-validation",
            target="seedpo.data.prompt_sets:pickapic_validation",
            summary="Pick-a-Pic v1, split validation_unique; from the hub, or pickapic-validation@FOLDER",
        ),
        Entry(
            name="parti",
            target="seedpo.data.prompt_sets:parti",
            summary="PartiPrompts; from the hub, or parti@PartiPrompts.tsv",
        ),
        Entry(
            name="hpsv2",
            target="seedpo.data.prompt_sets:hpsv2",
            summary="the benchmark prompts of HPSv2, four styles; from the hub, or hpsv2@FOLDER",
        ),
        Entry(
            name="study-300",
            target="seedpo.data.prompt_sets:study_300",
            summary="100 of parti and 200 of hpsv2, drawn by seed; from the hub, or study-300@FOLDER with both",
        ),
    ),
)

OURS = "Apache-2.0, as seedpo"
"""Licence of what ships with the package."""

REWARDS = Registry(
    "reward",
    (
        RewardEntry(
            name="scenes-scorer",
            target="seedpo.embedded:scenes_scorer",
            summary="what a simulated annotator prefers, learned from few noisy choices (hackable)",
            scale="log-odds: differences between two images of a prompt count",
            licence=OURS,
            source="docs/embedded-world.md",
            step_aware=True,
        ),
        RewardEntry(
            name="scenes-plain",
            target="seedpo.embedded:plain_scorer",
            summary="the same choices, learned from finished images alone; knows no time step (easier to hack)",
            scale="log-odds: differences between two images of a prompt count",
            licence=OURS,
            source="docs/reward-training.md",
        ),
        RewardEntry(
            name="scenes-truth",
            target="seedpo.embedded:ScenesTruth",
            summary="the simulated annotator's true utility, read by the oracle (cannot be hacked)",
            image_size=DRAWING,
            scale="utility: vividness less faults",
            licence=OURS,
            source="docs/embedded-world.md",
        ),
        RewardEntry(
            name="jpeg-compressibility",
            target="seedpo.rewards.jpeg:compressibility",
            summary="minus the size of the image as a JPEG file; reads no prompt",
            scale="kB, below 0",
            licence=OURS,
            source="arXiv 2305.13301",
        ),
        RewardEntry(
            name="jpeg-incompressibility",
            target="seedpo.rewards.jpeg:incompressibility",
            summary="the size of the image as a JPEG file; reads no prompt",
            scale="kB, above 0",
            licence=OURS,
            source="arXiv 2305.13301",
        ),
        RewardEntry(
            name="pickscore",
            target="seedpo.rewards.clip_score:pickscore",
            summary="which of two images of a prompt people prefer (CLIP-H, Pick-a-Pic)",
            scale="log-odds: about 100 times a cosine",
            licence="see its model card",
            size="about 3.9 GB",
            source="arXiv 2305.01569",
            place="yuvalkirstain/PickScore_v1",
        ),
        RewardEntry(
            name="hpsv2",
            target="seedpo.rewards.hpsv2:hpsv2",
            summary="human preference score v2: which image of a prompt people prefer (CLIP-H, HPD v2)",
            scale="a cosine, in [-1, 1]",
            licence="code Apache-2.0; weights: see the model card",
            size="about 2 GB",
            source="arXiv 2306.09341",
            place="xswu/HPSv2",
        ),
        RewardEntry(
            name="hpsv2.1",
            target="seedpo.rewards.hpsv2:hpsv21",
            summary="human preference score v2.1: v2 trained on better data",
            scale="a cosine, in [-1, 1]",
            licence="code Apache-2.0; weights: see the model card",
            size="about 2 GB",
            source="arXiv 2306.09341",
            place="xswu/HPSv2",
        ),
        RewardEntry(
            name="imagereward",
            target="seedpo.rewards.imagereward:imagereward",
            summary="how experts rank images of a prompt: fidelity and agreement with the text (BLIP)",
            scale="standard deviations of the authors' validation scores",
            licence="code Apache-2.0; weights: see the model card",
            size="about 1.8 GB",
            source="arXiv 2304.05977",
            place="THUDM/ImageReward",
        ),
        RewardEntry(
            name="aesthetic",
            target="seedpo.rewards.aesthetic:aesthetic",
            summary="how beautiful people find the image (LAION's predictor on CLIP-L); reads no prompt",
            scale="rating, about 1 to 10",
            licence="predictor Apache-2.0; CLIP: see its model card",
            size="about 1.7 GB",
            source="github.com/christophschuhmann/improved-aesthetic-predictor",
            place="trl-lib/ddpo-aesthetic-predictor",
        ),
        RewardEntry(
            name="clipscore",
            target="seedpo.rewards.clip_score:clipscore",
            summary="agreement of image and prompt by OpenAI's CLIP-L, which learned no preferences",
            scale="100 times a cosine, at least 0",
            licence="see its model card",
            size="about 1.7 GB",
            source="arXiv 2104.08718",
            place="openai/clip-vit-large-patch14",
        ),
        RewardEntry(
            name="spm-sd15",
            target="seedpo.rewards.spm:spm_sd15",
            summary="SPO's step-aware preference model for Stable Diffusion 1.5 (CLIP-H, Pick-a-Pic)",
            scale="log-odds: about 100 times a cosine",
            licence="weights Apache-2.0, code MIT",
            size="at most 5.2 GB",
            source="arXiv 2406.04314",
            place="SPO-Diffusion-Models/Step-Aware_Preference_Models",
            step_aware=True,
        ),
        RewardEntry(
            name="spm-sdxl",
            target="seedpo.rewards.spm:spm_sdxl",
            summary="SPO's step-aware preference model for Stable Diffusion XL (CLIP-H, Pick-a-Pic)",
            scale="log-odds: about 100 times a cosine",
            licence="weights Apache-2.0, code MIT",
            size="at most 5.2 GB",
            source="arXiv 2406.04314",
            place="SPO-Diffusion-Models/Step-Aware_Preference_Models",
            step_aware=True,
        ),
    ),
)

METRICS = Registry(
    "metric",
    (
        MetricEntry(
            name="truth",
            target="seedpo.scenes.metrics:TRUTH",
            summary="true utility of the simulated annotator",
            image_size=DRAWING,
            unit="utility of the simulated annotator",
            span="at most 3",
            direction="higher",
            source="docs/embedded-world.md",
        ),
        MetricEntry(
            name="attribute_accuracy",
            target="seedpo.scenes.metrics:ATTRIBUTE_ACCURACY",
            summary="share of images with every named attribute right",
            image_size=DRAWING,
            unit="share of images",
            span="[0, 1]",
            direction="higher",
            source="docs/embedded-world.md",
        ),
        MetricEntry(
            name="residual",
            target="seedpo.scenes.metrics:RESIDUAL",
            summary="distance to the nearest legitimate drawing of the prompt",
            image_size=DRAWING,
            unit="RMS pixel difference",
            span="[0, 1]",
            direction="lower",
            source="docs/embedded-world.md",
        ),
        MetricEntry(
            name="free_spread",
            target="seedpo.scenes.metrics:FREE_SPREAD",
            summary="spread of what the prompt leaves open, relative to the data",
            image_size=DRAWING,
            unit="standard deviation relative to the data",
            span="at least 0",
            direction="higher",
            source="docs/embedded-world.md",
        ),
        MetricEntry(
            name="free_spread_right",
            target="seedpo.scenes.metrics:RIGHT_SPREAD",
            summary="the same over images with every named attribute right: faults, which spread too, do not count",
            image_size=DRAWING,
            unit="standard deviation relative to the data",
            span="at least 0",
            direction="higher",
            source="docs/embedded-world.md",
        ),
        MetricEntry(
            name="pairwise_diversity",
            target="seedpo.metrics.pairwise:PAIRWISE_DIVERSITY",
            summary="mean pixel distance between images of one prompt",
            unit="RMS pixel difference",
            span="[0, 1]",
            direction="higher",
            source="docs/metrics.md",
        ),
        *PROMPT_METRICS,
        MetricEntry(
            name="image_entropy",
            target="seedpo.metrics.statistics:IMAGE_ENTROPY",
            summary="Shannon entropy of an image's luminance histogram (256 levels)",
            unit="bits",
            span="[0, 8]",
            direction="neither",
            source="docs/metrics.md",
        ),
        MetricEntry(
            name="rms_contrast",
            target="seedpo.metrics.statistics:RMS_CONTRAST",
            summary="standard deviation of an image's luminance",
            unit="luminance",
            span="[0, 0.5]",
            direction="neither",
            source="Peli 1990",
        ),
        MetricEntry(
            name="colourfulness",
            target="seedpo.metrics.statistics:COLOURFULNESS",
            summary="how colourful people find an image; 0: grey, 109: extremely",
            unit="Hasler and Suesstrunk's M",
            span="at least 0",
            direction="neither",
            source="Hasler and Suesstrunk 2003",
        ),
        MetricEntry(
            name="edge_density",
            target="seedpo.metrics.statistics:EDGE_DENSITY",
            summary="share of pixels whose luminance changes by more than 0.1 per pixel (Sobel)",
            unit="share of pixels",
            span="[0, 1]",
            direction="neither",
            source="docs/metrics.md",
        ),
    ),
)

KINDS: dict[str, Registry] = {
    "methods": METHODS,
    "models": MODELS,
    "data": DATA,
    "starts": STARTS,
    "prompts": PROMPTS,
    "rewards": REWARDS,
    "metrics": METRICS,
    "set-metrics": SET_METRICS,
    "features": FEATURES,
}
"""The registries by the word that ``seedpo list`` takes."""
