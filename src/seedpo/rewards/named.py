"""Rewards by the names that users write: on the command line, and as `reward` and `evaluation.rewards` of a run.

A name is one of these::

    pickscore                    registered; `seedpo list rewards` shows them
    pickscore@models/pickscore   the same with other weights: a folder, or owner/name[@revision] on the hub
    models/my-clip, owner/name   a CLIP preference model in transformers' format, step-aware or not
    my_module:my_function        the user's own Python code
    mix                          a weighted sum that the configuration defines under `rewards`

:func:`source_of` reads a name that is not a sum; everything else asks it.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from seedpo.data.score_table import COLUMNS
from seedpo.errors import ConfigError
from seedpo.models.names import looks_like_a_model
from seedpo.protocols import Images, Reward
from seedpo.registry import load_target, unknown
from seedpo.rewards.catalogue import REWARDS, RewardEntry
from seedpo.rewards.networks import NO_NETWORK, RewardNetwork
from seedpo.rewards.scoring import checked_scores
from seedpo.rewards.settings import RewardTerm, WeightedSum, refuse_cycles
from seedpo.rewards.user_code import takes_timestep, user_reward
from seedpo.settings import Precision
from seedpo.weights import DTYPES

Definitions = Mapping[str, WeightedSum]
"""Weighted sums by their names."""

_CODE = re.compile(r"(?P<module>[^\W\d]\w*(\.[^\W\d]\w*)*):(?P<attribute>[^\W\d]\w*(\.[^\W\d]\w*)*)")

_OTHER_FORMS = "; or name@place, a folder or owner/name with a CLIP, module:function, or a name defined in `rewards`"


@dataclass(frozen=True, kw_only=True)
class RewardSource:
    """Where the reward of a name comes from.

    Attributes:
        name: as the user wrote it.
        entry: of a registered reward; `None` for a user's code and for a CLIP in a folder or on the hub.
        place: of a registered reward's weights; `None` for the default place.
    """

    name: str
    entry: RewardEntry | None = None
    place: str | None = None

    @property
    def is_code(self) -> bool:
        """Whether it is the user's own code."""
        return self.entry is None and _is_code(self.name)

    def load(self) -> Reward:
        """The reward; its model is loaded once per process."""
        loader = self._loader()
        if self.entry is None:
            return loader(self.name)
        return loader() if self.place is None else loader(self.place)

    def forget(self) -> None:
        """Frees the loaded model, so that another one finds its memory free."""
        loader: Any = self._loader()
        if not self.is_code and hasattr(loader, "cache_clear"):
            loader.cache_clear()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def network(self) -> RewardNetwork | None:
        """Its network without weights; `None` if nothing is known about it, as about a user's code.

        Raises:
            DataError: if its configuration cannot be read.
        """
        if self.entry is not None:
            if self.entry.network is None:
                return NO_NETWORK
            network: RewardNetwork = load_target(self.entry.network)(self.place)
            return network
        file = Path(self.name) / "config.json"
        if self.is_code or not file.is_file():
            return None
        from seedpo.rewards.clip import clip_network, is_step_aware, read_configuration
        from seedpo.rewards.step_aware_clip import step_aware_network

        configuration = read_configuration(file)
        return (step_aware_network if is_step_aware(configuration) else clip_network)(configuration)

    def _loader(self) -> Callable[..., Reward]:
        if self.entry is not None:
            loader: Callable[..., Reward] = self.entry.load()
            return loader
        if self.is_code:
            return user_reward
        from seedpo.rewards.clip_score import load_reward

        return load_reward


def source_of(name: str, definitions: Definitions | None = None) -> RewardSource:
    """The source of a reward that is not a sum; nothing is loaded.

    Args:
        name: see the top of this module.
        definitions: weighted sums, whose names the error lists too.

    Raises:
        ConfigError: if there is no reward of this name; the message lists the known names.
    """
    head, at, place = name.partition("@")
    if head in REWARDS and not (at and Path(name).exists()):
        entry = REWARDS[head]
        if at and entry.place is None:
            raise ConfigError(f"reward {name}: {head} has no weights that could be elsewhere; write {head}")
        if at and not place:
            raise ConfigError(f"reward {name}: name a folder or owner/name after @, for example {head}@{entry.place}")
        return RewardSource(name=name, entry=entry, place=place or None)
    if _is_code(name) or looks_like_a_model(name):
        return RewardSource(name=name)
    raise unknown("reward", name, [*(definitions or {}), *REWARDS.names()], also=_OTHER_FORMS)


def _is_code(name: str) -> bool:
    return _CODE.fullmatch(name) is not None and not Path(name).exists()


