"""The options that say what is done to a trained model at sampling; commands share them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from seedpo.cli.shared import split_names
from seedpo.errors import ConfigError

if TYPE_CHECKING:
    from seedpo.evaluation.controls import SamplingControl

Number = TypeVar("Number", int, float)

Strength = Annotated[
    str | None,
    typer.Option(metavar="S[,S...]", help="Strength of the trained weights: 0 is the base model, 1 the trained."),
]

Mixing = Annotated[
    str | None,
    typer.Option(
        metavar="P[,P...]",
        help="Mix the base model in (AIG): the trained one's share of a prediction is (1 - t/T)^P, as 1,2,4.",
    ),
]

BestOf = Annotated[
    str | None, typer.Option(metavar="N[,N...]", help="Draw N images for each, and keep the one with the best reward.")
]


def read_controls(strength: str | None, mixing: str | None, best_of: str | None) -> list[SamplingControl]:
    """A control for each value of the three options.

    Raises:
        ConfigError: if one is not a number, or outside its range.
    """
    from seedpo.evaluation.controls import one_at_a_time

    return one_at_a_time(
        strengths=numbers("--strength", strength, float),
        mixings=numbers("--mixing", mixing, float),
        best_of=numbers("--best-of", best_of, int),
    )


def numbers(option: str, text: str | None, kind: Callable[[str], Number]) -> list[Number]:
    """The numbers of an option with commas between them, each once.

    Raises:
        ConfigError: if one is not a number of this kind.
    """
    names = split_names(text or "")
    try:
        return list(dict.fromkeys(kind(name) for name in names))
    except ValueError as error:
        raise ConfigError(f"{option} {text}: write numbers with commas between them, as 100,200") from error
