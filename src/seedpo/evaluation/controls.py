"""What can be done to a trained model at sampling, without training: the free baselines of every objective.

Strength takes its weights nearer to the base model, or beyond what was trained. Mixing (AIG, arXiv 2409.06493) leaves
early steps to the base model. Best of n keeps, of n images, the one with the highest reward.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from seedpo.errors import ConfigError

MOST_CANDIDATES = 1000
"""Images of a prompt that have latents of their own."""


@dataclass(frozen=True, kw_only=True)
class SamplingControl:
    """How images are drawn from a trained model; the defaults draw from it as it is.

    Attributes:
        strength: of the trained weights: 0 is the model before training, 1 the trained one; values outside extrapolate.
        mixing: power p above 0 of :func:`seedpo.core.mixing.tuned_share`; ``None`` mixes nothing in.
        best_of: images drawn for each that is kept, at least 1; a reward picks it.

    Raises:
        ConfigError: if a value is outside its range, or strength 0 leaves nothing to mix.
    """

    strength: float = 1.0
    mixing: float | None = None
    best_of: int = 1

    def __post_init__(self) -> None:
        """Refuses what no image can be drawn with."""
        if not math.isfinite(self.strength):
            raise ConfigError(f"strength {self.strength} is not a number; 0 is the base model, 1 the trained one")
        if self.mixing is not None and not 0 < self.mixing < math.inf:
            raise ConfigError(
                f"mixing = {self.mixing:g} must be above 0: the power p of the trained model's share (1 - t/T)^p; "
                "1 to 4 are usual, and none mixes nothing in"
            )
        if not 1 <= self.best_of <= MOST_CANDIDATES:
            raise ConfigError(f"best_of = {self.best_of} must be from 1 to {MOST_CANDIDATES} images; 1 picks nothing")
        if self.strength == 0 and self.mixing is not None:
            raise ConfigError(
                "strength 0 is the base model itself, so that mixing has nothing to mix; leave one of both out"
            )

    @property
    def needs_training(self) -> bool:
        """Whether it means anything for trained models alone."""
        return self.strength != 1 or self.mixing is not None

    @property
    def name(self) -> str:
        """For folders and labels: ``strength-0.5``, ``mixing-2-best-of-4``; empty if nothing is changed."""
        return "-".join(f"{key.replace('_', '-')}-{value:g}" for key, value in self.changes().items())

    def changes(self) -> dict[str, Any]:
        """What differs from a model as it is, by the names of the attributes."""
        values = {"strength": self.strength, "mixing": self.mixing, "best_of": self.best_of}
        return {key: value for key, value in values.items() if value != getattr(PLAIN, key)}


PLAIN = SamplingControl()
"""A model as it is."""


def one_at_a_time(
    *, strengths: Sequence[float] = (), mixings: Sequence[float] = (), best_of: Sequence[int] = ()
) -> list[SamplingControl]:
    """A control for each value, which changes nothing else.

    Raises:
        ConfigError: as :class:`SamplingControl`.
    """
    controls = [
        *(SamplingControl(strength=strength) for strength in strengths),
        *(SamplingControl(mixing=power) for power in mixings),
        *(SamplingControl(best_of=count) for count in best_of),
    ]
    return list(dict.fromkeys(controls))
