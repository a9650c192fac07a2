"""Whether a run is better than the model it began with: its last evaluation against step 0, in one sentence."""

from __future__ import annotations

from dataclasses import dataclass

from seedpo.core.verdicts import Difference, Gain
from seedpo.errors import SeedpoError
from seedpo.evaluation.gains import compare_with_base
from seedpo.pages.wording import interval, number, signed
from seedpo.reports.contrasts import Contrast, compare
from seedpo.reports.families import Family, Setting, held_out
from seedpo.reports.names import figure_name
from seedpo.run_folders import RunFolder

WORDS = {
    Difference.HIGHER: "Better than the model it began with",
    Difference.LOWER: "Worse than the model it began with",
    Difference.NOT_SHOWN: "No difference from the model it began with is shown",
}


@dataclass(frozen=True, kw_only=True)
class Change:
    """What became of one figure.

    Attributes:
        key: the figure.
        trained: whether the run was trained on it, so that a rise is no evidence of better images.
        step: the last evaluation.
        contrast: the last evaluation against step 0.
    """

    key: str
    trained: bool
    step: int
    contrast: Contrast

    @property
    def sentence(self) -> str:
        """The verdict with its numbers."""
        first, last = self.contrast.right, self.contrast.left
        paired = self.contrast.paired
        ends = f" {interval(paired.low, paired.high)}" if paired else ""
        numbers = (
            f"{figure_name(self.key)} {number(first.value)} before training, {number(last.value)} at step {self.step} "
            f"({signed(self.contrast.difference)}{ends})."
        )
        if self.trained:
            return f"Not compared with the model it began with by any held-out figure; trained {numbers}"
        return f"{WORDS[self.contrast.verdict]}: {numbers}"


def change(family: Family, setting: Setting) -> Change | None:
    """The change of the first held-out figure that was measured at both ends, or else of the proxy.

    Returns:
        ``None`` if no figure was measured at step 0 and later.
    """
    judges = held_out(setting.runs[0]) if setting.runs else (family.judge,)
    for key in (*judges, family.proxy):
        curve = setting.curves.get(key)
        if curve is None or len(curve.steps) < 2 or curve.steps[0] != 0:
            continue
        scale = max(curve.values) - min(curve.values)
        contrast = compare(curve.points[-1], curve.points[0], scale=scale)
        return Change(key=key, trained=key == family.proxy, step=curve.steps[-1], contrast=contrast)
    return None


def _win_sentence(setting: Setting) -> str | None:
    """Win rate against step 0; ``None`` of several seeds, or where the run folder does not hold what it needs."""
    if len(setting.runs) != 1:
        return None
    try:
        comparison = compare_with_base(RunFolder.open(setting.runs[0].folder))
    except SeedpoError:
        return None  # a report shows what can be read; the notes name what is damaged
    if comparison is None:
        return None
    usable = comparison.gain is not Gain.TOO_LITTLE if comparison.rewards else comparison.accuracy is not None
    return comparison.sentence if usable else None


def change_sentence(family: Family, setting: Setting) -> str:
    """The change in one sentence, or what to measure.

    The truth decides where it is known; else the win rate by the measured rewards, as at the end of `seedpo train`.
    """
    known = change(family, setting)
    wins = None if known is not None and known.key == "truth" else _win_sentence(setting)
    if wins is not None:
        return wins
    if known is not None:
        return known.sentence
    return (
        "Nothing was measured that says whether it is better than the model it began with; name rewards in "
        "evaluation.rewards."
    )
