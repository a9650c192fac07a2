"""Alarms: what the metrics of a run say is going wrong, what it means and what to do.

Every alarm is a pure function of the lines of ``metrics.jsonl`` and of the values by prompt stored beside the images,
so that a run that was killed and resumed raises the alarms of one that never stopped. An alarm is raised at the first
line with its sign, and again only after the sign was gone for a while: once per episode. Thresholds and actions are the
keys of :class:`seedpo.training.alarm_settings.AlarmsConfig`; docs/watching.md explains each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from seedpo.core.verdicts import Outcome
from seedpo.errors import ConfigError
from seedpo.methods.presets import METHODS
from seedpo.training import signs
from seedpo.training.best_steps import best_line, figure_key
from seedpo.training.settings import RunConfig
from seedpo.training.signs import Sign

Record = Mapping[str, Any]
"""One line of metrics: ``step``, ``kind`` and figures, of which those that were not finite are ``None``."""


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """One alarm that was raised.

    Attributes:
        step: step of the line that raised it.
        name: the alarm's name.
        key: configuration key of its threshold.
        action: ``warn``, ``stop`` or ``keep_best``.
        value: what was read.
        threshold: what it was compared with.
        reads: the figures that it reads.
        message: what was seen, what that means and what to do.
    """

    step: int
    name: str
    key: str
    action: Literal["warn", "stop", "keep_best"]
    value: float
    threshold: float
    reads: tuple[str, ...]
    message: str


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One alarm that may be raised.

    Attributes:
        name: its section in ``alarms``.
        kind: kind of the lines that it reads, ``train`` or ``evaluation``.
        reads: figures that it reads, in words where they depend on the run.
        meaning: what the sign means and what to do about it; the message starts with what was seen.
        sign: the sign at the last of some lines, if there is one; it looks back over the window or the patience, and
            over all evaluations.
        objectives: of which the meaning is true; ``None``: of all.
    """

    name: str
    kind: Literal["train", "evaluation"]
    reads: tuple[str, ...]
    meaning: str
    sign: Callable[[Sequence[Record], RunConfig, float], Sign | None]
    objectives: tuple[str, ...] | None = None

    def threshold(self, config: RunConfig) -> float | None:
        """The threshold that is set; ``None`` if the alarm is switched off."""
        value: float | None = getattr(config.alarms, self.name).threshold
        return value

    def raised(self, lines: Sequence[Record], config: RunConfig) -> Alarm | None:
        """The alarm that the last of the lines raises, if any; the lines are those of the rule's kind, in order."""
        threshold = self.threshold(config)
        if threshold is None or not lines:
            return None
        if self.objectives is not None and METHODS[config.method].objective not in self.objectives:
            return None
        # With as many quiet lines between two episodes, a figure that wavers about its threshold raises one alarm.
        quiet = config.alarms.window if self.kind == "train" else 1
        sign = self.sign(lines, config, threshold)
        if sign is None or any(
            self.sign(lines[:-back], config, threshold) for back in range(1, min(quiet, len(lines) - 1) + 1)
        ):
            return None
        return Alarm(
            step=int(lines[-1]["step"]),
            name=self.name,
            key=f"alarms.{self.name}.threshold",
            action=getattr(config.alarms, self.name).action,
            value=sign.value,
            threshold=threshold,
            reads=self.reads,
            message=f"{sign.seen}: {self.meaning}",
        )


def _fell(lines: Sequence[Record], config: RunConfig, outcome: Outcome) -> Sign | None:
    alarms = config.alarms
    return signs.held_out_fell(
        lines,
        judges=held_out_figures(config),
        proxy=proxy_figure(config),
        rule=signs.verdict_rule({"hacking": alarms.hacking.threshold, "collapse": alarms.collapse.threshold}),
        outcome=outcome,
    )


OF_REWARD_MARGINS = ("dpo", "kto")
"""Objectives whose whole gradient goes through a sigmoid of beta times log-ratios; DSPO and MaPO also have an error."""

