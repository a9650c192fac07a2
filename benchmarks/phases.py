"""Prompts, latents and seeds on which studies in the embedded world choose settings, and others to compare them on."""

from __future__ import annotations

from dataclasses import dataclass

from seedpo.scenes.prompts import EVALUATION_PROMPTS


@dataclass(frozen=True, kw_only=True)
class Phase:
    """How the runs of a phase are evaluated: choices are made on other prompts, latents and seeds than comparisons.

    Attributes:
        first, last: of the 64 held-out prompts, those from ``first`` on, before ``last``.
        images: per prompt.
        seed: of the initial latents.
        first_seed: of the runs.
    """

    first: int
    last: int
    images: int
    seed: int
    first_seed: int

    @property
    def prompts(self) -> list[str]:
        """What is drawn."""
        return list(EVALUATION_PROMPTS[self.first : self.last])


CHOICE = Phase(first=0, last=24, images=2, seed=1234, first_seed=100)
"""Where settings are chosen."""

COMPARISON = Phase(first=32, last=56, images=3, seed=4321, first_seed=0)
"""Where the chosen ones are compared."""
