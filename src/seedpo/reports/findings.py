"""From numbers to sentences: what a family of runs shows, and what it does not show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from seedpo.reports.certainty import certainty
from seedpo.reports.contrasts import Contrast, Level, Verdict, at_equal_proxy, at_equal_steps, at_step
from seedpo.reports.hacking import Hacking, hacking
from seedpo.reports.settings import Family, Setting
from seedpo.reports.wording import MINUS, count, interval, listing, number, sentence, setting, signed

DIVERSITY = {"pairwise_diversity": "diversity", "free_spread": "free spread"}

Tone = Literal["good", "bad", "open", "plain"]
Outcome = Verdict | None
"""A verdict, or nothing where there is nothing to compare."""

MOST_TOLD = 3
"""With more settings of the entropy term than this, the headline counts them instead of naming each."""

NO_LEVEL = "no proxy above the start is reached by both, so the trade-off stays open"
AGAINST_BASE: dict[tuple[Outcome, Outcome], str] = {
    ("higher", "higher"): "The entropy term helps: {what} is higher at equal steps and at equal proxy.",
    (
        "higher",
        "unclear",
    ): "Higher {what} at equal steps, but at equal proxy no difference is shown: the gain may be no "
    "more than that of a proxy that has risen less.",
    ("higher", "lower"): "No better trade-off: {what} is higher at equal steps, but lower at equal proxy.",
    ("higher", None): f"{{what}} is higher at equal steps; {NO_LEVEL}.",
    ("unclear", "higher"): "A better trade-off: {what} is higher at equal proxy, though not clearly at equal steps.",
    ("unclear", "unclear"): "No effect on {what} is shown: the differences lie within the uncertainty.",
    (
        "unclear",
        "lower",
    ): "The entropy term does not help: {what} is lower at equal proxy, and not clearly different at equal steps.",
    ("unclear", None): f"No effect on {{what}} is shown at equal steps; {NO_LEVEL}.",
    ("lower", "higher"): "A better trade-off: {what} is lower at equal steps, but higher at equal proxy.",
    (
        "lower",
        "unclear",
    ): "The entropy term does not help: {what} is lower at equal steps, and not clearly different at equal proxy.",
    ("lower", "lower"): "The entropy term does not help: {what} is lower at equal steps and at equal proxy.",
    ("lower", None): f"The entropy term does not help: {{what}} is lower at equal steps; {NO_LEVEL}.",
}
"""Conclusion from SEE against base: at equal steps, at equal proxy."""

HELPS = {("higher", "higher"), ("unclear", "higher"), ("lower", "higher")}
LOOKS_BETTER = {("higher", "unclear"), ("higher", "lower"), ("higher", None)}
HARMS = {("lower", "lower"), ("lower", "unclear"), ("lower", None), ("unclear", "lower")}
"""Outcomes with a better trade-off, with a gain at equal steps only, and with a loss."""


@dataclass(frozen=True, kw_only=True)
class Statement:
    """One paragraph of the page.

    Attributes:
        topic: what it is about, a few words.
        lines: the findings, a paragraph each.
        tone: ``good``, ``bad``, ``open`` (not decided) or ``plain``.
    """

    topic: str
    lines: tuple[str, ...]
    tone: Tone = "plain"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A row of the table of differences: one setting against another under one condition."""

    left: Setting
    right: Setting
    condition: str
    cells: tuple[tuple[str, Contrast | None], ...]


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a family of runs shows."""

    headline: str
    statements: tuple[Statement, ...]
    comparisons: tuple[Comparison, ...]


@dataclass(frozen=True, kw_only=True)
class Versus:
    """One quantity of a setting against another, under both conditions."""

    steps: tuple[int, Contrast] | None
    proxy: tuple[Level, Contrast] | None

    @property
    def outcome(self) -> tuple[Outcome, Outcome]:
        """Verdicts at equal steps and at equal proxy."""
        return self.steps[1].verdict if self.steps else None, self.proxy[1].verdict if self.proxy else None


def findings(family: Family) -> Findings:
    """Computes the headline, the paragraphs and the table of differences of a family."""
    hacked = [(one, hacking(family, one)) for one in family.settings if one.curves]
    statements = [_hacking_statement(hacked)] if hacked else []
    comparisons = []
    trios = [
        Trio(family=family, see=see, base=_measured(family.base_of(see)), control=_measured(family.control_of(see)))
        for see in family.settings
        if see.role == "see" and see.curves
    ]
    for trio in trios:
        statements += [_entropy_statement(trio), _control_statement(trio), *_diversity_statements(trio)]
        comparisons += _comparisons(trio)
    effects = [_effect_headline(trio) for trio in trios] if len(trios) <= MOST_TOLD else _sweep_headlines(trios)
    headlines = [_hacking_headline(hacked), *effects]
    if hacked:
        lines, weak = certainty(family)
        statements += [Statement(topic="How sure", lines=lines, tone="open" if weak else "plain")]
    return Findings(
        headline=" ".join(f"{sentence(line)}." for line in headlines),
        statements=tuple(statements),
        comparisons=tuple(comparisons),
    )


@dataclass(frozen=True, kw_only=True)
class Trio:
    """A SEE setting with what it is compared with."""

    family: Family
    see: Setting
    base: Setting | None
    control: Setting | None

    def against_base(self, key: str) -> Versus:
        """SEE against the base method."""
        return versus(self.family, self.see, self.base, key) if self.base else NOTHING

    def against_control(self, key: str) -> Versus:
        """SEE against the temperature control."""
        return versus(self.family, self.see, self.control, key) if self.control else NOTHING


NOTHING = Versus(steps=None, proxy=None)


def _measured(one: Setting | None) -> Setting | None:
    return one if one is not None and one.curves else None


def versus(family: Family, left: Setting, right: Setting, key: str) -> Versus:
    """Compares ``key`` of two settings at equal steps and at equal proxy."""
    return Versus(steps=at_equal_steps(left, right, key), proxy=at_equal_proxy(left, right, key, family.proxy))


def _hacking_statement(hacked: Sequence[tuple[Setting, Hacking]]) -> Statement:
    tones: dict[str, Tone] = {"yes": "bad", "collapse": "bad", "no": "good"}
    first = next((found for one, found in hacked if one.role == "base"), hacked[0][1])
    lines = tuple(f"{sentence(one.name)}: {found.text}" for one, found in hacked)
    return Statement(topic="Reward hacking", lines=lines, tone=tones.get(first.verdict, "open"))


def _hacking_headline(hacked: Sequence[tuple[Setting, Hacking]]) -> str:
    if not hacked:
        return "these runs hold no evaluation, so nothing can be said about them yet"
    found = next((entry for entry in hacked if entry[0].role == "base"), None)
    if found is None:
        return "there is no run of the base method to compare with"
    return {
        "yes": f"the base method hacks its reward from step {found[1].peak} on",
        "collapse": f"the base method becomes unstable after step {found[1].peak}",
        "no": "no reward hacking is seen in the base method",
        "unclear": "the base method's truth falls a little, but reward hacking is not shown",
        "unknown": "whether the base method hacks its reward cannot be judged",
    }[found[1].verdict]


def _evidence(trio: Trio, right: Setting, called: str) -> list[str]:
    """The judge of SEE beside that of another setting in words: at equal steps, at equal proxy."""
    what = sentence(trio.family.judge_name)
    found = versus(trio.family, trio.see, right, trio.family.judge)
    proxy = at_equal_steps(trio.see, right, trio.family.proxy)
    lines = []
    if found.steps:
        step, contrast = found.steps
        moved = f"; proxy {number(proxy[1].left.value)} and {number(proxy[1].right.value)}" if proxy else ""
        lines.append(f"{what} at step {step}: {_contrast(contrast, trio.see, right, called)}{moved}.")
    if found.proxy:
        level, contrast = found.proxy
        lines.append(
            f"At equal proxy {number(level.proxy)}, the highest that both reach (step {level.left:.0f} and "
            f"{level.right:.0f}): {_contrast(contrast, trio.see, right, called)}."
        )
    return lines


def _contrast(contrast: Contrast, left: Setting, right: Setting, called: str) -> str:
    """``0.250, base -0.200 (+0.450, intervals apart)``."""
    spread = "ranges over seeds" if left.several_seeds and right.several_seeds else "intervals"
    judged = (
        f"{spread} {'overlap' if contrast.verdict == 'unclear' else 'apart'}" if contrast.judged else "no intervals"
    )
    wins = (
        f", higher with {contrast.wins[0]} of {count(contrast.wins[1], 'shared seed')}" if contrast.wins[1] > 1 else ""
    )
    if contrast.paired:
        judged = f"paired over {contrast.paired.count} prompts: {interval(contrast.paired.low, contrast.paired.high)}"
    values = f"{number(contrast.left.value)}, {called} {number(contrast.right.value)}"
    return f"{values} ({signed(contrast.difference)}, {judged}{wins})"


def _tone(outcome: tuple[Outcome, Outcome]) -> Tone:
    return "good" if outcome in HELPS else "bad" if outcome in HARMS else "open"


def _entropy_statement(trio: Trio) -> Statement:
    topic = f"Entropy term, {trio.see.name}"
    what = trio.family.judge_name
    if trio.base is None:
        beta = setting(trio.see.beta)
        line = (
            f"No evaluated run of the base method at beta = {beta} is among these: what gamma changes cannot be said."
        )
        return Statement(topic=topic, lines=(line,), tone="open")
    outcome = trio.against_base(trio.family.judge).outcome
    if outcome == (None, None):
        line = f"It shares no evaluation of {what} with the base method: what gamma changes cannot be said."
        return Statement(topic=topic, lines=(line,), tone="open")
    conclusion = sentence(AGAINST_BASE[outcome].format(what=what)) if outcome in AGAINST_BASE else ""
    lines = [conclusion, *_evidence(trio, trio.base, "base")]
    return Statement(topic=topic, lines=(" ".join(lines),), tone=_tone(outcome))


def _control_statement(trio: Trio) -> Statement:
    topic = "Is it the temperature alone?"
    if trio.control is None:
        weight = setting(trio.see.policy_weight)
        line = (
            f"Open: no evaluated temperature control (base method at beta' = a = {weight}) is among "
            f"these runs. Whatever {trio.see.name} changes may come from the temperature alone."
        )
        return Statement(topic=topic, lines=(line,), tone="open")
    what = trio.family.judge_name
    if trio.against_control(trio.family.judge).outcome == (None, None):
        line = f"Open: the temperature control shares no evaluation of {what} with it."
        return Statement(topic=topic, lines=(line,), tone="open")
    conclusion, tone = _control_conclusion(trio)
    evidence = _evidence(trio, trio.control, "control")
    return Statement(topic=topic, lines=(" ".join([conclusion, *evidence, _share(trio)]).rstrip(),), tone=tone)


def _control_conclusion(trio: Trio) -> tuple[str, Tone]:
    """Answers whether the temperature alone gives what SEE gives, and how that reflects on the entropy term."""
    what = trio.family.judge_name
    own = trio.against_control(trio.family.judge).outcome
    gained = trio.against_base(trio.family.judge).outcome in HELPS | LOOKS_BETTER
    lower = f", lower {_where(own, 'lower')}" if "lower" in own else ""
    higher = f"{what} is higher than the control's {_where(own, 'higher')}{lower}"
    if own in HELPS:
        return (
            (f"No: {higher}.", "good") if gained else (f"There is no gain over the base to explain; {higher}.", "open")
        )
    if own in LOOKS_BETTER:
        return f"Not shown either way: {higher}{'' if lower else ' only'}.", "open"
    if own in HARMS:
        return f"The temperature alone does better: {what} is lower than the control's {_where(own, 'lower')}.", "bad"
    if gained:
        end = "the control does as well within the uncertainty, so the temperature may be the whole gain."
        return f"It may be: {end}", "bad"
    return "The entropy term and the temperature alone cannot be told apart.", "open"


def _where(outcome: tuple[Outcome, Outcome], verdict: Verdict) -> str:
    places = [place for place, own in zip(("at equal steps", "at equal proxy"), outcome, strict=True) if own == verdict]
    return listing(places)


def _share(trio: Trio) -> str:
    """How much of the gain at equal steps the control gives too."""
    found = trio.against_base(trio.family.judge).steps
    curve = trio.control.curves.get(trio.family.judge) if trio.control else None
    alone = at_step(curve, found[0]) if found and curve else None
    if found is None or alone is None or found[1].verdict != "higher":
        return ""
    step, contrast = found
    share = (alone.value - contrast.right.value) / contrast.difference
    return f"The control alone gives {share:.0%} of the gain over the base method at step {step}.".replace("-", MINUS)


def _diversity_statements(trio: Trio) -> list[Statement]:
    lines, outcomes = [], []
    for key, what in DIVERSITY.items():
        arms = [
            one for one in (trio.base, trio.see, trio.control) if one and key in one.curves and one.curves[key].steps
        ]
        if trio.see not in arms:
            continue
        ends = listing([f"{number(one.curves[key].values[-1])} ({one.name})" for one in arms])
        outcome = trio.against_base(key).outcome
        outcomes.append(outcome)
        line = f"{sentence(what)} starts at {number(arms[0].curves[key].values[0])} and ends at {ends}."
        if outcome in AGAINST_BASE:
            line += f" {sentence(AGAINST_BASE[outcome].format(what=what))}"
        lines.append(f"{line}{_diversity_control(trio.against_control(key).outcome)}")
    if not lines:
        return []
    tones = {_tone(outcome) for outcome in outcomes}
    agreed: Tone = tones.pop() if len(tones) == 1 else "open"
    return [Statement(topic=f"Diversity, {trio.see.name}", lines=tuple(lines), tone=agreed)]


def _diversity_control(outcome: tuple[Outcome, Outcome]) -> str:
    if outcome == (None, None):
        return ""
    names = {"higher": "higher", "lower": "lower", "unclear": "not clearly different", None: "not comparable"}
    if outcome[0] == outcome[1]:
        return f" Against the control it is {names[outcome[0]]}, at equal steps and at equal proxy."
    return f" Against the control it is {names[outcome[0]]} at equal steps and {names[outcome[1]]} at equal proxy."


def _effect_headline(trio: Trio) -> str:
    what, see = trio.family.judge_name, trio.see.name
    if trio.base is None:
        return f"{see} has no base run to be compared with"
    outcome = trio.against_base(trio.family.judge).outcome
    if outcome == (None, None):
        return f"{see} shares no evaluation with the base method"
    if outcome in HARMS:
        return f"{see} does not help {what}"
    if outcome in LOOKS_BETTER:
        rest = "at equal proxy they cannot be compared" if outcome[1] is None else "but not at equal proxy"
        return f"{see} has higher {what} at equal steps, {rest}"
    if outcome not in HELPS:
        return f"what {see} changes in {what} lies within the uncertainty"
    effect = f"{see} keeps {what} higher" + (" at equal proxy" if outcome[0] != "higher" else "")
    own = trio.against_control(trio.family.judge).outcome
    if own == (None, None):
        return f"{effect}, but without a temperature control to compare with the reason is open"
    if own in HELPS:
        return f"{effect}, and higher than the temperature control does"
    if own in LOOKS_BETTER:
        return f"{effect}, but its lead over the temperature control is shown at equal steps only"
    if own in HARMS:
        return f"{effect}, but the temperature control does better still"
    return f"{effect}, but so does the temperature control: the gain may be the temperature's alone"


def _sweep_headlines(trios: Sequence[Trio]) -> list[str]:
    """Many settings counted by what they show, against the base method and against the temperature control."""
    what = trios[0].family.judge
    against = {
        "the base method at the same beta": [trio.against_base(what).outcome for trio in trios],
        "the temperature control": [trio.against_control(what).outcome for trio in trios],
    }
    lines = []
    for called, outcomes in against.items():
        known = [outcome for outcome in outcomes if outcome != (None, None)]
        helps, harms = (sum(outcome in kind for outcome in known) for kind in (HELPS, HARMS))
        line = (
            f"of {count(len(known), 'setting')} with the entropy term that can be compared with {called}, {helps} "
            f"{'has' if helps == 1 else 'have'} a better trade-off in {trios[0].family.judge_name}, {harms} a worse "
            f"one, and {len(known) - helps - harms} cannot be told apart or gain at equal steps only"
        )
        lines.append(line if known else f"no setting with the entropy term can be compared with {called}")
    return lines


def _comparisons(trio: Trio) -> list[Comparison]:
    rows = []
    for left, right in ((trio.see, trio.base), (trio.see, trio.control), (trio.control, trio.base)):
        if left is None or right is None or left is right:
            continue
        keys = [key for key in (trio.family.judge, *DIVERSITY) if key in left.curves and key in right.curves]
        found = {key: versus(trio.family, left, right, key) for key in keys}
        step = next((entry.steps[0] for entry in found.values() if entry.steps), None)
        level = next((entry.proxy[0] for entry in found.values() if entry.proxy), None)
        if step is not None:
            cells = tuple((key, entry.steps[1] if entry.steps else None) for key, entry in found.items())
            rows.append(Comparison(left=left, right=right, condition=f"step {step}", cells=cells))
        if level is not None:
            cells = tuple((key, entry.proxy[1] if entry.proxy else None) for key, entry in found.items())
            rows.append(Comparison(left=left, right=right, condition=f"proxy {number(level.proxy)}", cells=cells))
    return rows
