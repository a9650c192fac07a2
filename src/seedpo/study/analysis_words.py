"""What the numbers say, in sentences that say no more than they do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from seedpo.pages.wording import count, listing, sentence
from seedpo.study.analysis import Analysis, QuestionResult
from seedpo.study.analysis_comparisons import Comparison, Ends, Verdict
from seedpo.study.analysis_raters import Agreement, Share

FEW = 10
"""With fewer raters or prompts than this, a bootstrap over them knows little of others."""

Tone = Literal["good", "open", "plain"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What is known of one topic, a paragraph each."""

    topic: str
    lines: tuple[str, ...]
    tone: Tone = "plain"


def percent(share: float) -> str:
    """A share in whole percent, except that only all of it is 100% and only nothing 0%."""
    rounded = round(100 * share)
    if rounded in (0, 100) and share not in (0.0, 1.0):
        return "<1%" if rounded == 0 else ">99%"
    return f"{rounded}%"


def percents(ends: Ends) -> str:
    """``41% to 58%``."""
    return f"{percent(ends[0])} to {percent(ends[1])}"


def p_value(p: float) -> str:
    """``p = 0.03``, ``p < 0.001``."""
    if p < 0.001:
        return "p < 0.001"
    return f"p = {p:.3f}" if p < 0.0995 else f"p = {p:.2f}"


def level_words(analysis: Analysis) -> str:
    """``95%``."""
    return f"{100 * analysis.resampling.level:g}%"


def about(question: str) -> str:
    """``on preference``, or what stands for all questions."""
    return f"on {question}" if question else "over all questions together"


def comparison_words(one: Comparison, analysis: Analysis) -> str:
    """The outcome of one comparison, seen from the model that has more of the votes."""
    if one.rate < 0.5:
        one = turned(one)
    adjusted = one.adjusted if one.adjusted is not None else 1.0
    ends = f"{level_words(analysis)} interval {percents(one.interval)}"
    prompts = f"ahead on {count(one.prompts_left, 'prompt')}, behind on {one.prompts_right}"
    numbers = (
        f"{percent(one.rate)} of {count(one.votes, 'vote')} ({ends}), {prompts}; "
        f"{p_value(adjusted)} after Holm's correction"
    )
    if one.verdict != "open":
        return f"{one.left} is preferred to {one.right}: {numbers}."
    text = f"No preference is shown between {one.left} and {one.right}: {one.left} has {numbers}."
    if adjusted <= 1.0 - analysis.resampling.level and one.interval[0] <= 0.5 <= one.interval[1]:
        text += " The test over prompts finds one, but the interval over raters and prompts includes 50%."
    return text


def turned(one: Comparison) -> Comparison:
    """The same comparison, seen from the other model."""
    other: dict[Verdict, Verdict] = {"left": "right", "right": "left", "open": "open"}
    return replace(
        one,
        left=one.right,
        right=one.left,
        wins=one.losses,
        losses=one.wins,
        rate=1.0 - one.rate,
        wilson=(1.0 - one.wilson[1], 1.0 - one.wilson[0]),
        interval=(1.0 - one.interval[1], 1.0 - one.interval[0]),
        prompts_left=one.prompts_right,
        prompts_right=one.prompts_left,
        verdict=other[one.verdict],
    )


def headline(analysis: Analysis) -> str:
    """The first sentence of the page."""
    if not analysis.models:
        ranked = [ranking for result in analysis.questions for ranking in result.rankings]
        decided = sum(ranking.decided for ranking in ranked)
        return (
            f"{count(analysis.counts.votes, 'vote')} of {count(_counting(analysis), 'rater')} order the images of "
            f"{count(len(ranked), 'group')}; {decided} of them {'has' if decided == 1 else 'have'} one image that is "
            "ahead of all others."
        )
    shown = sum(one.verdict != "open" for result in analysis.questions for one in result.comparisons)
    if not analysis.tested:
        return "No two models were compared: every vote is between images of one model."
    tests = count(analysis.tested, "comparison")
    if not shown:
        return f"Of {tests}, none shows a preference after Holm's correction. That is no proof that models are equal."
    return f"Of {tests}, {shown} {'shows' if shown == 1 else 'show'} a preference after Holm's correction."


def findings(analysis: Analysis) -> tuple[Finding, ...]:
    """The paragraphs at the top of the page."""
    found = [
        Finding(
            topic=sentence(result.key) if result.key else "All questions together",
            lines=tuple(
                comparison_words(one, analysis)
                for one in sorted(result.comparisons, key=lambda one: one.verdict == "open")
            ),
            tone="good" if any(one.verdict != "open" for one in result.comparisons) else "open",
        )
        for result in analysis.questions
        if result.comparisons
    ]
    found.append(Finding(topic="Agreement of raters", lines=_agreement_words(analysis)))
    return (*found, *_rater_findings(analysis))


def strengths_words(result: QuestionResult, analysis: Analysis) -> str:
    """What has to be said beside the strengths, or instead of them."""
    found = result.strengths
    if not found.models:
        return (
            "There are no strengths: the comparisons do not hang together, so that some models cannot be placed "
            "against others."
            if len({name for one in result.comparisons for name in (one.left, one.right)}) > 1
            else ""
        )
    text = (
        "Log-strengths of the model of Bradley and Terry with ties (Davidson 1970), adding up to 0: a difference of d "
        'means odds of e^d between two models, ties left out. "Both bad" counts as a tie. '
        f"Intervals: {level_words(analysis)}, bootstrap over raters and prompts."
    )
    if found.penalised:
        text += (
            " Some models never lost to the rest, so that no finite strength fits best (it has no bound): half a win "
            "was added in each direction to every pair. Read the strengths as an order, not as distances."
        )
    elif found.penalised_resamples > (1.0 - analysis.resampling.level) / 2.0 * found.resamples:
        text += (
            f" In {found.penalised_resamples} of {found.resamples} resamples some models never lost to the rest; half "
            "a win was added there in each direction, so that the outer ends of intervals are rather lower bounds."
        )
    if found.resamples < analysis.resampling.resamples:
        lost = analysis.resampling.resamples - found.resamples
        text += f" {lost} of {analysis.resampling.resamples} resamples did not hang together and are left out."
    return text


