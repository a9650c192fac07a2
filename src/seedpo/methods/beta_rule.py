"""How beta changes in the course of a run: a factor in (0, 1] of the margins, which follows from the updates so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from seedpo.core.margin_scale import beta_of_factor, decayed_beta
from seedpo.methods.settings import ObjectiveConfig
from seedpo.protocols import State

MARGIN = "margin_abs"
"""Name of the figure that the automatic beta reads."""


@dataclass(kw_only=True)
class BetaRule:
    """The factor of beta after each update, the same on all processes.

    Attributes:
        decay: updates before beta starts to fall and after which it is halved; ``None``: it does not fall.
        gradient_factor: what the mean pair's weight in the gradient is held at; ``None``: nothing is held.
        memory: decay of the moving average of |m|, in [0, 1).
        least: least factor that holds it.
        updates: so far.
        mean_margin: moving average of |m| at a factor of 1; ``None`` before the first update.
    """

    decay: tuple[int, int] | None = None
    gradient_factor: float | None = None
    memory: float = 0.99
    least: float = 1e-3
    updates: int = 0
    mean_margin: float | None = field(default=None)

    @property
    def factor(self) -> float:
        """Of beta in the next update."""
        decayed = 1.0 if self.decay is None else decayed_beta(self.updates, first=self.decay[0], last=self.decay[1])
        if self.gradient_factor is None or self.mean_margin is None:
            return decayed
        held = beta_of_factor(decayed * self.mean_margin, gradient_factor=self.gradient_factor, least=self.least)
        return decayed * held

    def after_update(self, figures: Mapping[str, float]) -> None:
        """Counts an update and takes in its mean |m|.

        Args:
            figures: of the update, over all processes.
        """
        margin = figures[MARGIN] / self.factor
        last = margin if self.mean_margin is None else self.mean_margin
        self.mean_margin = self.memory * last + (1 - self.memory) * margin
        self.updates += 1

    def state(self) -> State:
        """Updates and average."""
        return {"updates": self.updates, "mean_margin": self.mean_margin}

    def restore(self, state: State) -> None:
        """Takes back what :meth:`state` gave."""
        self.updates, self.mean_margin = state["updates"], state["mean_margin"]


def beta_rule(objective: ObjectiveConfig) -> BetaRule | None:
    """The rule of a run; ``None`` if its beta stays."""
    if objective.beta_decay is None and objective.gradient_factor is None:
        return None
    return BetaRule(
        decay=objective.beta_decay,
        gradient_factor=objective.gradient_factor,
        memory=objective.gradient_factor_memory,
        least=objective.least_beta,
    )
