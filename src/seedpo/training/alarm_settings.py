"""What is watched while a run trains; docs/watching.md explains each alarm."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from seedpo.settings import Place, Section


class AlarmConfig(Section):
    """What happens when an alarm is raised."""

    action: Literal["warn", "stop", "keep_best"] = "warn"
    """`warn`: it is logged. `stop`: the run ends too, with a checkpoint. `keep_best`: it is logged, and `best/` always
    holds the weights of the evaluation with the highest held-out figure."""


class HackingAlarm(AlarmConfig):
    """A held-out figure falls while the trained reward rises or holds its level."""

    threshold: float | None = Field(1.0, gt=0.0)
    """Fall from its peak, in half-widths of the fall's 95 % interval; none switches the alarm off."""


class CollapseAlarm(AlarmConfig):
    """A held-out figure falls, and the trained reward falls too."""

    threshold: float | None = Field(1.0, gt=0.0)
    """Fall from its peak, in half-widths of the fall's 95 % interval; none switches the alarm off."""


class DiversityAlarm(AlarmConfig):
    """Images of one prompt become similar."""

    threshold: float | None = Field(0.3, gt=0.0, lt=1.0)
    """Share of its first value that a diversity may lose; none switches the alarm off."""
    figures: Annotated[tuple[str, ...], Place(names="metrics")] = ("pairwise_diversity", "free_spread")
    """Metrics that are watched, where they are measured; more must be better."""


class SaturationAlarm(AlarmConfig):
    """Most pairs have margins so large, of either sign, that their gradient weight hardly changes."""

    threshold: float | None = Field(0.5, gt=0.0, lt=1.0)
    """Share of pairs with |margin| above 6, mean over the window; none switches the alarm off."""


class ClippingAlarm(AlarmConfig):
    """Most log-ratios are outside `clip_range`, where there is no gradient."""

    threshold: float | None = Field(0.9, gt=0.0, lt=1.0)
    """Share of clipped log-ratios, mean over the window; none switches the alarm off."""


class InertAlarm(AlarmConfig):
    """The margins are so small that beta, gamma and the reference have no influence."""

    threshold: float | None = Field(0.05, gt=0.0, lt=1.0)
    """Mean |margin| that no line exceeds; none switches the alarm off."""
    patience: int = Field(50, ge=1)
    """Lines of training metrics after the warm-up that must all be below the threshold."""


class DisplacementAlarm(AlarmConfig):
    """The pairs are ranked correctly while the preferred images become less likely too (likelihood displacement)."""

    threshold: float | None = Field(0.9, gt=0.5, le=1.0)
    """Accuracy on the training pairs, mean over the window; none switches the alarm off."""


class WinnerErrorAlarm(AlarmConfig):
    """The error on the preferred images grows beyond that of the reference."""

    threshold: float | None = Field(0.5, gt=0.0)
    """Growth as a share of the reference's error; none switches the alarm off."""
    patience: int = Field(5, ge=1)
    """Lines of training metrics over which both errors are averaged."""


class SpikeAlarm(AlarmConfig):
    """The loss spikes."""

    threshold: float | None = Field(10.0, gt=0.0)
    """Jump above the window's median, in robust standard deviations (1.4826 MAD + 0.05); none switches it off."""


class AlarmsConfig(Section):
    """What is watched while a run trains. Alarms follow from what a run measures and change no number."""

    held_out_rewards: Annotated[tuple[str, ...] | None, Place(names="rewards")] = None
    """Rewards and metrics of the evaluations that are not trained on; more must be better, and the first one decides
    which weights are best. None: all `evaluation.rewards` but the first, and the metric `truth` if it is measured."""
    window: int = Field(20, ge=2)
    """Lines of training metrics over which shares, accuracies and the usual loss are taken."""
    hacking: HackingAlarm = HackingAlarm()
    collapse: CollapseAlarm = CollapseAlarm()
    diversity: DiversityAlarm = DiversityAlarm()
    saturation: SaturationAlarm = SaturationAlarm()
    clipping: ClippingAlarm = ClippingAlarm()
    inert: InertAlarm = InertAlarm()
    displacement: DisplacementAlarm = DisplacementAlarm()
    winner_error: WinnerErrorAlarm = WinnerErrorAlarm()
    spike: SpikeAlarm = SpikeAlarm()