def alpha_words(found: Agreement) -> str:
    """Krippendorff's alpha in a few words; a dash where there is none."""
    if found.nominal is None or found.ordinal is None:
        return "not defined"

    def one(value: float, ends: Ends | None) -> str:
        return f"{value:.2f}" + (f" [{ends[0]:.2f}, {ends[1]:.2f}]" if ends else "")

    text = f"{one(found.nominal, found.nominal_interval)} nominal, {one(found.ordinal, found.ordinal_interval)} ordinal"
    return text.replace("-", "\N{MINUS SIGN}")


def share_words(share: Share) -> str:
    """A share with its interval; a dash without a case."""
    if share.share is None or share.interval is None:
        return "\N{EN DASH}"
    return f"{percent(share.share)} of {share.cases} ({percents(share.interval)})"


def _agreement_words(analysis: Analysis) -> tuple[str, ...]:
    parts = []
    for result in analysis.questions:
        found = result.agreement
        where = about(result.key)
        if found.same is None:
            parts.append(f"{sentence(where)} no pair was answered by two raters: agreement is not known.")
        else:
            parts.append(
                f"{sentence(where)} two raters of one pair say the same in {percent(found.same)} of cases "
                f"({count(found.pairs, 'pair')}); Krippendorff's alpha is {alpha_words(found)} (0 is chance, 1 full "
                "agreement)."
            )
    return tuple(parts)


def _rater_findings(analysis: Analysis) -> list[Finding]:
    found = []
    if analysis.side.interval is not None and analysis.side.share is not None:
        low, high = analysis.side.interval
        drawn = "a pull to one side is shown" if low > 0.5 or high < 0.5 else "no pull to one side is shown"
        answers = f"{percent(analysis.side.share)} of {count(analysis.side.cases, 'answer')} for one side"
        text = f"Left was chosen in {answers} ({percents((low, high))}): {drawn}."
        found.append(Finding(topic="Sides", lines=(text,)))
    if analysis.consistency.share is not None:
        text = (
            f"Shown again with the sides exchanged, pairs got the same answer in {share_words(analysis.consistency)}."
        )
        found.append(Finding(topic="Repetitions", lines=(text,)))
    text = _attention_words(analysis)
    if text:
        found.append(Finding(topic="Attention checks", lines=(text,)))
    limits = limits_words(analysis)
    if limits:
        found.append(Finding(topic="How sure", lines=tuple(limits), tone="open"))
    return found


def _attention_words(analysis: Analysis) -> str:
    text = ""
    if analysis.checks.share is not None:
        text = f"Raters who count passed {share_words(analysis.checks)}."
    if analysis.least_checks is None:
        return text
    limit = f"less than {percent(analysis.least_checks)} of their checks"
    if not analysis.inattentive:
        return f"{text} Nobody passed {limit}.".strip()
    gone = count(len(analysis.inattentive), "rater")
    return (
        f"{text} {gone} passed {limit} and {'is' if len(analysis.inattentive) == 1 else 'are'} left out: "
        f"{listing(analysis.inattentive)}. {_changed(analysis)}"
    ).strip()


def _changed(analysis: Analysis) -> str:
    own = [one for result in analysis.questions for one in result.comparisons]
    if not own:
        return ""
    before = {(one.question, one.left, one.right): one.verdict for one in analysis.everybody}
    changed = sum(before.get((one.question, one.left, one.right)) != one.verdict for one in own)
    return (
        f"With them {changed} of {count(len(own), 'conclusion')} would be another."
        if changed
        else "With them every conclusion would be the same."
    )


def limits_words(analysis: Analysis) -> list[str]:
    """What the data cannot say."""
    raters = _counting(analysis)
    prompts = max(result.prompts for result in analysis.questions)
    found = []
    if raters == 1:
        found.append("All votes are of one rater: they say nothing of other people; intervals are over prompts alone.")
    elif raters < FEW:
        found.append(f"With {raters} raters the intervals say little of other people, and may be too narrow.")
    if prompts < FEW:
        found.append(
            f"With {count(prompts, 'prompt')} the intervals say little of other prompts, and may be too narrow."
        )
    fast = [one.rater for one in analysis.raters if one.fast and one.kept]
    if fast:
        found.append(
            f"{listing(fast)} answered in less than {analysis.fast_seconds:g} s (median), which may be too fast to "
            "look; their votes count."
        )
    return found


def _counting(analysis: Analysis) -> int:
    return sum(one.kept and one.votes > 0 for one in analysis.raters)


def counts_words(analysis: Analysis) -> str:
    """What of the answers counts."""
    counts = analysis.counts
    parts: Sequence[tuple[int, str]] = (
        (counts.checks, "answers to attention checks"),
        (counts.repeats, "to repetitions"),
        (counts.skipped, "skipped"),
        (counts.inattentive, "by raters who failed attention checks"),
        (counts.excluded, "by raters who were left out by hand"),
    )
    gone = [f"{amount} {what}" for amount, what in parts if amount]
    rest = f" The rest does not count as votes: {listing(gone)}." if gone else ""
    return f"{count(counts.answers, 'answer')}, of which {counts.votes} are votes.{rest}"
