"""What an analysis says in words: no more than its numbers do, and nothing that a table of the page says already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from seedpo.core.stats.two_way import LEAST_PROMPTS, LEAST_RATERS
from seedpo.pages.wording import MINUS, count, listing, sentence
from seedpo.study.analysis.analyze import Analysis, QuestionResult
from seedpo.study.analysis.comparisons import Comparison
from seedpo.study.analysis.vote_statistics import Agreement, Ends, Share
from seedpo.study.votes.registration import Aim, Registration

MOST_SENTENCES = 3
"""With more comparisons than this the first sentence counts them, and the table names them."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What is known about one topic, one paragraph per line."""

    topic: str
    lines: tuple[str, ...]


# Numbers.


def percent(share: float) -> str:
    """A share in whole percent; only exactly all is 100% and only exactly nothing 0%."""
    rounded = round(100 * share)
    if rounded in (0, 100) and share not in (0.0, 1.0):
        return "<1%" if rounded == 0 else ">99%"
    return f"{rounded}%"


def percents(ends: Ends) -> str:
    """``41% to 58%``."""
    return f"{percent(ends[0])} to {percent(ends[1])}"


def points(share: float) -> str:
    """A difference of shares in whole percentage points: ``+12``."""
    return f"{round(100 * share):+d}".replace("-", MINUS)


def rate_words(row: Comparison) -> tuple[str, str]:
    """The rate of a comparison and its interval; of likes, the difference of the shares of likes."""
    if not row.liked:
        return percent(row.rate), percents(row.interval)
    low, high = (points(2.0 * end - 1.0) for end in row.interval)
    return f"{points(2.0 * row.rate - 1.0)} points", f"{low} to {high}"


def p_value(p: float | None) -> str:
    """``0.034``, ``0.52``, ``<0.001``; a dash without a test."""
    if p is None:
        return "\N{EN DASH}"
    if p < 0.001:
        return "<0.001"
    return f"{p:.3f}" if p < 0.0995 else f"{p:.2f}"


def share_words(share: Share) -> str:
    """A share with its interval; a dash without a case."""
    if share.share is None or share.interval is None:
        return "\N{EN DASH}"
    return f"{percent(share.share)} of {share.cases} ({percents(share.interval)})"


def alpha_words(agreement: Agreement) -> str:
    """Krippendorff's alpha with its intervals."""
    if agreement.nominal is None or agreement.ordinal is None:
        return "not defined"

    def with_ends(value: float, ends: Ends | None) -> str:
        return f"{value:.2f}" + (f" [{ends[0]:.2f}, {ends[1]:.2f}]" if ends else "")

    nominal = with_ends(agreement.nominal, agreement.nominal_interval)
    ordinal = with_ends(agreement.ordinal, agreement.ordinal_interval)
    return f"{nominal} nominal, {ordinal} ordinal".replace("-", MINUS)


def level_words(analysis: Analysis) -> str:
    """``95%``."""
    return f"{100 * analysis.resampling.level:g}%"


# What was asked first.


def titled(title: str, rest: str) -> str:
    """A title and what follows it: after a colon, unless the title ends in a punctuation mark of its own."""
    title = title.strip()
    ended = title.endswith(tuple("?!.:\N{HORIZONTAL ELLIPSIS}"))
    return f"{title} {sentence(rest)}" if ended else f"{title}: {rest}"


def headline(analysis: Analysis) -> str:
    """The first sentence of the page: about what the study was made to answer, and nothing else."""
    if not analysis.models:
        return _ranking_words(analysis)
    rows = [row for row in analysis.comparisons if row.family == "primary"]
    if not rows:
        return _nothing_asked(analysis)
    about = f"On the primary question ({analysis.aim.primary}), " if analysis.aim.primary else ""
    tested = [row for row in rows if row.p is not None]
    if not tested:
        return sentence(f"{about}there is no verdict yet: {listing(sorted({row.untested for row in rows}))}.")
    shown = [row for row in rows if row.verdict != "open"]
    equal = " A difference that is not shown may still be there." if len(shown) < len(tested) else ""
    if analysis.aim.primary is not None and len(rows) <= MOST_SENTENCES:
        return f"{about}{listing(_verdict_words(rows, analysis))}.{equal}"
    tests = count(len(tested), "comparison")
    verb = "shows" if len(shown) < 2 else "show"
    return sentence(f"{about}of {tests}, {len(shown) or 'none'} {verb} a preference after Holm's correction.{equal}")


def _verdict_words(rows: Sequence[Comparison], analysis: Analysis) -> list[str]:
    shown = [f"{preference_words(row)} ({_rate_words(row, analysis)})" for row in rows if row.verdict != "open"]
    kinds = (("no preference is shown", True), ("there is no verdict yet", False))
    for words, tested in kinds:
        pairs = [_pair(row) for row in rows if row.verdict == "open" and (row.p is not None) is tested]
        shown += [f"{words} {', nor '.join(pairs)}"] if pairs else []
    return shown


def _pair(row: Comparison) -> str:
    return f"between {row.left} and {row.right}"


