"""Rewards under names of the user's own: weighted sums of others, and those that a server computes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import AfterValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from seedpo.settings import NO_EFFECT, Place, Section

_ADDRESS = re.compile(r"https?://[^\s/?#@]+(/[^\s?#]*)?")


class RewardTerm(Section):
    """One reward in a weighted sum; a number alone is its weight."""

    weight: float
    """What the term is multiplied by; below 0: less of it is better."""
    mean: float | None = None
    """With `std`: subtracted first. A fixed number, as `seedpo score --as-sum` prints it, never that of the images that
    are scored together: the score of an image does not depend on the others, so that a resumed run and several
    processes agree."""
    std: float | None = Field(None, gt=0.0)
    """With `mean`: then divided by, so that `weight` alone weighs terms of different scales; `None`: the term
    counts as it is."""

    @model_validator(mode="before")
    @classmethod
    def _bare_weight(cls, value: Any) -> Any:
        return {"weight": value} if isinstance(value, int | float) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std belong together; give both, or neither for a term that counts as it is")
        return self


def _as_address(url: str) -> str:
    if not _ADDRESS.fullmatch(url):
        raise ValueError(
            "write the address of a server, such as http://127.0.0.1:8077; no user name, no ? and no # belong in it"
        )
    return url.rstrip("/")


class Remote(Section):
    """What rewards that a server computes have in common."""

    target: ClassVar[str]
    """``module:function`` that returns the reward, from its name and these settings."""

    url: Annotated[str, AfterValidator(_as_address), NO_EFFECT]
    """Address of the server, such as `http://127.0.0.1:8077`. It may change when a run is resumed."""
    key_env: Annotated[str | None, NO_EFFECT] = Field(None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Name of the environment variable that holds the server's token or key, sent as `Authorization: Bearer`. The key
    itself is written nowhere. None: nothing is sent."""
    concurrency: Annotated[int, NO_EFFECT] = Field(4, ge=1, le=256)
    """Requests that are under way at once, at most."""
    timeout: Annotated[float, NO_EFFECT] = Field(120.0, gt=0.0, le=86400.0)
    """Seconds in which a request must be answered whole."""
    retries: Annotated[int, NO_EFFECT] = Field(5, ge=0, le=100)
    """How often a request is repeated that did not arrive, or that the server could not answer at the time (429, 5xx).
    The waits begin at half a second and double, up to a minute."""
    cache: Annotated[str | None, Place(output=True), NO_EFFECT] = None
    """SQLite file that keeps all scores, by image, prompt and the reward's version, for this run and others. None:
    nothing is kept."""


class HttpSettings(Remote):
    """A reward that a server of `seedpo reward serve` computes, or another that speaks its protocol."""

    target = "seedpo.rewards.remote.http_reward:http_reward"

    reward: str = Field(min_length=1)
    """The name under which the server offers it."""
    batch_size: int = Field(16, ge=1, le=4096)
    """Images of a request, at most, which the server scores together."""


class RewardDefinition(Section):
    """A reward under a name of your own: one of these keys says what it is.

    A weighted sum of others is sum_i weight_i r_i, or weight_i (r_i - mean_i) / std_i where these are given.
    """

    terms: Annotated[dict[str, RewardTerm], Place(names="rewards")] = Field(default_factory=dict)
    """Of a weighted sum: terms by the names of their rewards, each a weight or `weight`, `mean` and `std`."""
    http: HttpSettings | None = None
    """Of a reward that a server computes: where, and how it is asked."""

    @property
    def remote(self) -> Remote | None:
        """How a server is asked; `None` of a weighted sum."""
        return self.http

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> Self:
        given = [
            key for key in type(self).model_fields if key in self.model_fields_set and getattr(self, key) is not None
        ]
        if len(given) != 1:
            kinds = "terms (a weighted sum) or http (a server computes it)"
            raise ValueError(f"give one of {kinds}, not {' and '.join(given) or 'nothing'}")
        return self

    @model_validator(mode="after")
    def _sum_has_terms(self) -> Self:
        if self.remote is not None:
            return self
        if not self.terms:
            raise ValueError("a weighted sum needs at least one term, for example terms: {pickscore: 1.0}")
        if not any(term.weight for term in self.terms.values()):
            raise ValueError("every weight is 0, so that the sum judges nothing; give a term another weight")
        return self

    @model_serializer(mode="wrap")
    def _what_is_given(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in serialise(self).items() if value}


Definitions = TypeVar("Definitions", bound=Mapping[str, RewardDefinition])


def refuse_cycles(definitions: Definitions) -> Definitions:
    """The definitions, checked: no sum contains itself.

    Raises:
        ValueError: naming the way around.
    """

    def follow(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            raise ValueError(
                f"{' -> '.join((*path[path.index(name) :], name))} is a circle: a sum cannot be made of itself; remove "
                "one of these terms"
            )
        for term in definitions[name].terms if name in definitions else ():
            follow(term, (*path, name))

    for name in definitions:
        follow(name, ())
    return definitions


class RewardDefinitions(Section):
    """The key that defines rewards, wherever it stands: in a recipe, in a run or in a file of its own."""

    rewards: Annotated[dict[str, RewardDefinition], AfterValidator(refuse_cycles)] = Field(default_factory=dict)
    """Weighted sums of rewards, and rewards on servers, by names of your own, to be used wherever a reward is named."""
