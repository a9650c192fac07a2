"""What healthy curves look like for a run's method and settings, said before the run starts.

"Is it learning?" is what users of these methods ask most, since a loss near log 2 looks like no learning at all. The
bounds are computed from the settings; the usual ranges are those of the embedded world's recorded runs.
"""

from __future__ import annotations

import math

from seedpo.core.entropy import clipped_loss, clipped_margin
from seedpo.training.settings import RunConfig

FLAT = 0.1
"""A loss whose whole range is narrower than this looks flat."""


def what_to_expect(config: RunConfig, *, fixed_pairs: bool) -> list[str]:
    """A few lines for the log: loss, accuracy, margins, reward, and where to look.

    Args:
        config: the run's settings.
        fixed_pairs: whether the pairs come from a data set, seen again and again, instead of being drawn as it goes.
    """
    a, b = config.weights
    clip = "no clipping" if config.clip_range is None else f"clip_range {config.clip_range:g}"
    head = f"what to expect of {config.method} at beta {config.beta:g}, gamma {config.gamma:g}, {clip}:"
    lines = [_loss(a, b, config.clip_range), _accuracy(a == b, fixed_pairs), _margins(a, b, config.clip_range)]
    if config.feedback.study is not None:
        lines.append("source/pairs_kept: share of pairs about which people have a preference; the rest trains nothing")
    elif not fixed_pairs:
        lines.append(
            "source/reward: what the policy is trained towards; it should rise over many roll-outs, through noise"
        )
    lines.append(
        "metrics.jsonl in the run folder holds every figure, `seedpo report RUN --out report.html` draws them; alarms "
        "say here when something goes wrong"
    )
    return [head, *(f"  {line}" for line in lines)]


def _loss(a: float, b: float, clip_range: float | None) -> str:
    if a != b:
        return (
            "loss: starts off 0.693, mostly above it, since the entropy term's offset spreads the margins before "
            "anything is learnt; only its change tells something, and it wavers with offset/std"
        )
    start = f"loss: starts at {math.log(2):.3f} (policy = reference)"
    if clip_range is None:
        return f"{start} and falls slowly; 0.6 to 0.69 is usual for long, and single steps go up as well"
    low, high = clipped_loss(a, clip_range)
    if high - low >= FLAT:
        return f"{start} and cannot leave [{low:.3f}, {high:.3f}]; 0.6 to 0.7 is usual"
    return (
        f"{start} and cannot leave [{low:.3f}, {high:.3f}], whatever is learnt: a flat loss is no sign of anything "
        "here; judge by rewards/accuracies and by the rewards"
    )


def _accuracy(base: bool, fixed_pairs: bool) -> str:
    start = "0 at step 1, where every margin is 0, then" if base else "at first"
    if fixed_pairs:
        return (
            f"rewards/accuracies: {start} about 0.5, rising to 0.6-0.8; near 1 means that the pairs are learnt by heart"
        )
    return (
        f"rewards/accuracies: {start} 0.5 to 0.8 and no steady rise, since every roll-out brings new pairs; below 0.5 "
        "for long is a bad sign"
    )


def _margins(a: float, b: float, clip_range: float | None) -> str:
    if a != b:
        return (
            "margin_abs: about offset/std at first, best near 1; above 6 (`saturated`) beta or gamma is too large, "
            "below 0.05 for good the reference has no influence"
        )
    if clip_range is not None:
        bound = clipped_margin(a, clip_range)
        weak = ", so small that beta, gamma and the reference have no influence" if bound < FLAT else ""
        return f"margin_abs: 0 at first, at most {bound:.2g}{weak}"
    return (
        "margin_abs: 0 at first, then 0.05 to 1; above 6 (`saturated`) beta is too large, below 0.05 for good the "
        "reference has no influence"
    )
