"""The pairs of an offline run: those that are trained on, and those that are kept out for validation."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass

import torch

from seedpo.core.draws import StratifiedDraws
from seedpo.data.files.splits import SplitWish
from seedpo.data.pairs.changes import SQUARE_TIME_IDS, TIES_AS_WINS, Change, ChangedPairs, with_gap
from seedpo.data.pairs.readers import pairs_ahead
from seedpo.data.pairs.selection import SkippingPairs, divided_by_prompt, shared_images
from seedpo.data.pairs.sets import one_kind_of_likes
from seedpo.data.pairs.streams import StreamedPairs
from seedpo.data.reading import load_data, opening_lines
from seedpo.data.settings import DataSet, PairsConfig, data_label
from seedpo.errors import ConfigError, DataError
from seedpo.evaluation.pair_validation import PairValidation
from seedpo.methods.presets import METHODS
from seedpo.protocols import PreferencePairs
from seedpo.rewards.named import build_reward
from seedpo.training.caches import Caches, reward_digests
from seedpo.training.combinations import check_validation
from seedpo.training.settings import RunConfig, data_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class DividedPairs:
    """The labelled pairs of a run; those that cannot be read are passed over, up to a limit.

    Attributes:
        training: what is trained on.
        validation: what is kept out; ``None`` if nothing is.
    """

    training: SkippingPairs
    validation: SkippingPairs | None


def build_divided_pairs(config: RunConfig, *, device: torch.device | str | None = None) -> DividedPairs:
    """The labelled pairs of an offline method.

    Args:
        config: of the run.
        device: where `pairs.gap_reward` computes, which scores the pairs that are trained on.

    Raises:
        ConfigError: if a name is neither registered nor looks like a path, or a stream is to be divided.
        DataError: if pairs cannot be read, or either side is empty.
    """
    check_validation(config)
    settings, name = config.pairs, config.pairs.validation
    training: PreferencePairs = _opened(config, data_of(config), settings)
    validation: PreferencePairs | None = None
    if isinstance(name, str):
        wish = SplitWish(name=settings.validation_split or settings.split, key="pairs.validation_split", held_out=True)
        validation = _opened(config, name, settings, wish)
        if validation.sequential:
            raise ConfigError(f"pairs.validation = {name} is a stream, which has no end; name files or a folder")
    elif name is not None:
        if training.sequential:
            raise ConfigError(
                f"pairs.validation = {name:g}: data = {data_label(data_of(config))} is a stream, of which no pairs can "
                "be kept out; name a set of pairs"
            )
        training, validation = divided_by_prompt(training, name, key="pairs.validation", other="pairs.validation")
        logger.info("pairs.validation = %g: %d pairs kept out, %d trained on", name, len(validation), len(training))
    return DividedPairs(
        training=_changed(config, training, gap=_gap(config, device)),
        validation=None if validation is None else _changed(config, validation),
    )


def build_anchor_pairs(config: RunConfig) -> SkippingPairs:
    """The labelled pairs whose preferred images are the data of the anchor `data`.

    Raises:
        ConfigError: if a name is neither registered nor looks like a path.
        DataError: if pairs cannot be read.
    """
    assert config.anchor.data_set is not None
    # Pairs also beside an objective on likes.
    changes = {"from_scores": "all"} if config.pairs.reads_likes else {}
    return _changed(config, _opened(config, config.anchor.data_set, config.pairs.model_copy(update=changes)))


def _opened(
    config: RunConfig, name: str | tuple[DataSet, ...], settings: PairsConfig, wish: SplitWish | None = None
) -> PreferencePairs:
    if config.fidelity.ties_as_wins:
        settings = settings.model_copy(update={"ties": "half"})
    pairs = load_data(name, settings, seed=config.seed, wish=wish)
    for line in opening_lines(pairs):
        logger.info("%s", line)
    if settings.reads_likes and not isinstance(pairs, StreamedPairs) and not all(liked := pairs.liked()):
        raise DataError(one_kind_of_likes(f"data = {data_label(name)}", *liked))
    return pairs_ahead(pairs, readers=settings.readers)


def _gap(config: RunConfig, device: torch.device | str | None) -> Change | None:
    """What scores pairs; with a cache, which may be that of another run, it says what its scores depend on."""
    if (name := config.pairs.gap_reward) is None:
        return None
    reward = build_reward(name, definitions=config.rewards, precision=config.reward_precision, device=device)
    defined = {key: value.model_dump(mode="json") for key, value in sorted(config.rewards.items())}
    digests = [] if config.cache.folder is None else reward_digests(reward)
    definition = json.dumps([config.reward_precision, defined if name in config.rewards else {}, digests])
    return with_gap(reward, name=name, definition=definition)


def _changed(config: RunConfig, pairs: PreferencePairs, *, gap: Change | None = None) -> SkippingPairs:
    possible = (
        (config.fidelity.ties_as_wins, TIES_AS_WINS),
        (config.fidelity.square_time_ids, SQUARE_TIME_IDS),
    )
    changes = [change for wanted, change in possible if wanted] + ([] if gap is None else [gap])
    return SkippingPairs(ChangedPairs(pairs, changes) if changes else pairs, limit=config.pairs.bad_rows_limit)


def warn_of_shared_images(pairs: DividedPairs) -> None:
    """Names images that are in training and validation pairs: the figures are too good by them."""
    if pairs.validation is None:
        return
    shared = shared_images(pairs.training, pairs.validation)
    if shared:
        logger.warning(
            "pairs.validation: %d images of validation pairs are in training pairs too, so the figures are too good; "
            "the first is %s, which is also %s",
            len(shared),
            shared[0][1],
            shared[0][0],
        )


def _unscaled(config: RunConfig) -> RunConfig:
    """The same run without the factors of single pairs: what is kept out is measured by its labels alone."""
    objective = config.objective.model_copy(update={"gap_scale": None, "gap_temperature": None})
    return config.model_copy(update={"objective": objective})


def build_validation(config: RunConfig, pairs: SkippingPairs, caches: Caches) -> PairValidation:
    """What is measured on validation pairs, with draws that are the same in every run."""
    settings = config.pairs
    limit = settings.validation_limit
    draws = StratifiedDraws(seed=config.evaluation.seed, strata=settings.validation_draws)
    return PairValidation(
        caches.encoder(pairs),
        lambda rows: [pairs.prompt(row) for row in rows],
        METHODS[config.method].build_objective(_unscaled(config), draws=draws),
        rows=range(len(pairs) if limit is None else min(len(pairs), limit)),
        draws=settings.validation_draws,
        batch_size=config.batch_size,
        buckets=pairs.buckets(),
        seed=config.evaluation.seed,
        reader=pairs,
    )
