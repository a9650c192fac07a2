"""LAION's aesthetic predictor v2: how beautiful people find an image, by a small network on CLIP-L/14.

    score = MLP(e / |e|),  e the image embedding of OpenAI's CLIP-L/14

The MLP has five linear layers and no activation between them, as published (sac+logos+ava1-l14-linearMSE; the reward
of DDPO, arXiv 2305.13301, is the same file). The score is a rating, mostly between 1 and 10; the prompt plays no part.
Images are prepared as OpenAI's package prepares them. That package computes CLIP in float16 on a GPU; here it is
float32 by default, and the MLP always is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel

from seedpo.errors import DataError
from seedpo.protocols import Images
from seedpo.rewards.checkpoints import fill, located
from seedpo.rewards.clip import CLIP_FILES, CLIP_L, CLIP_L14, configuration_at, image_embeds, load_clip, no_pixels
from seedpo.rewards.networks import RewardNetwork, on_meta
from seedpo.rewards.preprocessing import clip_pixels
from seedpo.rewards.scoring import BATCH_SIZE, score_in_batches
from seedpo.weights import read_weights

REPOSITORY = "trl-lib/ddpo-aesthetic-predictor"
WEIGHTS = ("aesthetic-model.pth", "sac+logos+ava1-l14-linearMSE.pth")
"""Names under which the MLP is published; the weights are the same."""

LINEAR_LAYERS = (0, 2, 4, 6, 7)
"""Places of the linear layers; those in between were for dropout in training."""

PUBLISHED_WIDTHS = (1024, 128, 64, 16, 1)
"""Outputs of the published linear layers."""


class RatingMlp(nn.Module):
    """Ratings (B, 1) of normalised embeddings (B, D).

    Args:
        widths: of the embedding and of what each of the five layers gives.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*[nn.Identity() for _ in range(LINEAR_LAYERS[-1] + 1)])
        for place, into, out in zip(LINEAR_LAYERS, widths, widths[1:], strict=False):
            self.layers[place] = nn.Linear(into, out)

    def forward(self, embeds: Tensor) -> Tensor:
        """Rates embeddings."""
        rated: Tensor = self.layers(embeds)
        return rated


class AestheticScorer:
    """A reward from CLIP's image embedding and an MLP.

    Args:
        clip: gives the embedding; its text tower is dropped.
        mlp: rates it.
        batch_size: most images that the network sees at once.
    """

    def __init__(self, clip: CLIPModel, mlp: RatingMlp, *, batch_size: int = BATCH_SIZE) -> None:
        del clip.text_model
        self.clip = clip.eval().requires_grad_(False)
        self.mlp = mlp.float().eval().requires_grad_(False)
        self.batch_size = batch_size

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Moves the networks to a device, and CLIP to a number format; `None` leaves them as they are."""
        self.clip.to(device=device, dtype=dtype)
        self.mlp.to(device=device)
        return self

    def __call__(self, images: Images, prompts: Sequence[str]) -> Tensor:
        """Scores (B,) float32, on the networks' device, of images (B, 3, H, W) in [0, 1] or B PIL images.

        Raises:
            DataError: if the counts differ, or something is not an image.
        """
        return score_in_batches(images, prompts, self._score, batch_size=self.batch_size, device=self.clip.device)

    def _score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        pixels = clip_pixels(images, self.clip.config.vision_config.image_size, crop="torchvision")
        rated: Tensor = self.mlp(image_embeds(self.clip, pixels))
        return rated[:, 0]


@cache
def aesthetic(place: str | None = None) -> AestheticScorer:
    """The aesthetic predictor, loaded once per process; 1.7 GB from the hub without a place.

    Args:
        place: folder, or ``owner/name[@revision]`` on the hub, with ``aesthetic-model.pth`` or
            ``sac+logos+ava1-l14-linearMSE.pth``, and, optionally, CLIP-L/14 in transformers' format
            (``config.json``, ``model.safetensors``); otherwise CLIP comes from the hub.

    Raises:
        DataError: if it cannot be loaded; the message names files or tensors.
    """
    folder = located("aesthetic", place, repository=REPOSITORY, files=(), optional=[*WEIGHTS, *CLIP_FILES])
    path = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if path is None:
        raise DataError(f"reward aesthetic: {folder} has neither {' nor '.join(WEIGHTS)}; copy one of them there")
    mlp = mlp_of(read_weights(path), origin=path)
    if not (folder / "config.json").is_file():
        folder = located("aesthetic", None, repository=CLIP_L, files=CLIP_FILES)
    clip = load_clip("aesthetic", folder)
    wide, taken = clip.config.projection_dim, mlp.layers[0].in_features
    if wide != taken:
        raise DataError(
            f"reward aesthetic: {path} rates embeddings of {taken} numbers, the CLIP in {folder} gives {wide}"
        )
    return AestheticScorer(clip, mlp)


def aesthetic_network(place: str | None = None) -> RewardNetwork:
    """The predictor without weights; see :func:`aesthetic`."""
    config = CLIPConfig(**configuration_at(place, CLIP_L14))
    clip = on_meta(lambda: CLIPModel(config))
    del clip.text_model
    mlp = on_meta(lambda: RatingMlp((config.projection_dim, *PUBLISHED_WIDTHS)))
    return RewardNetwork(
        network=nn.ModuleList([clip, mlp]),
        images=lambda count: mlp(image_embeds(clip, no_pixels(clip, count)).to(mlp.layers[0].weight.dtype)),
    )


def mlp_of(weights: Mapping[str, Tensor], *, origin: str | Path) -> RatingMlp:
    """The MLP with published weights; its widths follow from their shapes.

    Raises:
        DataError: naming weights that are missing, left over or of another shape.
    """
    nothing = torch.zeros(1, 1)
    taken = weights.get("layers.0.weight", nothing).shape[-1:].numel()
    given = [weights.get(f"layers.{place}.bias", nothing).numel() for place in LINEAR_LAYERS]
    mlp = RatingMlp([taken, *given])
    fill(mlp, weights, origin=origin)
    return mlp
