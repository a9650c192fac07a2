"""Whether a run's images are better than those of the model it started from. Needs no torch: reports read it too.

The images of the last evaluation (of the best one, if the run kept that) are compared with those of step 0, prompt by
prompt and latent by latent, by every reward that was measured. :func:`seedpo.core.verdicts.judge_gain` is the rule.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seedpo.core.stats.bootstrap import Interval, WinRate, paired_difference, prompt_means, tie_width, win_rate
from seedpo.core.verdicts import LEAST_PROMPTS_OF_GAIN, Gain, judge_gain
from seedpo.documents import UNREADABLE, read_json
from seedpo.errors import RunFolderError
from seedpo.evaluation.settings import ACCURACY, EvaluationConfig
from seedpo.files import write_text
from seedpo.methods.presets import METHODS
from seedpo.recipes.reading import read_recipe
from seedpo.run_folders import RunFolder, read_metrics

CHANCE = 0.5
"""Accuracy of a coin on pairs."""

Scores = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class RewardGain:
    """The comparison by one reward.

    Attributes:
        reward: its name.
        trained_on: whether the run was trained on it, so that a gain is no evidence of better images.
        wins: how often the image after training scores higher; its interval is of 95 %.
        width: differences of at most this size are ties, see :func:`seedpo.core.stats.bootstrap.tie_width`.
        difference: of the mean scores, after training less before.
        gain: the verdict.
    """

    reward: str
    trained_on: bool
    wins: WinRate
    width: float
    difference: Interval
    gain: Gain


@dataclass(frozen=True, kw_only=True)
class BaseComparison:
    """A run against the model it started from.

    Attributes:
        step: the evaluation that is compared with step 0.
        is_best: whether it is the one whose weights the run kept as the best.
        rewards: the comparison by every reward, in the order in which they are measured.
        accuracy: accuracy on validation pairs at that step; ``None`` if none were kept out.
        gain: the verdict of the rewards that the run was not trained on; of the trained one if there is no other.
    """

    step: int
    is_best: bool
    rewards: tuple[RewardGain, ...]
    accuracy: Interval | None
    gain: Gain

    @property
    def decisive(self) -> tuple[RewardGain, ...]:
        """The comparisons by which the verdict is made."""
        return _decisive(self.rewards)

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        judges = self.decisive
        if self.step == 0:
            return "The result is the model it started from: no evaluation was better than step 0 (keep_best)."
        if not judges and self.accuracy is not None:
            learned = self.accuracy.low > CHANCE
            return (
                f"{'It learned the preferences' if learned else 'It is not shown that it learned the preferences'}: "
                f"{_ranked_right(self.accuracy)} No reward compared its images with those of its base; name one in "
                "evaluation.rewards."
            )
        if not judges:
            return "Not compared with its base: no reward was measured at both steps; name one in evaluation.rewards."
        if self.gain is Gain.TOO_LITTLE:
            return (
                f"Too little data to compare it with its base: {judges[0].wins.count} prompts, and at least "
                f"{LEAST_PROMPTS_OF_GAIN} are needed; raise evaluation.num_prompts."
            )
        if self.gain is Gain.NOT_SHOWN and {Gain.BETTER, Gain.WORSE} <= {judge.gain for judge in judges}:
            better, worse = (
                [judge.reward for judge in judges if judge.gain is gain] for gain in (Gain.BETTER, Gain.WORSE)
            )
            return f"The rewards disagree: better than its base by {', '.join(better)}, worse by {', '.join(worse)}."
        shown = next((judge for judge in judges if judge.gain is self.gain), judges[0])
        head = {
            Gain.BETTER: "Better than its base",
            Gain.WORSE: "Worse than its base",
            Gain.NOT_SHOWN: "No difference from its base is shown",
        }[self.gain]
        wins, trained = shown.wins, " (the reward it was trained on)" if shown.trained_on else ""
        return (
            f"{head}: by {shown.reward}{trained} the images of step {self.step} win {wins.rate:.0%} "
            f"[{wins.low:.0%}, {wins.high:.0%}] against those of step 0, over {wins.count} prompts."
        )

    @property
    def sentences(self) -> list[str]:
        """The verdict, and the accuracy on validation pairs if some were kept out."""
        if self.accuracy is None or not self.decisive:
            return [self.sentence]
        return [self.sentence, _ranked_right(self.accuracy)]


def _ranked_right(accuracy: Interval) -> str:
    ends = "" if math.isnan(accuracy.low) else f" [{accuracy.low:.0%}, {accuracy.high:.0%}]"
    return f"Validation pairs ranked right: {accuracy.mean:.0%}{ends}; chance is {CHANCE:.0%}."


def compare_with_base(folder: RunFolder) -> BaseComparison | None:
    """The last evaluation of a run, or the one whose weights it kept as the best, against step 0.

    Returns:
        ``None`` if there are no two evaluations.

    Raises:
        ConfigError: if the run's configuration cannot be read.
        RunFolderError: if the lines of metrics or the stored scores are damaged.
    """
    lines = {line["step"]: line for line in read_metrics(folder.metrics) if line["kind"] == "evaluation"}
    best = folder.best_of_finished()
    step = best.step if best is not None else max(lines, default=0)
    if step not in lines or 0 not in lines or len(lines) < 2:
        return None
    accuracy = _accuracy(lines[step])
    if step == 0:
        return BaseComparison(step=0, is_best=True, rewards=(), accuracy=accuracy, gain=Gain.NOT_SHOWN)
    config = read_recipe(folder.config_file)
    before, after = (read_scores(folder.samples, at) for at in (0, step))
    names = [name for name in after if name in before and before[name].shape == after[name].shape]
    trained = _trained_on(config, names)
    judges = [name for name in names if name not in trained] or names
    seed = int(config.get("evaluation", {}).get("seed", EvaluationConfig().seed))
    gains = tuple(
        _gain(
            name,
            before[name],
            after[name],
            trained_on=name in trained,
            # The best of several evaluations by this very reward looks good by chance as well (Bonferroni).
            tests=len(judges) * (len(lines) - 1 if best is not None and best.figure == f"reward/{name}" else 1),
            seed=seed,
        )
        for name in names
    )
    return BaseComparison(
        step=step,
        is_best=best is not None,
        rewards=gains,
        accuracy=accuracy,
        gain=_joint_gain([gain.gain for gain in _decisive(gains)]),
    )


def _trained_on(config: Mapping[str, Any], names: Sequence[str]) -> set[str]:
    """The rewards that the run was trained on, with the terms of a weighted sum."""
    method = str(config.get("method"))
    is_offline = method in METHODS and METHODS[method].source.fixed_pairs
    if is_offline or (config.get("feedback") or {}).get("study") is not None:
        return set()
    reward = config.get("reward") or next(iter(names), "")  # by default the first one is the trained one
    trained, definitions = {reward}, config.get("rewards") or {}
    for _ in definitions:  # sums of sums are no deeper than there are sums
        trained |= {term for name in trained & definitions.keys() for term in definitions[name].get("terms", {})}
    return trained


def _gain(name: str, before: Scores, after: Scores, *, trained_on: bool, tests: int, seed: int) -> RewardGain:
    width = tie_width(before)
    wins, judged = (
        win_rate(after, before, tie_width=width, seed=seed, level=level) for level in (0.95, 1 - 0.05 / tests)
    )
    difference = paired_difference(prompt_means(after), prompt_means(before), seed=seed)
    gain = judge_gain(prompts=wins.count, low=judged.low, high=judged.high, difference=difference.mean, least=width)
    return RewardGain(reward=name, trained_on=trained_on, wins=wins, width=width, difference=difference, gain=gain)


def _decisive(gains: Sequence[RewardGain]) -> tuple[RewardGain, ...]:
    return tuple(gain for gain in gains if not gain.trained_on) or tuple(gains)


def _joint_gain(gains: Sequence[Gain]) -> Gain:
    """Better (worse) if one says so and none says the contrary."""
    seen = set(gains)
    if not seen or seen == {Gain.TOO_LITTLE}:
        return Gain.TOO_LITTLE
    if Gain.BETTER in seen and Gain.WORSE not in seen:
        return Gain.BETTER
    return Gain.WORSE if Gain.WORSE in seen and Gain.BETTER not in seen else Gain.NOT_SHOWN


def _accuracy(line: Mapping[str, Any]) -> Interval | None:
    if line.get(ACCURACY) is None:
        return None
    low, high = (line.get(f"{ACCURACY}/{end}") for end in ("low", "high"))
    return Interval(
        mean=line[ACCURACY], low=math.nan if low is None else low, high=math.nan if high is None else high, count=0
    )


def scores_file(samples: Path, step: int) -> Path:
    """Where an evaluation stores the scores of its images."""
    return samples / f"scores-{step:06d}.json"


def save_scores(scores: Mapping[str, Sequence[Sequence[float]]], samples: Path, step: int) -> None:
    """Stores scores (P, K) by reward, as JSON; what is not finite becomes null."""
    rows = {
        name: [[value if math.isfinite(value) else None for value in images] for images in prompts]
        for name, prompts in scores.items()
    }
    write_text(scores_file(samples, step), json.dumps(rows))


def read_scores(samples: Path, step: int) -> dict[str, Scores]:
    """Scores (P, K) of an evaluation by reward, NaN where there is none; empty if nothing was stored.

    Raises:
        RunFolderError: if the file is damaged.
    """
    path = scores_file(samples, step)
    if not path.is_file():
        return {}
    try:
        content = read_json(path)
        scores = {str(name): np.array(rows, dtype=np.float64) for name, rows in content.items()}
        if any(rows.ndim != 2 for rows in scores.values()):
            raise ValueError("scores must be prompts x images")
    except UNREADABLE as error:
        raise RunFolderError(f"{path} cannot be read ({error}); remove it to leave this comparison out") from error
    return scores
