"""Figures of the evaluations: what they are called, what they are about, and in which order they are shown.

All facts about metrics are read from their rows in :mod:`seedpo.metrics.catalogue`.
"""

from __future__ import annotations

from collections.abc import Collection

from seedpo.metrics.catalogue import find_metric

FAMILIES = ("truth", "diversity", "quality", "statistics", "")
"""Kinds of figures in the order in which they are shown; metrics that are not registered come last."""


def kind_of(key: str) -> str:
    """What a figure is about: ``reward``, the family of a metric, or empty if it is unknown."""
    row = find_metric(key)
    return "reward" if key.startswith("reward/") else row.family if row else ""


def of_kind(kind: str, keys: Collection[str]) -> list[str]:
    """The figures of one kind, by name."""
    return sorted(key for key in keys if kind_of(key) == kind)


def metrics_in_order(keys: Collection[str]) -> list[str]:
    """All figures that are not rewards, by kind and name."""
    return [key for kind in FAMILIES for key in of_kind(kind, keys)]


def less_is_better(key: str) -> bool:
    """Whether lower values of a figure are better."""
    row = find_metric(key)
    return row is not None and row.direction == "lower"


def unit_of(key: str) -> str:
    """The unit of a metric; empty for anything else."""
    row = find_metric(key)
    return row.unit if row else ""


def figure_name(key: str) -> str:
    """A figure in words."""
    reward = key.removeprefix("reward/")
    return key.replace("_", " ") if reward == key else f"reward {reward}"
