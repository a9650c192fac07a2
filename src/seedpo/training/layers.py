"""Which keys the rows of methods and models set: the layers between the general defaults and a recipe."""

from __future__ import annotations

from typing import Any

from seedpo.methods.presets import METHODS
from seedpo.settings import Section, dotted
from seedpo.training.settings import SCENES, RewardRunConfig


def rows(kind: type[Section]) -> dict[str, dict[str, Any]]:
    """What sets other values than the general defaults, by its name: dotted keys.

    Args:
        kind: the settings of a policy's run or of a preference model's.
    """
    if issubclass(kind, RewardRunConfig):
        return {"no data named": dotted(SCENES)}
    return {preset.name: dotted(preset.defaults) for preset in METHODS.entries}
