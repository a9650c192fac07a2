"""When a run ends before its last step."""

from __future__ import annotations

from pydantic import Field

from seedpo.settings import Section


class EarlyStoppingConfig(Section):
    """Ends a run that has stopped improving; it counts as finished. Off by default."""

    metric: str = "validation/accuracy"
    """Figure that must improve: a reward or metric of the evaluations, or `validation/accuracy`, `validation/loss`,
    `validation/margin`. Of a loss less is better."""
    patience: int | None = Field(None, ge=1)
    """Evaluations in a row without an improvement, after which the run ends. None: it goes on to `max_steps`."""
    min_change: float = Field(0.0, ge=0.0)
    """An improvement is larger than this, in the figure's own unit."""
