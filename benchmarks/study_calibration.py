"""Coverage, width, false verdicts and power of the statistics of studies, on simulated studies.

``python -m benchmarks.study_calibration [NAMES] [--studies N] [--rules now] [--out FILE.json]``.

*Now* is the rule of :mod:`seedpo.core.stats.two_way`. *Before* is the rule that it replaced: the bootstrap over raters
and prompts (Owen 2007) widened to Wilson's interval, with an exact sign test over prompts; a verdict needed both.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.study_scenarios import Array, Index, Scenario, Votes, rate, study, truth
from benchmarks.table import aligned
from seedpo.core.stats.bootstrap import interval_ends
from seedpo.core.stats.classical import holm, wilson_interval
from seedpo.core.stats.paired_comparisons import fit_strengths, is_connected, strength_intervals, tables
from seedpo.core.stats.two_way import LEAST_PROMPTS, LEAST_RATERS, rate_of

LEVEL = 0.95
RESAMPLES = 400

S = Scenario
SCENARIOS = (
    S(name="12 raters, alike", rater_sd=0.0, prompt_sd=0.0),
    S(name="12 raters, prompts differ", rater_sd=0.0, prompt_sd=0.8),
    S(name="12 raters", rater_sd=0.5),
    S(name="12 raters, sd 1", rater_sd=1.0),
    S(name="12 raters x prompts differ", rater_sd=0.5, cell_sd=1.0),
    S(name="12 raters, all see all", per_pair=12, prompts=20),
    S(name="12 raters, one per pair", per_pair=1, prompts=100),
    S(name="12 raters, 300 prompts", prompts=300, per_pair=2),
    S(name="12 raters, 10 prompts", prompts=10, per_pair=12, prompt_sd=1.0),
    S(name="12 raters, uneven work", uneven=1.0, prompts=60, per_pair=2),
    S(name="1 rater, sd 1", raters=1, rater_sd=1.0),
    S(name="2 raters, sd 1", raters=2, rater_sd=1.0),
    S(name="3 raters, sd 1", raters=3, rater_sd=1.0),
    S(name="4 raters", raters=4, rater_sd=0.5, per_pair=2),
    S(name="4 raters, alike", raters=4, rater_sd=0.0, prompt_sd=0.0),
    S(name="4 raters, sd 1", raters=4, rater_sd=1.0, per_pair=4),
    S(name="5 raters", raters=5, rater_sd=0.5, prompts=60),
    S(name="5 raters, sd 1", raters=5, rater_sd=1.0, prompts=60),
    S(name="6 raters, sd 1", raters=6, rater_sd=1.0, prompts=60),
    S(name="5 raters, sd 2", raters=5, rater_sd=2.0, prompts=60),
    S(name="12 raters, sd 2", rater_sd=2.0, prompts=60),
    S(name="8 raters, sd 1", raters=8, rater_sd=1.0, prompts=60, per_pair=2),
    S(name="30 raters", raters=30, prompts=100),
    S(name="50 raters, sd 1", raters=50, prompts=100, rater_sd=1.0),
    S(name="50 raters, 10 prompts", raters=50, prompts=10, per_pair=10, prompt_sd=1.0),
    S(name="true .55", worths=(0.22, 0.0), prompts=60),
    S(name="true .60", worths=(0.45, 0.0), prompts=60),
    S(name="true .65", worths=(0.69, 0.0), prompts=60),
    S(name="true .70", worths=(0.95, 0.0), prompts=60),
    S(name="true .80", worths=(1.58, 0.0)),
    S(name="true .80, 5 raters", worths=(1.58, 0.0), raters=5, per_pair=2),
    S(name="true .80, 12 raters, sd 1", worths=(1.7, 0.0), rater_sd=1.0),
    S(name="true .90, few votes", worths=(2.5, 0.0), raters=8, prompts=20, per_pair=2),
    S(name="many ties, true .58", worths=(0.8, 0.0), ties=4.0, prompts=60),
    S(name="30 % skipped, true .65", worths=(0.69, 0.0), skips=0.3, prompts=60),
    S(name="20 % careless", worths=(0.8, 0.0), careless=0.2, prompts=60, raters=15),
    S(name="20 % careless, checked", worths=(0.8, 0.0), careless=0.2, checked=True, prompts=60, raters=15),
    S(name="3 models, equal", worths=(0.0, 0.0, 0.0)),
    S(name="3 models, equal, 4 questions", worths=(0.0, 0.0, 0.0), questions=4, per_pair=2),
    S(name="3 models, equal, 5 raters, sd 1", worths=(0.0, 0.0, 0.0), raters=5, rater_sd=1.0),
    S(name="3 models, true .61 .71 .61", worths=(0.5, 0.0, -0.5), prompts=40),
    S(name="3 models, sd 1, one best", worths=(1.0, 0.0, 0.0), prompts=40, rater_sd=1.0),
    S(name="2 questions, true .65", worths=(0.69, 0.0), questions=2, prompts=60),
    S(name="best and worst of 4, equal", worths=(0.0,) * 4, form="best-worst", per_pair=2),
    S(name="best and worst of 4", worths=(0.6, 0.2, 0.0, -0.2), form="best-worst", per_pair=2),
    S(name="likes, equal", form="single", prompts=40),
    S(name="likes, 5 raters, sd 1, equal", form="single", raters=5, rater_sd=1.0, prompts=40),
    S(name="likes, true .59", form="single", worths=(1.0, 0.2), prompts=60),
)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """How a rule did in a scenario.

    Attributes:
        studies: simulated.
        coverage: share of intervals of the rate that hold the true one, over questions and contrasts.
        width: mean width of these intervals.
        rejected: share of uncorrected tests with p <= 0.05.
        shown: share of contrasts of different models with the right verdict after Holm's correction: the power.
        wrong: share of studies with a verdict that is not true: the family-wise error.
        strengths: coverage of the intervals of the log-strengths; `None` with two models.
    """

    studies: int
    coverage: float
    width: float
    rejected: float
    shown: float | None
    wrong: float
    strengths: float | None


@dataclass(frozen=True)
class Outcome:
    """What a rule says of one contrast: interval, p-value, whether it is tested, and whether its interval lets it."""

    low: float
    high: float
    p: float
    tested: bool = True
    agrees: bool = True


def now(votes: Votes, seed: int) -> Outcome:
    """The rule of the package."""
    result = rate_of(*rate(votes), votes.raters, votes.prompts, level=LEVEL)
    enough = len(np.unique(votes.raters)) >= LEAST_RATERS and len(np.unique(votes.prompts)) >= LEAST_PROMPTS
    return Outcome(result.low, result.high, result.p, tested=enough)


def before(votes: Votes, seed: int) -> Outcome:
    """The rule that it replaced."""
    wilson = wilson_interval(float(votes.points.sum()), len(votes.points))
    raters, prompts = _codes(votes)
    by_rater, by_prompt = _draws(raters, prompts, seed, RESAMPLES)
    shape = by_rater.shape[1], by_prompt.shape[1]
    cells = raters * shape[1] + prompts
    sums, amounts = (
        np.bincount(cells, weights, shape[0] * shape[1]).reshape(shape)
        for weights in (votes.points, np.ones(len(cells)))
    )
    above, below = (((by_rater @ table) * by_prompt).sum(1) for table in (sums, amounts))
    ends = interval_ends(above[below > 0] / below[below > 0], level=LEVEL)
    low, high = min(ends[0], wilson[0]), max(ends[1], wilson[1])
    leads = np.bincount(prompts, 2.0 * votes.points - 1.0)
    p = sign_test(int((leads > 0).sum()), int((leads < 0).sum()))
    return Outcome(low, high, p, agrees=not low <= 0.5 <= high)


def strengths_now(votes: Votes, models: int, seed: int) -> tuple[Array, Array]:
    """Ends of the intervals of the log-strengths by the rule of the package."""
    ends = strength_intervals(
        votes.first, votes.second, votes.points, competitors=models, raters=votes.raters, prompts=votes.prompts
    )
    return ends.low, ends.high


def strengths_before(votes: Votes, models: int, seed: int) -> tuple[Array, Array]:
    """The same by the bootstrap over raters and prompts."""
    raters, prompts = _codes(votes)
    drawn = []
    for by_rater, by_prompt in zip(*_draws(raters, prompts, seed, RESAMPLES // 2), strict=True):
        rows = np.repeat(np.arange(len(raters)), (by_rater[raters] * by_prompt[prompts]).astype(np.int64))
        counts = tables(votes.first[rows], votes.second[rows], votes.points[rows], models)
        if is_connected(*counts):
            drawn.append(fit_strengths(*counts).values)
    low, high = np.array([interval_ends(column, level=LEVEL) for column in np.array(drawn).T]).T
    return low, high


RULES = {"before": (before, strengths_before), "now": (now, strengths_now)}


def _codes(votes: Votes) -> list[Index]:
    return [np.unique(side, return_inverse=True)[1] for side in (votes.raters, votes.prompts)]


def _draws(raters: Index, prompts: Index, seed: int, resamples: int) -> tuple[Array, Array]:
    """How often each rater and each prompt is drawn in each resample of the bootstrap, (B, R) and (B, P)."""
    generator = np.random.default_rng(seed)
    sizes = int(raters.max()) + 1, int(prompts.max()) + 1
    first, second = (generator.multinomial(size, np.full(size, 1.0 / size), size=resamples) for size in sizes)
    return first.astype(np.float64), second.astype(np.float64)


def sign_test(wins: int, losses: int) -> float:
    """Two-sided exact p-value of as many wins against losses."""
    count, fewer = wins + losses, min(wins, losses)
    whole = math.lgamma(count + 1) - count * math.log(2.0)
    terms = (math.exp(whole - math.lgamma(k + 1) - math.lgamma(count - k + 1)) for k in range(fewer + 1))
    return min(1.0, 2.0 * math.fsum(terms))


def measure(scenario: Scenario, rule: str, *, studies: int, seed: int = 0) -> Figures:
    """Simulates studies of a scenario and applies a rule to each."""
    true, (rate_of, strengths_of) = truth(scenario), RULES[rule]
    models, keys = len(scenario.worths), [(q, *pair) for q in range(scenario.questions) for pair in scenario.contrasts]
    rates = np.array([true.rates[key[1:]] for key in keys])
    rows, strong, wrong, shown = [], [], 0, []
    for number in range(studies):
        votes = study(scenario, np.random.default_rng([seed, number]))
        outcomes = [rate_of(votes.of(*key), number) for key in keys]
        low, high, p = np.array([(row.low, row.high, row.p) for row in outcomes]).T
        verdicts = _verdicts(outcomes)
        right = verdicts & ((low + high - 1.0) * (rates - 0.5) > 0.0)
        wrong += bool((verdicts & ~right).any())
        shown += right[rates != 0.5].tolist()
        rows.append(((low <= rates) & (rates <= high), high - low, p <= 1.0 - LEVEL))
        # The bootstrap of strengths takes a fifth of a second.
        if models > 2 and scenario.form != "single" and (rule == "now" or number < studies / 5):
            low, high = strengths_of(votes.of_question(0), models, number)
            strong += ((low <= true.strengths) & (true.strengths <= high)).tolist()
    coverage, width, rejected = np.mean(rows, axis=(0, 2)).tolist()
    return Figures(
        studies=studies,
        coverage=coverage,
        width=width,
        rejected=rejected,
        shown=float(np.mean(shown)) if shown else None,
        wrong=wrong / studies,
        strengths=float(np.mean(strong)) if strong else None,
    )


def _verdicts(outcomes: Sequence[Outcome]) -> NDArray[np.bool_]:
    """Whether a verdict is given on each contrast, after Holm's correction over those that are tested."""
    tested = np.array([row.tested for row in outcomes])
    adjusted = np.ones(len(outcomes))
    adjusted[tested] = holm([row.p for row in outcomes if row.tested])
    return (adjusted <= 1.0 - LEVEL) & np.array([row.agrees for row in outcomes])


