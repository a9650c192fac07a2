"""Rewards that are weighted sums of others, under names of the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self, TypeVar

from pydantic import AfterValidator, Field, model_validator

from seedpo.settings import Place, Section


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


class WeightedSum(Section):
    """A reward that is a weighted sum: sum_i weight_i r_i, or weight_i (r_i - mean_i) / std_i where these are given."""

    terms: Annotated[dict[str, RewardTerm], Place(names="rewards")]
    """Terms by the names of their rewards, each a weight or `weight`, `mean` and `std`."""

    @model_validator(mode="after")
    def _has_terms(self) -> Self:
        if not self.terms:
            raise ValueError("a weighted sum needs at least one term, for example terms: {pickscore: 1.0}")
        if not any(term.weight for term in self.terms.values()):
            raise ValueError("every weight is 0, so that the sum judges nothing; give a term another weight")
        return self


Definitions = TypeVar("Definitions", bound=Mapping[str, WeightedSum])


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

    rewards: Annotated[dict[str, WeightedSum], AfterValidator(refuse_cycles)] = Field(default_factory=dict)
    """Weighted sums of rewards, by names of your own, to be used wherever a reward is named."""