class CheckedReward:
    """A reward whose scores are checked before anything is ranked by them.

    Args:
        name: as the user wrote it.
        reward: returns the scores.
    """

    def __init__(self, name: str, reward: Callable[..., Tensor]) -> None:
        self.name = name
        self.reward = reward

    @property
    def step_blind(self) -> tuple[str, ...]:
        """Names of the parts that take no time step: its own, or those of terms of a sum."""
        if isinstance(self.reward, SummedReward):
            return self.reward.step_blind
        return () if takes_timestep(self.reward) else (self.name,)

    @property
    def step_aware(self) -> bool:
        """Whether all parts judge previews at their time step."""
        return not self.step_blind

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Moves the network, if there is one, to a device and to a number format."""
        if hasattr(self.reward, "to"):
            self.reward.to(device=device, dtype=dtype)
        return self

    def __call__(self, images: Images, prompts: Sequence[str], *, timestep: Tensor | None = None) -> Tensor:
        """Scores (B,) float32 of images (B, 3, H, W) in [0, 1], or of B PIL images, each with its prompt.

        Args:
            images: finished images, or previews.
            prompts: one for each image.
            timestep: of the previews, (B,); a reward that takes none judges them as finished images.

        Raises:
            DataError: if the scores have another shape, are not real or are not finite.
        """
        aware = timestep is not None and takes_timestep(self.reward)
        scores = self.reward(images, prompts, timestep=timestep) if aware else self.reward(images, prompts)
        return checked_scores(scores, prompts, reward=self.name)


class SummedReward:
    """A weighted sum of rewards; see :class:`seedpo.rewards.settings.WeightedSum`.

    Args:
        parts: the reward and the settings of each term.
    """

    def __init__(self, parts: Sequence[tuple[CheckedReward, RewardTerm]]) -> None:
        self.parts = parts

    @property
    def step_blind(self) -> tuple[str, ...]:
        """Names of the terms that take no time step."""
        return tuple(dict.fromkeys(name for reward, _ in self.parts for name in reward.step_blind))

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Moves the networks of all terms."""
        for reward, _ in self.parts:
            reward.to(device, dtype)
        return self

    def __call__(self, images: Images, prompts: Sequence[str], *, timestep: Tensor | None = None) -> Tensor:
        """Scores (B,); see :class:`CheckedReward`."""
        return added(
            [reward(images, prompts, timestep=timestep) for reward, _ in self.parts], [term for _, term in self.parts]
        )


def build_reward(
    name: str,
    *,
    definitions: Definitions | None = None,
    device: torch.device | str | None = None,
    precision: Precision = "no",
) -> CheckedReward:
    """The reward of a name; its models are loaded once per process.

    Args:
        name: see the top of this module.
        definitions: weighted sums by their names.
        device: of the networks; `None` leaves them where they are.
        precision: of the networks; ``no`` is float32.

    Raises:
        ConfigError: if there is no reward of this name; the message lists the known names.
        DataError: if it cannot be loaded.
    """
    return _build(name, definitions or {}).to(device, DTYPES[precision])


def _build(name: str, definitions: Definitions) -> CheckedReward:
    if name not in definitions:
        return CheckedReward(name, source_of(name, definitions).load())
    terms = definitions[name].terms
    return CheckedReward(name, SummedReward([(_build(term, definitions), terms[term]) for term in terms]))


def leaves(name: str, definitions: Definitions | None = None) -> list[str]:
    """The name itself, or of a weighted sum the names of all rewards in it, each once."""
    definitions = definitions or {}
    if name not in definitions:
        return [name]
    return list(dict.fromkeys(leaf for term in definitions[name].terms for leaf in leaves(term, definitions)))


def combined(name: str, definitions: Definitions, scores: Mapping[str, Tensor]) -> Tensor:
    """Scores (B,) of a name from those of its :func:`leaves`."""
    if name not in definitions:
        return scores[name]
    terms = definitions[name].terms
    return added([combined(term, definitions, scores) for term in terms], list(terms.values()))


def added(scores: Sequence[Tensor], terms: Sequence[RewardTerm]) -> Tensor:
    """The weighted sum (B,) of the scores (B,) of several rewards, on the device of the first.

    sum_i w_i (r_i - m_i) / s_i; without mean m and standard deviation s, w_i r_i.
    """
    total = torch.zeros_like(scores[0])
    for values, term in zip(scores, terms, strict=True):
        scaled = values if term.mean is None or term.std is None else (values - term.mean) / term.std
        total = total + term.weight * scaled.to(total.device)
    return total


def check_definitions(definitions: Definitions) -> None:
    """Checks that names of sums are free and that each term could be a reward; nothing is loaded.

    Raises:
        ConfigError: naming the sum and the fix.
    """
    try:
        refuse_cycles(definitions)
    except ValueError as error:
        raise ConfigError(f"rewards: {error}") from error
    for name, definition in definitions.items():
        if name in REWARDS:
            raise ConfigError(f"rewards.{name} has the name of a registered reward; give the sum another name")
        if not name or any(mark in name for mark in "/\\@:,") or name in COLUMNS:
            raise ConfigError(
                f"rewards.{name} could be mistaken for a path, a place, code or a column; use letters, digits, - and _"
            )
        for term in definition.terms:
            try:
                check_name(term, definitions)
            except ConfigError as error:
                raise ConfigError(f"rewards.{name}: {error}") from error


def check_name(name: str, definitions: Definitions | None = None) -> None:
    """Checks that a name could be that of a reward; nothing is loaded.

    Raises:
        ConfigError: if there is no reward of this name; the message lists the known names.
    """
    if name not in (definitions or {}):
        source_of(name, definitions)


def image_sizes(name: str, definitions: Definitions | None = None) -> dict[str, int]:
    """Height and width in pixels of the only images that parts of a reward can read, by their names."""
    sizes = {leaf: REWARDS[leaf].image_size for leaf in leaves(name, definitions) if leaf in REWARDS}
    return {leaf: size for leaf, size in sizes.items() if size is not None}


def forget(name: str) -> None:
    """Frees what was loaded for a name that is not a sum."""
    source_of(name).forget()
