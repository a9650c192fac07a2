"""The embedded world joined with the adapters: its model, scorer, truth, pairs and prompts, each behind a name."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from seedpo.data.pairs.sets import PairSet
from seedpo.data.settings import PairsConfig
from seedpo.metrics.features.clip import ClipFeatures
from seedpo.protocols import Images
from seedpo.rewards.clip import (
    PLAIN_COSINE,
    ClipScorer,
    clip_network,
    clip_tokenizer,
    load_clip,
    read_configuration,
)
from seedpo.rewards.clip_score import load_clip_scorer
from seedpo.rewards.networks import RewardNetwork
from seedpo.rewards.scoring import byte_batches, check_counts
from seedpo.rewards.step_aware_clip import StepAwareScorer, load_scorer, step_aware_network
from seedpo.scenes.assets import CLIP, FEW_LABELS, FLOW_PIPELINE, PIPELINE, PLAIN_SCORER, SCORER
from seedpo.scenes.pairs import preference_table
from seedpo.scenes.prompts import EVALUATION_PROMPTS, TRAINING_PROMPTS
from seedpo.scenes.taste import true_utility
from seedpo.weights import read_tensors


def scenes_folder() -> Path:
    """Folder of the embedded pipeline."""
    return PIPELINE


def flow_folder() -> Path:
    """Folder of the embedded pipeline by flow matching."""
    return FLOW_PIPELINE


@cache
def scenes_scorer() -> StepAwareScorer:
    """The embedded step-aware scorer."""
    return load_scorer(SCORER)


@cache
def plain_scorer() -> ClipScorer:
    """The embedded scorer that was trained on finished images alone."""
    return load_clip_scorer(PLAIN_SCORER)


@cache
def scenes_clip(place: str | None = None) -> ClipFeatures:
    """Embeddings by the CLIP of the embedded world. It ships with the package, so ``place`` has no effect."""
    return ClipFeatures(load_clip("scenes-clip", CLIP, kind="features", as_what="a CLIP"), name="scenes-clip")


@cache
def few_labels_scorer() -> ClipScorer:
    """The embedded scorer that learned from few choices: see :mod:`tools.scenes.few_labels`."""
    return weighted_scorer(CLIP, read_tensors(FEW_LABELS)["weights"])


def weighted_scorer(folder: Path, weights: Tensor | None = None) -> ClipScorer:
    """A scorer sum_i w_i e_i c_i on a CLIP's embeddings e of the image and c of the prompt, both of length 1.

    Args:
        folder: of the CLIP.
        weights: w, (D,); D = 64 for that of the embedded world. `None` weighs all equally.
    """
    tokenizer = clip_tokenizer("scenes-few", folder, repository=None)
    return ClipScorer(load_clip("scenes-few", folder), tokenizer, PLAIN_COSINE, weights=weights)


def scorer_network(_place: str | None = None) -> RewardNetwork:
    """The embedded step-aware scorer without weights."""
    return step_aware_network(read_configuration(SCORER / "config.json"))


def plain_network(_place: str | None = None) -> RewardNetwork:
    """The embedded scorer of finished images without weights."""
    return clip_network(read_configuration(PLAIN_SCORER / "config.json"))


def few_labels_network(_place: str | None = None) -> RewardNetwork:
    """The CLIP of the scorer of few labels without weights."""
    return clip_network(read_configuration(CLIP / "config.json"))


class ScenesTruth:
    """The simulated annotator's true utility as a reward."""

    def __call__(self, images: Images, prompts: Sequence[str]) -> Tensor:
        """True utility (B,)."""
        check_counts(images, prompts)
        if isinstance(images, Tensor):
            return true_utility(images, prompts)
        utility = torch.empty(len(prompts))
        for rows, pixels in byte_batches(images, device="cpu"):
            utility[rows] = true_utility(pixels.float() / 255.0, [prompts[row] for row in rows])
        return utility


def scenes_pairs(config: PairsConfig | None = None) -> PairSet:
    """The embedded preference set, read as configured."""
    return PairSet.of_table(preference_table(), origin="scenes-pairs", config=config)


def scorer_pairs(config: PairsConfig | None = None) -> PairSet:
    """The pairs behind the embedded scorer: few, so that it is honest where it has data and can be hacked elsewhere."""
    table = preference_table(count=2500, seed=7)
    return PairSet.of_table(table, origin="scenes-scorer-pairs", config=config)


def few_pairs(config: PairsConfig | None = None) -> PairSet:
    """The pairs behind the scorer of few labels."""
    return PairSet.of_table(preference_table(count=110, seed=70), origin="scenes-few-pairs", config=config)


def held_out_pairs(config: PairsConfig | None = None) -> PairSet:
    """Pairs of the embedded world that nothing is trained on."""
    table = preference_table(count=1000, seed=1234)
    return PairSet.of_table(table, origin="scenes-held-out-pairs", config=config)


def clip_folder() -> Path:
    """Folder of the CLIP that preference models of the embedded world start from."""
    return CLIP


def training_prompts() -> list[str]:
    """Prompts of the embedded world that everything is trained on."""
    return list(TRAINING_PROMPTS)


def evaluation_prompts() -> list[str]:
    """Prompts of the embedded world that nothing is trained on."""
    return list(EVALUATION_PROMPTS)
