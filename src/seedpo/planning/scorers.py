"""The networks of a run's rewards on the meta device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from seedpo.registry import load_target
from seedpo.rewards.clip import clip_network, is_step_aware, read_configuration
from seedpo.rewards.lrm import LAYOUTS, latent_network
from seedpo.rewards.names import Definitions, RewardSource, leaves, source_of
from seedpo.rewards.networks import NO_NETWORK, RewardNetwork
from seedpo.rewards.step_aware_clip import step_aware_network
from seedpo.settings import Precision
from seedpo.weights import DTYPES

Call = Callable[[int], object]
"""Runs a network on a number of rows of the meta device."""


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """A reward as a run names it.

    Attributes:
        parts: network of the reward itself, or of each term of a weighted sum, by name; `None` if it is unknown.
        origin: where each network comes from, for people.
    """

    parts: Mapping[str, RewardNetwork | None]
    origin: str

    @property
    def unknown(self) -> list[str]:
        """Names of the parts whose network is unknown, which are not counted."""
        return [name for name, part in self.parts.items() if part is None]

    @property
    def networks(self) -> nn.ModuleList:
        """All networks."""
        return nn.ModuleList(part.network for part in self.parts.values() if part is not None)

    def calls(self, kind: str) -> list[Call]:
        """The calls for ``images`` or ``prompts``; empty if no network has any."""
        calls = [getattr(part, kind) for part in self.parts.values() if part is not None]
        return [call for call in calls if call is not None]

    @property
    def latent_calls(self) -> list[Callable[[Tensor], object]]:
        """The calls for noisy latents; empty if no network reads them."""
        calls = [part.latents for part in self.parts.values() if part is not None]
        return [call for call in calls if call is not None]


def build_scorer(name: str, *, definitions: Definitions | None = None, precision: Precision = "no") -> Scorer:
    """The networks of a reward.

    Args:
        name: as in the run's configuration.
        definitions: weighted sums and rewards on servers by their names.
        precision: of the networks.

    Raises:
        ConfigError: if there is no reward of this name.
        DataError: if the configuration in a folder cannot be read.
    """
    parts, origins = {}, []
    for leaf in leaves(name, definitions):
        source = source_of(leaf, definitions)
        parts[leaf] = network = _network(source)
        published = source.entry is not None and source.entry.place is not None and source.place is None
        if source.remote is not None:
            origins.append(f"{leaf} at {source.remote.url}")
        elif network is None:
            origins.append(f"{leaf}, which is not counted")
        elif not list(network.network.parameters()):
            origins.append("no network")
        else:
            network.network.to(DTYPES[precision])
            origins.append(f"{leaf}, as published" if published else leaf)
    return Scorer(parts=parts, origin="; ".join(origins))


def _network(source: RewardSource) -> RewardNetwork | None:
    """The network of a reward without weights; `None` if nothing is known about it, as about a user's code.

    Raises:
        DataError: if its configuration cannot be read.
    """
    if source.remote is not None:
        return NO_NETWORK
    if source.entry is not None:
        if source.entry.network is None:
            return NO_NETWORK
        network: RewardNetwork = load_target(source.entry.network)(source.place)
        return network
    if source.is_latent_folder:
        return latent_network(Path(source.name), LAYOUTS["lrm-sd15"])
    file = Path(source.name) / "config.json"
    if source.is_code or not file.is_file():
        return None
    configuration = read_configuration(file)
    return (step_aware_network if is_step_aware(configuration) else clip_network)(configuration)
