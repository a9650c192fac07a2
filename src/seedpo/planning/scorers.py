"""What a reward costs: its network on the meta device, by the reward's name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPConfig, CLIPModel

from seedpo.errors import DataError
from seedpo.planning.configurations import published
from seedpo.rewards.step_aware_clip import StepAwareCLIP
from seedpo.scenes.assets import SCORER

ARITHMETIC = frozenset({"scenes-truth", "jpeg-compressibility", "jpeg-incompressibility"})
"""Rewards without a network."""

KNOWN = {"pickscore": "clip-vit-h-14"}
"""The network's configuration of rewards that come from the hub, by name."""

ASSUMED = "clip-vit-h-14"
"""What a reward is taken for whose network is not known here: that of PickScore, HPSv2 and SPO's preference models."""


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """A reward's network.

    Attributes:
        origin: where its configuration comes from, for people.
        network: on the meta device; none for a reward without one.
        assumed: whether the network is a guess.
    """

    origin: str
    network: CLIPModel | None
    assumed: bool = False


def build_scorer(name: str, *, step_aware: bool) -> Scorer:
    """The network of a reward.

    Args:
        name: as in the run's configuration.
        step_aware: whether it is asked with a time step.

    Raises:
        DataError: if a folder is named whose configuration cannot be read.
    """
    if name in ARITHMETIC:
        return Scorer(origin="no network", network=None)
    folder = SCORER if name == "scenes-scorer" else Path(name)
    if (folder / "config.json").is_file():
        return Scorer(origin=f"{name}", network=_network(_read(folder / "config.json"), step_aware=True))
    if name in KNOWN:
        return Scorer(origin=f"{name}, as published", network=_network(published(KNOWN[name]), step_aware=step_aware))
    network = _network(published(ASSUMED), step_aware=step_aware)
    return Scorer(origin=f"{name}, taken for CLIP-H/14", network=network, assumed=True)


def _network(configuration: Mapping[str, Any], *, step_aware: bool) -> CLIPModel:
    with torch.device("meta"):
        network = (StepAwareCLIP if step_aware else CLIPModel)(CLIPConfig(**configuration))
    return network.eval().requires_grad_(False)


def _read(place: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{place} cannot be read as JSON ({error}); copy it again") from error
    return content
