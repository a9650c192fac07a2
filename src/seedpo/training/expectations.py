"""What healthy curves look like for a run's method and settings, logged before the run starts.

"Is it learning?" is the most frequent question about these methods, since a loss near log 2 looks like no learning at
all. The bounds follow from the settings. The usual ranges are those of the embedded world's recorded runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from seedpo.core.entropy import clipped_margin
from seedpo.core.losses import DEFAULT_CONSTANTS, LOSSES, LossConstants, clipped_loss
from seedpo.methods.presets import METHODS
from seedpo.training.settings import RunConfig

FLAT = 0.1
"""A loss whose whole range is narrower than this looks flat."""


EXPECTATIONS: Mapping[str, Mapping[str, str]] = {
    "dspo": {
        "loss": "starts at the error of the preferred images and falls slowly, through the noise of the time steps "
        "drawn",
        "rewards/accuracies": "0 at step 1, where every margin is 0, then about 0.5, rising slowly",
        "margin_abs": "0 at first, and small at the published betas, where sigma(-m) is 1/2 for every pair",
    },
    "kto": {
        "loss": "starts at 1/2 of the weights objective.liked_weight and objective.disliked_weight, and falls slowly",
        "rewards/accuracies": "share of images that moved as people wished, from Q on; 0 at step 1, then about 0.5, "
        "rising",
        "margin_abs": "0 at first, best near 1; above 6 (`saturated`) lower beta",
    },
    "mapo": {
        "loss": "starts near the error of the preferred images plus beta times about 0.7, and falls slowly",
        "rewards/accuracies": "share of pairs whose preferred image the model fits better; it starts where the model "
        "stands, often near 0.5, and rises",
        "rewards/margins": "of the policy's own errors, so that it need not start at 0; it rises and levels off",
        "margin_abs": "not 0 at first, since there is no reference; above 6 (`saturated`) lower objective.margin_steps",
    },
    "dgpo": {
        "loss": "starts at 0.693 / beta (policy = reference) and falls slowly; single steps may rise",
        "rewards/accuracies": "share of groups whose better images the policy prefers to the reference: 0 at step 1, "
        "then 0.5 to 0.8 without a steady rise, since every roll-out brings new groups",
        "gradient_factor": "0.5 at first; near 0 a group teaches nothing any more: lower beta",
    },
    "nft": {
        "loss": "starts at the errors of the old policy's clean images, and changes little; it does not show whether "
        "the model learns",
        "distance": "from the old policy: 0 at first, then small, as the old policy follows; if it leaps, lower "
        "learning_rate",
    },
    "grpo": {
        "loss": "about 0 throughout, since advantages average to 0; it does not show whether the model learns",
        "ratio/mean": "1, exactly so in the first update after each roll-out",
        "clipped": "0 in that update, then a part at most; lower learning_rate, or raise clip_range, if it nears 1",
        "kl": "0 at first, then rising slowly; if it leaps, lower learning_rate or raise beta (not computed at beta 0)",
    },
}
"""By objective of a method that is no loss of a pair's margin: what its figures look like in a healthy run."""


def what_to_expect(config: RunConfig, *, fixed_pairs: bool) -> list[str]:
    """A few lines for the log: loss, accuracy, margins, reward, and where to look.

    Args:
        config: the run's settings.
        fixed_pairs: whether the pairs come from a data set, seen again and again, instead of from roll-outs.
    """
    clip = "no clipping" if config.clip_range is None else f"clip_range {config.clip_range:g}"
    curves = EXPECTATIONS.get(METHODS[config.method].objective) or _of_margins(config, fixed_pairs)
    lines = [f"{figure}: {curve}" for figure, curve in curves.items()]
    if config.feedback.study is not None:
        lines.append("source/pairs_kept: share of pairs on which people have a preference; the others train nothing")
    elif not fixed_pairs:
        lines.append("source/reward: the reward that is trained; it should rise over many roll-outs, through noise")
    if config.weighting.asks_features:
        lines.append("source/novelty: distance of winners to their nearest neighbour; a fall means lost diversity")
        lines.append("the logged loss is that of weighed pairs, whose mean weight need not be 1")
    if config.weighting.second_opinion:
        lines.append("source/suspicion: it rises where the reward parts from the second opinions")
    if config.anchor.weights:
        names = ", ".join(f"{weight:g} anchor/{name}" for name, weight in config.anchor.weights.items())
        lines.append(f"the logged loss also contains {names}")
    lines.append("metrics.jsonl in the run folder holds every figure; `seedpo report RUN --out report.html` draws them")
    head = f"what to expect of {config.method} at beta {config.beta:g}, gamma {config.gamma:g}, {clip}:"
    return [head, *(f"  {line}" for line in lines)]


def _of_margins(config: RunConfig, fixed_pairs: bool) -> Mapping[str, str]:
    a, b = config.weights
    return {
        "loss": expected_loss(a, b, config.clip_range, config.loss, config.objective.loss_constants),
        "rewards/accuracies": _accuracy(a == b, fixed_pairs),
        "margin_abs": _margins(a, b, config.clip_range),
    }


def expected_loss(
    a: float,
    b: float,
    clip_range: float | None,
    loss: str = "sigmoid",
    constants: LossConstants = DEFAULT_CONSTANTS,
) -> str:
    """What the loss does in a healthy run.

    Args:
        a, b: weights of the policy's and the reference's log-probability.
        clip_range: of the ratio policy/reference; `None` without clipping.
        loss: name of the loss of a pair.
        constants: numbers of the losses; their beta is b, whatever it says.
    """
    start_value = f"{LOSSES[loss].start_value(replace(constants, beta=b)):.3g}"
    if a != b:
        return (
            f"starts away from {start_value}, mostly above it, because the entropy term's offset spreads the margins; "
            "only its change is informative, and it varies with offset/std"
        )
    start = f"starts at {start_value} (policy = reference)"
    if clip_range is None:
        usual = (
            "0.6 to 0.69 is usual for long, and single steps may rise" if loss == "sigmoid" else "single steps may rise"
        )
        return f"{start} and falls slowly; {usual}"
    low, high = clipped_loss(a, clip_range, loss=loss, constants=constants)
    bounds = f"{start} and cannot leave [{low:.3f}, {high:.3f}]"
    if high - low >= FLAT:
        return f"{bounds}; 0.6 to 0.7 is usual" if loss == "sigmoid" else bounds
    return f"{bounds}, however much is learned; judge by accuracy and rewards instead"


def _accuracy(base: bool, fixed_pairs: bool) -> str:
    start = "0 at step 1, where every margin is 0, then" if base else "at first"
    if fixed_pairs:
        return f"{start} about 0.5, rising to 0.6-0.8; close to 1 the model has memorised the pairs"
    return f"{start} 0.5 to 0.8 without a steady rise, since every roll-out brings new pairs; long below 0.5 is bad"


def _margins(a: float, b: float, clip_range: float | None) -> str:
    if a != b:
        return (
            "about offset/std at first, best near 1; above 6 (`saturated`) lower beta or gamma; if it stays below "
            "0.05, the reference has no influence"
        )
    if clip_range is not None:
        bound = clipped_margin(a, clip_range)
        weak = ": beta, gamma and the reference have no influence" if bound < FLAT else ""
        return f"0 at first, at most {bound:.2g}{weak}"
    return (
        "0 at first, then 0.05 to 1; above 6 (`saturated`) lower beta; if it stays below 0.05, the reference has no "
        "influence"
    )
