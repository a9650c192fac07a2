"""When the reference of a run moves: the one rule for `reference.kind`, which the trainer calls around its updates.

The reference itself belongs to the policy (:class:`seedpo.protocols.MovableReference`). A rule decides from figures and
steps that all processes share, so that their references stay the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from seedpo.errors import ConfigError
from seedpo.methods.presets import METHODS
from seedpo.methods.settings import ReferenceConfig
from seedpo.processes import gather_all, shared
from seedpo.protocols import MovableReference, RollsOut, State
from seedpo.training.settings import RunConfig

DISTANCE = "distance"
"""Name of the figure that `reference.distance` reads."""


def has_weights(config: RunConfig) -> bool:
    """Whether the reference of a run has weights of its own beside those of the loaded model.

    Pairs of steps carry the log-probabilities of the policy that drew them, which is their reference of each roll-out;
    only an anchor asks that policy again.
    """
    kind = config.reference.kind
    carried = METHODS[config.method].source.gives == "steps" and not config.anchor.asks_reference
    return kind in ("ema", "reset") or (kind == "rollout" and not carried)


def decay_at(step: int, config: ReferenceConfig) -> float:
    """Decay of the average after update ``step``, from 1: min(decay, decay_rise step)."""
    assert config.decay is not None
    return config.decay if config.decay_rise is None else min(config.decay, config.decay_rise * step)


class ReferenceRule:
    """Moves the reference of a policy.

    Args:
        policy: the model that is trained.
        config: how its reference moves; not `frozen`.
        source: the pairs of this process; `rollout` needs one that rolls out.
        batches: micro-batches of an update, in one process.
    """

    def __init__(self, policy: MovableReference, config: ReferenceConfig, source: object, *, batches: int) -> None:
        self.policy = policy
        self.config = config
        self._source = source
        self._batches = batches
        self._moved_at = 0
        """Updates before the reference last became the policy."""

    def start(self) -> None:
        """The reference begins as the model before training."""
        self.policy.move_reference()

    def before_update(self) -> None:
        """With `rollout` the reference becomes the policy if some process rolls out; all must call this together.

        Pairs that are left of the roll-out before are compared with the new one, too.
        """
        if self.config.kind != "rollout":
            return
        if not isinstance(self._source, RollsOut):
            raise TypeError("reference.kind = rollout needs a source that says when it rolls out")
        if any(gather_all(self._source.rolls_out_within(self._batches))):
            self.policy.move_reference()

    def after_update(self, step: int, figures: Mapping[str, float]) -> dict[str, float]:
        """Moves the reference if it is time.

        Args:
            step: updates so far.
            figures: of the update, over all processes.

        Returns:
            More figures to log: with `reset` ``reference/age``, the updates since the reference last was the policy.

        Raises:
            ConfigError: if `distance` is set and the objective measures none.
        """
        config = self.config
        if config.kind == "ema":
            self.policy.average_reference(decay_at(step, config))
        if config.kind != "reset":
            return {}
        age = step - self._moved_at
        if self._is_far(figures) or (config.every is not None and age >= config.every):
            self.policy.move_reference()
            self._moved_at = step
        return {"reference/age": float(age)}

    def _is_far(self, figures: Mapping[str, float]) -> bool:
        limit = self.config.distance
        if limit is None:
            return False
        if DISTANCE not in figures:
            raise shared(
                ConfigError(
                    f"reference.distance = {limit}: this objective does not measure how far the policy is from its "
                    "reference; leave it out and set reference.every"
                )
            )
        return figures[DISTANCE] > limit

    def save(self, folder: Path) -> None:
        """Writes the weights of the reference into an empty folder, in the format of the policy's."""
        with self.policy.reference():
            self.policy.save(folder)

    def load(self, folder: Path) -> None:
        """Takes back what :meth:`save` wrote. The policy holds it afterwards, too: load its weights next."""
        self.policy.load(folder)
        self.policy.move_reference()

    def state(self) -> State:
        """All but the weights."""
        return {"moved_at": self._moved_at}

    def restore(self, state: State) -> None:
        """Takes back what :meth:`state` gave."""
        self._moved_at = int(state["moved_at"])
