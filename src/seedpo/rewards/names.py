"""Rewards by the names that users write: what a name stands for. Nothing is loaded, and torch is not needed.

A name is one of these::

    pickscore                    registered; `seedpo list rewards` shows them
    pickscore@models/pickscore   the same with other weights: a folder, or owner/name[@revision] on the hub
    models/my-clip, owner/name   a CLIP preference model in transformers' format, step-aware or not
    my_module:my_function        the user's own Python code
    http://host:8077/pickscore   what a server of `seedpo reward serve` computes
    mix                          a weighted sum or a reward on a server, that the configuration defines under `rewards`

:func:`source_of` reads a name that is not a sum; everything else asks it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

from pydantic import ValidationError

from seedpo.data.settings import SCORE_COLUMNS
from seedpo.errors import ConfigError
from seedpo.files import exists
from seedpo.models.names import looks_like_a_model
from seedpo.protocols import Reward
from seedpo.registry import load_target, unknown
from seedpo.rewards.catalogue import REWARDS, RewardEntry
from seedpo.rewards.settings import HttpSettings, Remote, RewardDefinition, RewardTerm, refuse_cycles

Definitions = Mapping[str, RewardDefinition]
"""Weighted sums and rewards on servers by their names."""

_CODE = re.compile(r"(?P<module>[^\W\d]\w*(\.[^\W\d]\w*)*):(?P<attribute>[^\W\d]\w*(\.[^\W\d]\w*)*)")

_OTHER_FORMS = (
    "; or name@place, a folder or owner/name with a CLIP, module:function, http://host:port/name, or a name defined in "
    "`rewards`"
)

_USER_CODE = "seedpo.rewards.user_code:user_reward"
_CLIP, _LATENT = "seedpo.rewards.clip_score:load_reward", "seedpo.rewards.lrm:load_latent_scorer"
"""What loads rewards that no row of the registry knows."""


@dataclass(frozen=True, kw_only=True)
class RewardSource:
    """Where the reward of a name comes from.

    Attributes:
        name: as the user wrote it.
        entry: of a registered reward; `None` for a user's code, for a CLIP in a folder or on the hub, and on a server.
        place: of a registered reward's weights; `None` for the default place.
        remote: how the server is asked that computes it; `None` if it is computed here.
    """

    name: str
    entry: RewardEntry | None = None
    place: str | None = None
    remote: Remote | None = None

    @property
    def is_code(self) -> bool:
        """Whether it is the user's own code."""
        return self._is_unregistered and _is_code(self.name)

    @property
    def is_latent_folder(self) -> bool:
        """Whether it is a latent reward model in a folder of the user's."""
        return self._is_unregistered and not self.is_code and exists(f"{self.name}/unet/config.json")

    @property
    def _is_unregistered(self) -> bool:
        return self.entry is None and self.remote is None

    @property
    def reads_latents(self) -> bool:
        """Whether it judges noisy latents, so that nothing is decoded."""
        return self.entry.latent if self.entry is not None else self.is_latent_folder

    @property
    def is_guided(self) -> bool:
        """Whether it judges noisy latents and reads the empty prompt, too."""
        return self.reads_latents and (self.entry is None or self.entry.guided)

    def loader(self) -> Callable[..., Reward]:
        """What loads the reward: once per process, and only when it is called."""
        if self.remote is not None:
            return partial(load_target(self.remote.target), self.name, self.remote)
        if self.entry is not None:
            loader: Callable[..., Reward] = self.entry.load()
            return loader if self.place is None else partial(loader, self.place)
        loader = load_target(_USER_CODE if self.is_code else _LATENT if self.is_latent_folder else _CLIP)
        return partial(loader, self.name)


def source_of(name: str, definitions: Definitions | None = None) -> RewardSource:
    """The source of a reward that is not a sum; nothing is loaded.

    Args:
        name: see the top of this module.
        definitions: those of the configuration, whose names the error lists too.

    Raises:
        ConfigError: if there is no reward of this name; the message lists the known names.
    """
    if remote := _remote_of(name, definitions or {}):
        return RewardSource(name=name, remote=remote)
    head, at, place = name.partition("@")
    if head in REWARDS and not (at and exists(name)):
        entry = REWARDS[head]
        if at and entry.place is None:
            raise ConfigError(f"reward {name}: {head} has no weights that could be elsewhere; write {head}")
        if at and not place:
            raise ConfigError(f"reward {name}: name a folder or owner/name after @, for example {head}@{entry.place}")
        return RewardSource(name=name, entry=entry, place=place or None)
    if _is_code(name) or looks_like_a_model(name):
        return RewardSource(name=name)
    raise unknown("reward", name, [*(definitions or {}), *REWARDS.names()], also=_OTHER_FORMS)


def _remote_of(name: str, definitions: Definitions) -> Remote | None:
    """How the server is asked that computes a reward; `None` if none does."""
    if name in definitions:
        return definitions[name].remote
    if not name.startswith(("http://", "https://")):
        return None
    address = urlsplit(name)
    try:
        return HttpSettings(url=f"{address.scheme}://{address.netloc}", reward=name.split("/", 3)[3])
    except (ValidationError, IndexError) as error:
        raise ConfigError(
            f"reward {name} is no address of a reward; write http://HOST:PORT/NAME, for example "
            "http://127.0.0.1:8077/pickscore"
        ) from error


def _is_code(name: str) -> bool:
    return _CODE.fullmatch(name) is not None and not exists(name)


def leaves(name: str, definitions: Definitions | None = None) -> list[str]:
    """The name itself, or of a weighted sum the names of all rewards in it, each once."""
    definitions = definitions or {}
    terms = terms_of(name, definitions)
    return list(dict.fromkeys(leaf for term in terms for leaf in leaves(term, definitions))) if terms else [name]


def terms_of(name: str, definitions: Definitions) -> Mapping[str, RewardTerm]:
    """The terms of a weighted sum by the names of their rewards; empty for everything else."""
    return definitions[name].terms if name in definitions else {}


def latent_leaves(name: str, definitions: Definitions | None = None) -> list[str]:
    """Those of a reward's :func:`leaves` that judge noisy latents."""
    return [leaf for leaf in leaves(name, definitions) if source_of(leaf, definitions).reads_latents]


def check_definitions(definitions: Definitions) -> None:
    """Checks that names of the user's own are free and that each term could be a reward; nothing is loaded.

    Raises:
        ConfigError: naming the reward and the fix.
    """
    try:
        refuse_cycles(definitions)
    except ValueError as error:
        raise ConfigError(f"rewards: {error}") from error
    for name, definition in definitions.items():
        if name in REWARDS:
            raise ConfigError(f"rewards.{name} has the name of a registered reward; give it another name")
        if not name or any(mark in name for mark in "/\\@:,") or name in SCORE_COLUMNS:
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