def preference_words(row: Comparison) -> str:
    """``see is preferred to base``, for a comparison with a verdict."""
    better, worse = (row.left, row.right) if row.verdict == "left" else (row.right, row.left)
    return f"{better} is preferred to {worse}"


def _rate_words(row: Comparison, analysis: Analysis) -> str:
    """The rate of the preferred model."""
    if row.verdict == "right":
        row = replace(row, rate=1.0 - row.rate, interval=(1.0 - row.interval[1], 1.0 - row.interval[0]))
    rate, interval = rate_words(row)
    return f"{rate} {'in the share of likes' if row.liked else 'of votes'}, {level_words(analysis)} interval {interval}"


def _nothing_asked(analysis: Analysis) -> str:
    if not analysis.comparisons:
        return "No two models were compared: every vote is between images of one model."
    return f"Nobody has answered what the study was made to ask yet ({analysis.aim}); the other questions are explored."


def _ranking_words(analysis: Analysis) -> str:
    rankings = [ranking for result in analysis.questions for ranking in result.rankings]
    decided = sum(ranking.decided for ranking in rankings)
    return (
        f"{count(analysis.counts.votes, 'vote')} of {count(_counting(analysis), 'rater')} order the images of "
        f"{count(len(rankings), 'group')}; in {decided} of them one image is ahead of all others."
    )


def change_words(aim: Aim, changes: Sequence[Registration]) -> str:
    """What the study was made to answer and that this was changed after its first vote; empty if it was not."""
    if not changes:
        return ""
    times = [f"after {count(change.votes, 'answer')} (to: {change.aim})" for change in changes]
    return f"study.yaml was changed {listing(times)}. Verdicts follow what was asked before the first vote: {aim}."


def counts_words(analysis: Analysis) -> str:
    """How many answers count, and why others do not."""
    counts = analysis.counts
    parts = (
        (counts.checks, "answers to attention checks"),
        (counts.repeats, "to repetitions"),
        (counts.skipped, "skipped"),
        (counts.inattentive, "by raters who failed attention checks"),
        (counts.excluded, "by raters whom the owner left out"),
    )
    others = [f"{amount} {reason}" for amount, reason in parts if amount]
    rest = f" The others do not count as votes: {listing(others)}." if others else ""
    return f"{count(counts.answers, 'answer')}, of which {counts.votes} are votes.{rest}"


# Beside the figures.


def limits_words(result: QuestionResult) -> tuple[str, ...]:
    """What the votes on one question cannot show; nothing where no verdict is due."""
    if not result.comparisons or not result.key:
        return ()
    if result.raters == 1:
        return ("All votes are from one rater: they say nothing about others. Intervals are over prompts only.",)
    amounts = ((result.raters, LEAST_RATERS, "rater"), (result.prompts, LEAST_PROMPTS, "prompt"))
    return tuple(
        f"There is no verdict with {count(amount, name)}: below {least} the intervals may be too narrow."
        for amount, least, name in amounts
        if amount < least
    )


def findings(analysis: Analysis) -> tuple[Finding, ...]:
    """What is known about the raters, beside the table of comparisons."""
    topics = []
    if analysis.side.interval is not None:
        low, high = analysis.side.interval
        pull = "A pull to one side is shown" if low > 0.5 or high < 0.5 else "No pull to one side is shown"
        sides = f"{pull}: of answers for one side, left is {share_words(analysis.side)}."
        topics.append(Finding(topic="Sides", lines=(sides,)))
    topics.append(Finding(topic="Attention checks", lines=_attention_words(analysis)))
    fast = [rater.rater for rater in analysis.raters if rater.fast and rater.kept]
    if fast:
        speed = (
            f"{listing(fast)} answered in less than {analysis.fast_seconds:g} s (median), which may be too fast to "
            "look; their votes count."
        )
        topics.append(Finding(topic="Speed", lines=(speed,)))
    return tuple(finding for finding in topics if finding.lines)


def _attention_words(analysis: Analysis) -> tuple[str, ...]:
    if analysis.least_checks is None:
        return ()
    limit = f"less than {percent(analysis.least_checks)} of the checks that they answered"
    lines = [f"Nobody passed {limit}."]
    if analysis.inattentive:
        lines = [f"Left out, with {limit} passed: {listing(analysis.inattentive)}."]
        changes = changes_of(analysis)
        changed = sum(other is None or row.verdict != other.verdict for row, other in changes)
        lines += [f"With them {changed} of {count(len(changes), 'conclusion')} would be different."] if changes else []
    if analysis.careless is not None:
        lines.append(
            f"Of raters who answer {count(analysis.usual_checks, 'check')}, the usual number, at random, "
            f"{percent(analysis.careless)} would pass."
        )
    return tuple(lines)


def changes_of(analysis: Analysis) -> list[tuple[Comparison, Comparison | None]]:
    """Each tested comparison without the inattentive raters, and with them; empty if nobody was left out."""
    everybody = {row.key: row for row in analysis.everybody}
    return [(row, everybody.get(row.key)) for row in analysis.comparisons if everybody and row.family]


def _counting(analysis: Analysis) -> int:
    return sum(rater.kept and rater.votes > 0 for rater in analysis.raters)
