"""What metrics measure, and what measures it: built from a row of the catalogue and the function behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import Tensor

from seedpo.metrics.catalogue import MetricEntry

Derived = TypeVar("Derived")


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Images of several prompts, several of each.

    Attributes:
        images: (P, K, 3, H, W) in [0, 1].
        prompts: P prompts.
    """

    images: Tensor
    prompts: Sequence[str]
    _derived: dict[Callable[[Samples], Any], Any] = field(default_factory=dict, repr=False)

    def derive(self, function: Callable[[Samples], Derived]) -> Derived:
        """The value of a function of these samples, computed once for all the metrics that use it."""
        if function not in self._derived:
            self._derived[function] = function(self)
        value: Derived = self._derived[function]
        return value

    def flat(self) -> tuple[Tensor, list[str]]:
        """Images (P K, 3, H, W), each with its prompt."""
        count = self.images.shape[1]
        return self.images.flatten(0, 1), [prompt for prompt in self.prompts for _ in range(count)]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One thing that is measured on the images of each prompt.

    Attributes:
        facts: its row.
        per_prompt: one value for each prompt, (P,); NaN where there is none.
        of_features: the same values (P,) from given features (P, K, D); `None` for metrics of the images themselves.
    """

    facts: MetricEntry
    per_prompt: Callable[[Samples], Tensor]
    of_features: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True, kw_only=True)
class SetMetric:
    """One thing that is measured on all images together, by their features, against those of a reference set.

    Attributes:
        facts: its row.
        of_features: the value () from features (N, D) of the images and (M, D) of the reference set; NaN where there
            are too few.
        per_image: for values that are means over the images: the share of each of them, (N,), so that resampling
            prompts gives an interval while the reference set stays; `None` if the value is not such a mean.
    """

    facts: MetricEntry
    of_features: Callable[[Tensor, Tensor], Tensor]
    per_image: Callable[[Tensor, Tensor], Tensor] | None = None
