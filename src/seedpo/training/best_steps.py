"""Which evaluation of a run is the best, and when a run has stopped improving: pure functions of lines of metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from seedpo.errors import ConfigError
from seedpo.evaluation.settings import ACCURACY, LOSS, MARGIN
from seedpo.metrics.catalogue import find_metric
from seedpo.training.settings import RunConfig

Record = Mapping[str, Any]

VALIDATION = (ACCURACY, LOSS, MARGIN)


def figure_key(name: str, key: str, config: RunConfig) -> str:
    """The name in lines of metrics of a figure that evaluations measure.

    Args:
        name: as the user writes it: a reward, a metric, or a figure of validation pairs.
        key: setting that names it, for messages.
        config: of the run.

    Raises:
        ConfigError: if the run does not measure it, or neither high nor low values of it are better.
    """
    evaluation = config.evaluation
    if name in evaluation.rewards:
        return f"reward/{name}"
    if name in VALIDATION and config.pairs.validation is not None:
        return name
    if name in evaluation.metrics:
        metric = find_metric(name)
        if metric is not None and metric.direction not in ("higher", "lower"):
            raise ConfigError(f"{key} = {name}: neither high nor low values of it are better; name another figure")
        return name
    if name in VALIDATION:
        raise ConfigError(f"{key} = {name} needs validation pairs; set pairs.validation, for example to 0.1")
    measured = [*evaluation.rewards, *evaluation.metrics, *(VALIDATION if config.pairs.validation is not None else ())]
    raise ConfigError(
        f"{key} = {name} is not measured at evaluations; name one of {', '.join(measured) or 'none'}, or add it to "
        "evaluation.rewards or evaluation.metrics"
    )


def check_best_steps(config: RunConfig) -> None:
    """Checks what `keep_best` and `early_stopping` name.

    Raises:
        ConfigError: if a figure is not measured, or a run that may stop early is not evaluated on its way.
    """
    if config.keep_best is not None:
        figure_key(config.keep_best, "keep_best", config)
    if config.early_stopping.patience is None:
        return
    figure_key(config.early_stopping.metric, "early_stopping.metric", config)
    if config.evaluate_every == 0:
        raise ConfigError(
            f"early_stopping.patience = {config.early_stopping.patience} counts evaluations, and evaluate_every = 0 "
            "makes none on the way; set evaluate_every"
        )


def best_line(lines: Sequence[Record], key: str) -> Record | None:
    """The evaluation with the best value of a figure, the earliest of equal ones; ``None`` if none has a value."""
    known = [line for line in lines if line["kind"] == "evaluation" and line.get(key) is not None]
    return max(known, key=lambda line: _goodness(line, key), default=None)


def has_stopped_improving(lines: Sequence[Record], config: RunConfig) -> bool:
    """Whether the last ``early_stopping.patience`` evaluations did not improve on the best one before them.

    An improvement is larger than ``early_stopping.min_change``. An evaluation without a value is none.
    """
    settings = config.early_stopping
    if settings.patience is None:
        return False
    key = figure_key(settings.metric, "early_stopping.metric", config)
    best, waited = None, 0
    for line in lines:
        if line["kind"] != "evaluation":
            continue
        value = None if line.get(key) is None else _goodness(line, key)
        if value is not None and (best is None or value > best + settings.min_change):
            best, waited = value, 0
        else:
            waited += 1
    return waited >= settings.patience


def _goodness(line: Record, key: str) -> float:
    """The value of a figure, turned round where less is better."""
    metric = find_metric(key)
    is_cost = key == LOSS or (metric is not None and metric.direction == "lower")
    return -float(line[key]) if is_cost else float(line[key])