HEADING = ("scenario", "rule", "coverage", "width", "p <= .05", "any false verdict", "power", "strengths")


def _row(name: str, rule: str, figures: Figures) -> tuple[str, ...]:
    numbers = (figures.coverage, figures.width, figures.rejected, figures.wrong, figures.shown, figures.strengths)
    return (name, rule, *("-" if number is None else f"{number:.3f}" for number in numbers))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.study_calibration", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="PART", help="part of a scenario's name; default: all scenarios")
    parser.add_argument("--studies", type=int, default=1000, help="per scenario (default: 1000)")
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES), help="default: both")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    options = parser.parse_args(arguments)
    chosen = [row for row in SCENARIOS if not options.names or any(part in row.name for part in options.names)]
    if not chosen:
        parser.error(f"no scenario is called {', '.join(options.names)}")
    rows, measured = [HEADING], []
    for scenario in tqdm(chosen, disable=None):
        for rule in options.rules:
            if rule == "before" and scenario.form == "single":  # there were no likes
                continue
            figures = measure(scenario, rule, studies=options.studies, seed=options.seed)
            rows.append(_row(scenario.name, rule, figures))
            rates = list(truth(scenario).rates.values())
            measured.append({"scenario": asdict(scenario), "true": rates, "rule": rule, **asdict(figures)})
        if options.out is not None:  # after each of them: a run that is stopped keeps what it has measured
            options.out.write_text(json.dumps({"seed": options.seed, "figures": measured}, indent=1) + "\n", "utf-8")
    print(aligned(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