RULES: tuple[Rule, ...] = (
    Rule(
        name="hacking",
        kind="evaluation",
        reads=("reward/<first of evaluation.rewards>", "<alarms.held_out_rewards>"),
        meaning="the policy exploits errors of the trained reward. Use the weights of the peak (action: keep_best "
        "keeps them), stop here, or train again with a larger beta or a better reward",
        sign=lambda lines, config, threshold: _fell(lines, config, Outcome.HACKING),
    ),
    Rule(
        name="collapse",
        kind="evaluation",
        reads=("reward/<first of evaluation.rewards>", "<alarms.held_out_rewards>"),
        meaning="the images get worse by every measure: instability rather than reward hacking. Return to the peak's "
        "weights and lower learning_rate, or raise beta",
        sign=lambda lines, config, threshold: _fell(lines, config, Outcome.COLLAPSE),
    ),
    Rule(
        name="diversity",
        kind="evaluation",
        reads=("<alarms.diversity.figures>",),
        meaning="images of one prompt become similar. Use earlier weights, or train again with a larger beta or gamma",
        sign=lambda lines, config, threshold: signs.lost_share(
            lines, figures=config.alarms.diversity.figures, share=threshold
        ),
    ),
    Rule(
        name="saturation",
        kind="train",
        reads=("saturated",),
        meaning="correctly ranked pairs have no gradient left, and wrongly ranked ones pull with full weight. Lower "
        "beta; if `offset/std` is large, lower gamma",
        sign=lambda lines, config, threshold: signs.mean_above(
            lines, "saturated", threshold, window=config.alarms.window, seen="{value:.0%} of the pairs have |m| above 6"
        ),
        objectives=OF_REWARD_MARGINS,
    ),
    Rule(
        name="clipping",
        kind="train",
        reads=("clipped",),
        meaning="clipped ratios have no gradient, so little is learned. Raise clip_range, lower learning_rate, or stop",
        sign=lambda lines, config, threshold: signs.mean_above(
            lines, "clipped", threshold, window=config.alarms.window, seen="{value:.0%} of the log-ratios are clipped"
        ),
    ),
    Rule(
        name="inert",
        kind="train",
        reads=("margin_abs",),
        meaning="sigma(-m) is 1/2 for every pair, so beta, gamma and the reference only scale the gradient, and the "
        "optimiser removes that scale. Only the clip and the end of the run keep the policy near the reference. D3PO's "
        "published setting does this, with beta = 0.1 and log-probabilities averaged over the latent dimensions. For a "
        "reference that counts, raise beta until |m| comes near 1",
        sign=lambda lines, config, threshold: signs.inert(lines, config, threshold),
        objectives=OF_REWARD_MARGINS,
    ),
    Rule(
        name="displacement",
        kind="train",
        reads=("rewards/accuracies", "log_ratio/chosen"),
        meaning="the loss falls because rejected images become unlikely faster than preferred ones (likelihood "
        "displacement): images get worse although the accuracy is high. Use earlier weights, lower learning_rate, or "
        "raise beta",
        sign=lambda lines, config, threshold: signs.displaced(lines, threshold, window=config.alarms.window),
    ),
    Rule(
        name="winner_error",
        kind="train",
        reads=("error/policy_chosen", "error/reference_chosen"),
        meaning="the policy forgets how preferred images look while it moves away from rejected ones, and its images "
        "break down. Use earlier weights; scale the rejected side down (objective.loser_scale), hold the policy with "
        "anchor.kl or anchor.winner, lower learning_rate, or raise beta",
        sign=lambda lines, config, threshold: signs.winner_error_grew(
            lines, threshold, count=config.alarms.winner_error.patience
        ),
    ),
    Rule(
        name="spike",
        kind="train",
        reads=("loss",),
        meaning="a single spike passes. If spikes return, lower learning_rate or optimizer.max_grad_norm, or raise "
        "optimizer.warmup_steps",
        sign=lambda lines, config, threshold: signs.loss_spiked(lines, "loss", threshold, window=config.alarms.window),
    ),
)
"""Every alarm, in the order in which they are checked."""


def proxy_figure(config: RunConfig) -> str | None:
    """The figure that stands for the trained reward: the first reward of the evaluations."""
    rewards = config.evaluation.rewards
    return f"reward/{rewards[0]}" if rewards else None


def held_out_figures(config: RunConfig) -> tuple[str, ...]:
    """The figures that are not trained on, by their names in the lines of metrics.

    Raises:
        ConfigError: if one is not measured, or ``keep_best`` is asked for and there is none.
    """
    rewards, metrics = config.evaluation.rewards, config.evaluation.metrics
    figures = signs.held_out_keys(rewards, metrics, config.alarms.held_out_rewards)
    for name in config.alarms.held_out_rewards or ():
        if name not in rewards and name not in metrics:
            raise ConfigError(
                f"alarms.held_out_rewards names {name}, which no evaluation measures; add it to evaluation.rewards or "
                "evaluation.metrics"
            )
    keeping = [rule.name for rule in RULES if getattr(config.alarms, rule.name).action == "keep_best"]
    if keeping and not figures and config.keep_best is None:
        raise ConfigError(
            f"alarms.{keeping[0]}.action = keep_best needs a held-out figure to tell which weights are best; name a "
            "second reward in evaluation.rewards, or one of its metrics in alarms.held_out_rewards"
        )
    return figures


def keeps_best(config: RunConfig) -> bool:
    """Whether the run, or some alarm that is switched on, asks for the best weights."""
    return config.keep_best is not None or any(
        rule.threshold(config) is not None and getattr(config.alarms, rule.name).action == "keep_best" for rule in RULES
    )


def reach(config: RunConfig) -> int:
    """How many of the last lines of training metrics the rules look at."""
    alarms = config.alarms
    return max(alarms.window + 1, alarms.inert.patience, alarms.winner_error.patience) + alarms.window


def raised_by_last(lines: Sequence[Record], config: RunConfig) -> list[Alarm]:
    """The alarms that the last line raises; ``lines`` are those of its kind, of training at least the last `reach`."""
    kind = lines[-1]["kind"] if lines else None
    alarms = [rule.raised(lines, config) for rule in RULES if rule.kind == kind]
    return [alarm for alarm in alarms if alarm is not None]


def raised_by_all(lines: Sequence[Record], config: RunConfig) -> list[Alarm]:
    """All alarms of a run, in the order of its lines."""
    seen: dict[str, list[Record]] = {"train": [], "evaluation": []}
    alarms: list[Alarm] = []
    for line in lines:
        of_kind = seen[line["kind"]]
        of_kind.append(line)
        alarms += raised_by_last(of_kind[-reach(config) :] if line["kind"] == "train" else of_kind, config)
    return alarms


def best_figure(config: RunConfig) -> str | None:
    """The figure that tells which weights are best: that of `keep_best`, or the first held-out one."""
    if config.keep_best is not None:
        return figure_key(config.keep_best, "keep_best", config)
    return next(iter(held_out_figures(config)), None)


def best_evaluation(lines: Sequence[Record], config: RunConfig) -> Record | None:
    """The best evaluation by :func:`best_figure`; the earliest of equal ones."""
    figure = best_figure(config)
    return None if figure is None else best_line(lines, figure)
