"""What a reward costs: its networks on the meta device, by the reward's name."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BlipTextConfig, BlipVisionConfig, CLIPConfig, CLIPModel

from seedpo.errors import DataError
from seedpo.planning.configurations import published
from seedpo.rewards.aesthetic import RatingMlp
from seedpo.rewards.catalogue import REWARDS
from seedpo.rewards.clip_scorer import image_embeds
from seedpo.rewards.imagereward import MAX_TOKENS, VISION_EPS, ImageRewardNetwork
from seedpo.rewards.named import DTYPES, Definitions, leaves
from seedpo.rewards.spm import CLIP_H14
from seedpo.rewards.step_aware_clip import StepAwareCLIP
from seedpo.scenes.assets import PLAIN_SCORER, SCORER
from seedpo.settings import Precision

Call = Callable[[int], object]
"""Runs a network on so many rows, of the meta device."""

_EMBEDDED = {"scenes-scorer": SCORER, "scenes-plain": PLAIN_SCORER}

WITHOUT_NETWORK = frozenset({"scenes-truth", "jpeg-compressibility", "jpeg-incompressibility"})

RATING_WIDTHS = (1024, 128, 64, 16, 1)
"""Of the aesthetic predictor's layers, after the embedding."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A reward, or a term of a weighted sum.

    Attributes:
        origin: what its network was taken for, for people.
        network: on the meta device; none for a reward without one.
        image: what a row of images costs; for a network that reads prompt and image together, the prompt too.
        text: what a prompt costs, once.
        assumed: whether the network is a guess.
        counted: whether it is known at all.
    """

    origin: str
    network: nn.Module | None = None
    image: Call | None = None
    text: Call | None = None
    assumed: bool = False
    counted: bool = True


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """A reward as a run names it.

    Attributes:
        parts: the reward itself, or the terms of a weighted sum, by their names.
    """

    parts: Mapping[str, Part]

    @property
    def origin(self) -> str:
        """What its networks were taken for, for people."""
        return "; ".join(part.origin for part in self.parts.values())

    @property
    def networks(self) -> nn.ModuleList:
        """All networks."""
        return nn.ModuleList(part.network for part in self.parts.values() if part.network is not None)

    def calls(self, kind: str) -> list[Call]:
        """What it does with ``image`` or ``text``; nothing, if no network does it."""
        found = [getattr(part, kind) for part in self.parts.values()]
        return [call for call in found if call is not None]


def build_scorer(
    name: str, *, step_aware: bool, definitions: Definitions | None = None, precision: Precision = "no"
) -> Scorer:
    """The networks of a reward.

    Args:
        name: as in the run's configuration.
        step_aware: whether it is asked with a time step; decides for rewards of which no more than the name is known.
        definitions: weighted sums by their names.
        precision: in which the networks compute.

    Raises:
        DataError: if a folder is named whose configuration cannot be read.
    """
    parts = {leaf: _part(leaf, step_aware=step_aware) for leaf in leaves(name, definitions)}
    for part in parts.values():
        if part.network is not None:
            part.network.to(DTYPES[precision])
    return Scorer(parts=parts)


def _part(name: str, *, step_aware: bool) -> Part:
    head, at, place = name.partition("@")
    if head in WITHOUT_NETWORK:
        return Part(origin="no network")
    registered = head in REWARDS and not (at and Path(name).exists())
    folder = _EMBEDDED.get(head) or Path(place if registered else name)
    own = _read(folder / "config.json") if (folder / "config.json").is_file() else None
    if registered and head in _PUBLISHED:
        return _PUBLISHED[head](f"{name}, as published" if own is None else name, own)
    if own is not None:
        aware = StepAwareCLIP.__name__ in (own.get("architectures") or [])
        return (_step_aware if aware else _clip)(name, own)
    if ":" in name:
        return Part(origin=f"{name}, which is not counted", counted=False)
    return (_step_aware if step_aware else _clip)(f"{name}, taken for CLIP-H/14", CLIP_H14, assumed=True)


def _clip(origin: str, configuration: Mapping[str, Any], *, assumed: bool = False) -> Part:
    network = _on_meta(lambda: CLIPModel(CLIPConfig(**configuration)))
    return Part(
        origin=origin,
        network=network,
        image=lambda rows: network.get_image_features(pixel_values=_pixels(network, rows)),
        text=lambda rows: network.get_text_features(input_ids=_ids(network, rows)),
        assumed=assumed,
    )


def _step_aware(origin: str, configuration: Mapping[str, Any], *, assumed: bool = False) -> Part:
    network = _on_meta(lambda: StepAwareCLIP(CLIPConfig(**configuration)))
    return Part(
        origin=origin,
        network=network,
        image=lambda rows: network.image_embeds(_pixels(network, rows), torch.zeros(rows, device="meta")),
        text=lambda rows: network.get_text_features(input_ids=_ids(network, rows)),
        assumed=assumed,
    )


def _aesthetic(origin: str, own: Mapping[str, Any] | None) -> Part:
    config = CLIPConfig(**(own or published("clip-vit-large-patch14")))
    clip = _on_meta(lambda: CLIPModel(config))
    del clip.text_model
    mlp = _on_meta(lambda: RatingMlp((config.projection_dim, *RATING_WIDTHS)))
    return Part(
        origin=origin,
        network=nn.ModuleList([clip, mlp]),
        image=lambda rows: mlp(image_embeds(clip, _pixels(clip, rows)).to(mlp.layers[0].weight.dtype)),
    )


def _imagereward(origin: str, own: Mapping[str, Any] | None) -> Part:
    """BLIP-L: ViT-L/16 at 224 px, and a BERT-base of 30524 words with cross attention."""
    vision = BlipVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=224,
        patch_size=16,
        layer_norm_eps=VISION_EPS,
    )
    text = BlipTextConfig(encoder_hidden_size=1024, num_attention_heads=12, vocab_size=30524)
    network = _on_meta(lambda: ImageRewardNetwork(vision, text))

    def image(rows: int) -> Tensor:
        pixels = torch.empty(rows, 3, 224, 224, device="meta", dtype=network.vision.dtype)
        ids = torch.zeros(rows, MAX_TOKENS, dtype=torch.int64, device="meta")
        scores: Tensor = network(pixels, ids, None)  # a mask is looked into, which has no data here
        return scores

    return Part(origin=origin, network=network, image=image)


_PUBLISHED: Mapping[str, Callable[[str, Mapping[str, Any] | None], Part]] = {
    "pickscore": lambda origin, own: _clip(origin, own or CLIP_H14),
    "hpsv2": lambda origin, own: _clip(origin, CLIP_H14),
    "hpsv2.1": lambda origin, own: _clip(origin, CLIP_H14),
    "imagereward": _imagereward,
    "aesthetic": _aesthetic,
    "clipscore": lambda origin, own: _clip(origin, own or published("clip-vit-large-patch14")),
    "spm-sd15": lambda origin, own: _step_aware(origin, own or CLIP_H14),
    "spm-sdxl": lambda origin, own: _step_aware(origin, own or CLIP_H14),
}
"""Registered rewards whose networks come from the hub, with the configuration in their folder if one is named."""


def _on_meta(make: Callable[[], Any]) -> Any:
    with torch.device("meta"):
        network = make()
    return network.eval().requires_grad_(False)


def _pixels(network: CLIPModel, rows: int) -> Tensor:
    size = network.config.vision_config.image_size
    return torch.empty(rows, 3, size, size, device="meta", dtype=network.dtype)


def _ids(network: CLIPModel, rows: int) -> Tensor:
    length = network.config.text_config.max_position_embeddings
    return torch.zeros(rows, length, dtype=torch.int64, device="meta")


def _read(place: Path) -> dict[str, Any]:
    try:
        content = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{place} cannot be read as JSON ({error}); copy it again") from error
    if not isinstance(content, dict):
        raise DataError(f"{place} must hold a JSON object; copy it again")
    return content
