"""What a plan knows of the labelled pairs of a run: how many are trained on and held out, and in which shapes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from seedpo.data.images.buckets import Size
from seedpo.methods.presets import METHODS
from seedpo.settings import HUB
from seedpo.training.checks import absent_data
from seedpo.training.settings import RunConfig
from seedpo.training.validation import build_divided_pairs


@dataclass(frozen=True, kw_only=True)
class PairSets:
    """The pairs of a run.

    Attributes:
        training: pairs that are trained on; ``None``: not known.
        validation: pairs that every evaluation measures; ``None``: not known, and not counted.
        shapes: pairs by the height and width of their bucket; empty: all have the model's size.
    """

    training: int | None = None
    validation: int | None = 0
    shapes: Mapping[Size, int] = field(default_factory=dict)


def _unscored(config: RunConfig) -> RunConfig:
    return config.model_copy(update={"pairs": config.pairs.model_copy(update={"gap_reward": None})})


def pair_sets(config: RunConfig, pairs: int | None) -> PairSets:
    """The pairs of a run: of a set in buckets that lies here the images' heads are read, else nothing is.

    Args:
        config: the run's settings.
        pairs: in the set, as the user says; ``None``: not known.

    Raises:
        DataError: if the set cannot be read.
    """
    if not METHODS[config.method].source.fixed_pairs:
        return PairSets()
    name, limit = config.pairs.validation, config.pairs.validation_limit
    kept_out = round(name * pairs) if isinstance(name, float) and pairs is not None else None
    shapes: Counter[Size] = Counter()
    if config.pairs.buckets and not absent_data(config) and not str(config.data).startswith(HUB):
        divided = build_divided_pairs(_unscored(config))
        shapes.update(divided.training.buckets() or ())
        if divided.validation is not None:
            kept_out = len(divided.validation)
            shapes.update((divided.validation.buckets() or ())[:limit])
    measured = [count for count in (kept_out, limit) if count is not None]
    return PairSets(
        training=pairs if pairs is None or not isinstance(name, float) else pairs - (kept_out or 0),
        validation=0 if name is None else min(measured, default=None),
        shapes=shapes,
    )
