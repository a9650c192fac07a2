"""Rewards by the names that users write: on the command line, and as `reward` and `evaluation.rewards` of a run.

A name is one of these::

    pickscore                    registered; `seedpo list rewards` shows them
    pickscore@models/pickscore   the same, its weights elsewhere: a folder, or owner/name[@revision] on the hub
    models/my-clip, owner/name   a CLIP preference model in transformers' format, step-aware or not
    my_module:my_function        Python code of the user's own
    mix                          a weighted sum that the configuration defines under `rewards`
"""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from seedpo.data.score_table import COLUMNS
from seedpo.errors import ConfigError
from seedpo.models.names import looks_like_a_model
from seedpo.protocols import Images
from seedpo.registry import unknown
from seedpo.rewards.catalogue import REWARDS, RewardEntry
from seedpo.rewards.outputs import checked_scores
from seedpo.rewards.settings import RewardTerm, WeightedSum, refuse_cycles
from seedpo.rewards.user_code import takes_timestep, user_reward
from seedpo.settings import Precision

Definitions = Mapping[str, WeightedSum]
"""Weighted sums by their names."""

DTYPES: Mapping[str, torch.dtype] = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""Types of numbers that networks of rewards compute with, by ``reward_precision``."""

_CODE = re.compile(r"(?P<module>[^\W\d]\w*(\.[^\W\d]\w*)*):(?P<attribute>[^\W\d]\w*(\.[^\W\d]\w*)*)")

_ELSE = "; or name@place, a folder or owner/name with a CLIP, module:function, or a name defined in `rewards`"


class CheckedReward:
    """A reward whose scores are checked before anything is ranked by them.

    Args:
        name: as the user wrote it.
        reward: gives the scores.
    """

    def __init__(self, name: str, reward: Callable[..., Tensor]) -> None:
        self.name = name
        self.reward = reward

    @property
    def step_blind(self) -> tuple[str, ...]:
        """Names of what takes no time step in it: its own, or those of terms of a sum."""
        if isinstance(self.reward, SummedReward):
            return self.reward.step_blind
        return () if takes_timestep(self.reward) else (self.name,)

    @property
    def step_aware(self) -> bool:
        """Whether all of it judges previews at their time step."""
        return not self.step_blind

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Moves the network, if there is one, to a device and to a type of numbers; what has none stays as it is."""
        if hasattr(self.reward, "to"):
            kept = {name: value for name, value in (("device", device), ("dtype", dtype)) if value is not None}
            kept = {name: value for name, value in kept.items() if name in signature(self.reward.to).parameters}
            if kept:
                self.reward.to(**kept)
        return self

    def __call__(self, images: Images, prompts: Sequence[str], *, timestep: Tensor | None = None) -> Tensor:
        """Scores (B,) float32 of images (B, 3, H, W) in [0, 1], or of B PIL images, each with its prompt.

        Args:
            images: finished images, or previews.
            prompts: one for each image.
            timestep: of the previews, (B,); what takes none judges them as if they were finished.

        Raises:
            DataError: if the scores have another shape, are no numbers or are not finite.
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
    """The reward of a name; what it loads is loaded once per process.

    Args:
        name: see the top of this module.
        definitions: weighted sums by their names.
        device: where networks are to be; none: where they are.
        precision: in which networks compute; ``no`` is float32.

    Raises:
        ConfigError: if there is none of this name; the message lists those that there are.
        DataError: if it cannot be loaded.
    """
    definitions = definitions or {}
    check_definitions(definitions)
    reward = _build(name, definitions)
    return reward.to(device, DTYPES[precision])


def _build(name: str, definitions: Definitions) -> CheckedReward:
    if name in definitions:
        terms = definitions[name].terms
        return CheckedReward(name, SummedReward([(_build(term, definitions), terms[term]) for term in terms]))
    if (registered := _registered(name)) is not None:
        entry, place = registered
        target = entry.load()
        return CheckedReward(name, target() if place is None else target(place))
    if _is_code(name):
        return CheckedReward(name, user_reward(name))
    check_name(name, definitions)
    from seedpo.rewards.clip_score import load_reward

    return CheckedReward(name, load_reward(name))


def _registered(name: str) -> tuple[RewardEntry, str | None] | None:
    """Entry and place of ``name`` or ``name@place``; `None` if it is neither."""
    head, at, place = name.partition("@")
    if head not in REWARDS or (at and Path(name).exists()):
        return None
    entry = REWARDS[head]
    if not at:
        return entry, None
    if entry.place is None:
        raise ConfigError(f"reward {name}: {head} has no weights that could lie elsewhere; write {head}")
    if not place:
        raise ConfigError(f"reward {name}: after @ stands a folder or owner/name, for example {head}@{entry.place}")
    return entry, place


def _is_code(name: str) -> bool:
    return _CODE.fullmatch(name) is not None and not Path(name).exists()


def leaves(name: str, definitions: Definitions | None = None) -> list[str]:
    """The name itself, or the names of all that a weighted sum is made of in the end, each once."""
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
    """Sees that names of sums are free, and that each term could be a reward; nothing is loaded.

    Raises:
        ConfigError: naming the sum and the mend.
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
                f"rewards.{name} could be mistaken for a path, a place, code or a column; name the sum with letters, "
                "digits, - and _"
            )
        for term in definition.terms:
            try:
                check_name(term, definitions)
            except ConfigError as error:
                raise ConfigError(f"rewards.{name}: {error}") from error


def check_name(name: str, definitions: Definitions | None = None) -> None:
    """Sees that a name could be that of a reward; nothing is loaded.

    Raises:
        ConfigError: if there is none of this name; the message lists those that there are.
    """
    definitions = definitions or {}
    if not (name in definitions or _registered(name) or _is_code(name) or looks_like_a_model(name)):
        raise unknown("reward", name, [*definitions, *REWARDS.names()], also=_ELSE)


def image_sizes(name: str, definitions: Definitions | None = None) -> dict[str, int]:
    """Height and width in pixels of the only images that parts of a reward can read, by their names."""
    sizes = {leaf: REWARDS[leaf].image_size for leaf in leaves(name, definitions) if leaf in REWARDS}
    return {leaf: size for leaf, size in sizes.items() if size is not None}


def forget(name: str) -> None:
    """Lets go of what was loaded for a name that is no sum, so that another model finds its memory free."""
    registered = None if _is_code(name) else _registered(name)
    loader: Any = None
    if registered is not None:
        loader = registered[0].load()
    elif not _is_code(name):
        from seedpo.rewards.clip_score import load_reward as loader
    if hasattr(loader, "cache_clear"):
        loader.cache_clear()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
