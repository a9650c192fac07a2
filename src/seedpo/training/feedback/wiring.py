"""From a run's configuration to the people that it asks."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from seedpo.errors import ConfigError
from seedpo.methods.presets import METHODS
from seedpo.methods.sources.data_anchor import SourceWithData
from seedpo.methods.sources.rollouts import RolloutSource, rolled_out_next
from seedpo.protocols import EarlierProcesses, Source
from seedpo.study.folder import create_study
from seedpo.study.settings import NAME as SETTINGS
from seedpo.study.settings import TITLES, Question, StudySettings, read_settings
from seedpo.training.accelerator import EVALUATION_TIMEOUT
from seedpo.training.feedback.people import HumanFeedback, require_extra
from seedpo.training.settings import RunConfig

logger = logging.getLogger(__name__)

QUESTION = Question(key="preference", text="Which image do you prefer for this prompt?")
"""What a study that is made here asks, of pairs."""

BEST_WORST = Question(
    key="preference", text="Which image do you prefer most for this prompt, and which least?", form="best-worst"
)
"""What a study that is made here asks, of several images in one view."""

IN_ONE_VIEW = 6
"""Most images per prompt that a study that is made here shows in one view."""

FULL_UP_TO = 4
"""Most images per prompt of which a study that is made here shows every pair; with more, it holds a knockout."""

WAIT_FOR_OTHERS = timedelta(days=365)
"""How long the processes of a run wait for the one whose images are judged last."""


def human_feedback(config: RunConfig, *, progress: bool = True) -> HumanFeedback | None:
    """The people that a configuration asks, if it does; their study must be there, see :func:`ensure_study`."""
    if config.feedback.study is None:
        return None
    return HumanFeedback(
        Path(config.feedback.study),
        images_per_prompt=METHODS[config.method].source.settings(config).images_per_prompt,
        question=config.feedback.question,
        form=config.feedback.form,
        poll_seconds=config.feedback.poll_seconds,
        timeout_hours=config.feedback.timeout_hours,
        progress=progress,
    )


def ensure_study(config: RunConfig) -> None:
    """Makes the study that a configuration names, of kind *collect* and without groups yet, unless there is one.

    Raises:
        ConfigError: if the folder is there and holds no study, or packages are missing.
        DataError: if it cannot be written.
    """
    if config.feedback.study is None:
        return
    require_extra()
    folder = Path(config.feedback.study)
    if (folder / SETTINGS).is_file():
        return
    settings = _new_settings(config)
    folder.parent.mkdir(parents=True, exist_ok=True)
    create_study(folder, settings, [], {})
    logger.info(
        "made the study %s: %s says how many raters each pair gets, and what they read", folder, folder / SETTINGS
    )


def study_settings(config: RunConfig) -> StudySettings | None:
    """The settings of the study that a configuration names, or of the one it would make; ``None`` if it names none.

    Raises:
        ConfigError: if the study is there and its settings cannot be used.
    """
    if config.feedback.study is None:
        return None
    path = Path(config.feedback.study) / SETTINGS
    return read_settings(path) if path.is_file() else _new_settings(config)


def _new_settings(config: RunConfig) -> StudySettings:
    source = METHODS[config.method].source
    images = source.settings(config).images_per_prompt
    if config.feedback.form != "best-worst":
        tournament: Literal["full", "knockout"] = "full" if images <= FULL_UP_TO else "knockout"
        return StudySettings(id=uuid.uuid4().hex, questions=(QUESTION,), tournament=tournament, seed=config.seed)
    if images < 3:
        raise ConfigError(
            "feedback.form = best-worst chooses among at least three images, and "
            f"{source.section}.images_per_prompt is {images}; raise it, or leave the form out"
        )
    question = BEST_WORST.model_copy(update={"per_view": images}) if images <= IN_ONE_VIEW else BEST_WORST
    return StudySettings(id=uuid.uuid4().hex, questions=(question,), title=TITLES["best-worst"], seed=config.seed)


def asks_people(config: RunConfig, source: Source[Any]) -> Callable[[], bool] | None:
    """A function that says whether the next step needs votes on new images; ``None`` if no step ever does."""
    drawing = source.source if isinstance(source, SourceWithData) else source
    if config.feedback.study is None or not isinstance(drawing, RolloutSource):
        return None
    return lambda: drawing.rolls_out_within(config.gradient_accumulation_steps)


def round_open(config: RunConfig, source: Source[Any]) -> Callable[[EarlierProcesses], bool] | None:
    """A function that says whether the next step of the processes of a checkpoint needs votes on new images.

    ``None`` if no step ever does.
    """
    if asks_people(config, source) is None:
        return None
    if isinstance(source, SourceWithData):
        return lambda earlier: rolled_out_next(earlier.of("source"))
    return rolled_out_next


def patience(config: RunConfig) -> timedelta:
    """How long the processes of a run wait for each other."""
    return EVALUATION_TIMEOUT if config.feedback.study is None else WAIT_FOR_OTHERS
