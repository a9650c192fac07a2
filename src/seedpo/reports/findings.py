"""What a family of runs shows: verdicts with their numbers on reward hacking and on what the entropy term changes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from seedpo.core.verdicts import Difference, Outcome
from seedpo.pages.tables import DASH, Badge, Cell, Table, Tone
from seedpo.pages.wording import count, interval, listing, number, signed
from seedpo.reports.contrasts import Contrast, Level, at_equal_proxy, at_equal_steps
from seedpo.reports.families import Family, Setting, differing_keys
from seedpo.reports.names import figure_name, of_kind
from seedpo.reports.verdict_cells import fall_cell, mean_text, outcome_badge, rise_cell, value_cell
from seedpo.settings import dotted

MOST_NAMED = 3
"""With more settings of the entropy term and others than this, the headline counts verdicts instead of naming each."""

SUMMARIES = (
    ("see", "SEE against the same \N{GREEK SMALL LETTER BETA}", "base_of"),
    ("see", "SEE against the control", "control_of"),
    ("term", "other terms against the same \N{GREEK SMALL LETTER BETA}", "base_of"),
)
"""What the headline counts then: role, words, and the rival's property of the family."""

IMAGES = ("prompts", "num_prompts", "images_per_prompt", "num_inference_steps", "guidance_scale", "seed")
"""Keys of the evaluation that decide which images are drawn."""


class TradeOff(StrEnum):
    """What the entropy term changes in a figure. The value is the word that pages show."""

    BETTER = "better trade-off"
    SLOWER = "higher at equal steps only"
    WORSE = "worse trade-off"
    NOT_SHOWN = "no difference shown"
    NOT_COMPARABLE = "not comparable"


TRADE_OFF_TONES: dict[TradeOff, Tone] = {TradeOff.BETTER: "good", TradeOff.WORSE: "bad"}
DIFFERENCE_TONES: dict[Difference, Tone] = {Difference.HIGHER: "good", Difference.LOWER: "bad"}


def trade_off(steps: Difference, proxy: Difference) -> TradeOff:
    """What follows from two comparisons of one figure.

    Equal proxy decides: a setting that learns more slowly looks better at equal steps, and is not.

    Args:
        steps: at equal steps.
        proxy: at equal proxy.
    """
    if proxy is Difference.HIGHER:
        return TradeOff.BETTER
    if steps is Difference.HIGHER:
        return TradeOff.SLOWER
    if Difference.LOWER in (steps, proxy):
        return TradeOff.WORSE
    return TradeOff.NOT_COMPARABLE if {steps, proxy} == {Difference.NOT_COMPARABLE} else TradeOff.NOT_SHOWN


@dataclass(frozen=True, kw_only=True)
class Effect:
    """One figure of a setting against another's, at equal steps and at equal proxy; ``None`` where that is not known.

    Attributes:
        left, right: the settings.
        key: the figure.
        steps: the common step and the comparison there.
        proxy: the common proxy and the comparison there.
    """

    left: Setting
    right: Setting
    key: str
    steps: tuple[int, Contrast] | None
    proxy: tuple[Level, Contrast] | None

    @property
    def trade_off(self) -> TradeOff:
        """The conclusion."""
        unknown = Difference.NOT_COMPARABLE
        return trade_off(
            self.steps[1].verdict if self.steps else unknown, self.proxy[1].verdict if self.proxy else unknown
        )


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a family of runs shows.

    Attributes:
        family: the runs.
        settings: those that were evaluated, with their verdicts on reward hacking.
        effects: differences between settings.
        notes: what limits the evidence, a sentence each.
    """

    family: Family
    settings: tuple[Setting, ...]
    effects: tuple[Effect, ...]
    notes: tuple[str, ...]

    @property
    def badges(self) -> list[tuple[str, Badge]]:
        """The headline: what is judged, and its verdict."""
        base = [setting for setting in self.settings if setting.role == "base"][:1]
        rows = [(setting.name, _outcome_badge(setting)) for setting in base]
        main = [one for one in self.effects if one.left.role in ("see", "term") and one.key == self.family.judge]
        if len({effect.left.name for effect in main}) <= MOST_NAMED:
            return rows + [
                (f"{effect.left.name} against {effect.right.name}", _trade_off_badge(effect.trade_off))
                for effect in main
            ]
        for role, called, rivals in SUMMARIES:
            of_role = [effect for effect in main if effect.left.role == role]
            known = [effect for effect in of_role if effect.right is getattr(self.family, rivals)(effect.left)]
            words = Counter(effect.trade_off for effect in known).most_common()
            tones = {TRADE_OFF_TONES.get(word, "open") for word, _ in words}
            text = ", ".join(f"{amount} {word}" for word, amount in words)
            if words:
                rows.append((called, Badge(text=text, tone=tones.pop() if len(tones) == 1 else "open")))
        return rows

    @property
    def hacking_table(self) -> Table:
        """One row per setting: peak, fall and rise of the held-out figure, and what the proxy did since the peak."""
        header = ("setting", "verdict", "held-out figure", "peak", "last", "fall", "rise", "proxy, peak to last")
        return Table.of(header, map(_hacking_row, self.settings))

    @property
    def effects_table(self) -> Table:
        """One row per pair of settings and figure."""
        header = ("difference", "figure", "at equal steps", "at equal proxy", "verdict")
        return Table.of(header, map(_effect_row, self.effects))


def findings(family: Family) -> Findings:
    """Computes all verdicts of a family."""
    settings = tuple(setting for setting in family.settings if setting.curves)
    return Findings(
        family=family,
        settings=settings,
        effects=tuple(_effects(family)),
        notes=tuple(_notes(family, settings)),
    )


def _effects(family: Family) -> Iterator[Effect]:
    """SEE and terms against base and control, and control against base, in the judge and in each diversity."""
    for one in (setting for setting in family.settings if setting.role in ("see", "term") and setting.curves):
        base, control = family.base_of(one), family.control_of(one)
        of_see = [(control, base)] if one.role == "see" else []
        for left, right in [(one, base), *([(one, control)] if one.gamma else []), *of_see]:
            if left is None or right is None or left is right:
                continue
            for key in (family.judge, *of_kind("diversity", family.figures)):
                if key in left.curves and key in right.curves:
                    yield Effect(
                        left=left,
                        right=right,
                        key=key,
                        steps=at_equal_steps(left, right, key),
                        proxy=at_equal_proxy(left, right, key, family.proxy),
                    )


def _outcome_badge(setting: Setting) -> Badge:
    steps = sorted(verdict.peak_step for verdict in setting.verdicts if verdict.outcome is setting.outcome)
    after = f" after step {steps[len(steps) // 2]}" if setting.outcome in (Outcome.HACKING, Outcome.COLLAPSE) else ""
    return outcome_badge(setting.outcome, setting.verdicts, after=after)


def _trade_off_badge(word: TradeOff) -> Badge:
    return Badge(text=word, tone=TRADE_OFF_TONES.get(word, "open"))


def _hacking_row(setting: Setting) -> Sequence[Cell | str]:
    name = Cell(text=setting.name, role=setting.role)
    known = [verdict for verdict in setting.verdicts if verdict.outcome is not Outcome.NOT_MEASURED]
    if not known:
        return (name, Cell(badge=_outcome_badge(setting)), *[DASH] * 6)
    return (
        name,
        Cell(badge=_outcome_badge(setting)),
        listing(list(dict.fromkeys(figure_name(verdict.judge) for verdict in known))),
        value_cell(known, "peak"),
        value_cell(known, "last"),
        fall_cell(known),
        rise_cell(known),
        f"{mean_text(known, 'proxy_peak')} to {mean_text(known, 'proxy_last')}",
    )


def _effect_row(effect: Effect) -> Sequence[Cell | str]:
    steps = f"step {effect.steps[0]}" if effect.steps else ""
    proxy = ""
    if effect.proxy:
        level = effect.proxy[0]
        proxy = f"proxy {number(level.proxy)} (steps {level.left:.0f}, {level.right:.0f})"
    return (
        Cell(text=effect.left.name, small=(f"against {effect.right.name}",), role=effect.left.role),
        figure_name(effect.key),
        _contrast_cell(effect.steps[1] if effect.steps else None, steps),
        _contrast_cell(effect.proxy[1] if effect.proxy else None, proxy),
        Cell(badge=_trade_off_badge(effect.trade_off)),
    )


def _contrast_cell(contrast: Contrast | None, where: str) -> Cell:
    """The difference with its verdict; below it the values, and the paired interval or the seeds where there are."""
    if contrast is None:
        return Cell(text=DASH)
    evidence = [] if contrast.judged else ["no intervals"]
    evidence += [f"paired {interval(contrast.paired.low, contrast.paired.high)}"] if contrast.paired else []
    evidence += [f"higher in {contrast.wins[0]} of {contrast.wins[1]} seeds"] if contrast.wins[1] > 1 else []
    values = f"{number(contrast.left.value)} against {number(contrast.right.value)}, {where}"
    return Cell(
        text=signed(contrast.difference),
        small=(values, *evidence),
        badge=Badge(text=contrast.verdict, tone=DIFFERENCE_TONES.get(contrast.verdict, "open")),
    )


def _notes(family: Family, measured: Sequence[Setting]) -> Iterator[str]:
    """What to know before believing the differences."""
    for twin, run in family.twins:
        yield f"{twin.place} holds the same run as {run.place} (settings and seed are equal): it counts once."
    if not measured:
        yield "These runs hold no evaluation."
        return
    fewest = min(
        len({seed for seed, curves in zip(setting.seeds, setting.by_seed, strict=True) if curves})
        for setting in measured
    )
    if fewest > 1:
        # All of n values above all of n others, either way round: 2 of the (2n choose n) equally likely orders.
        odds = math.comb(2 * fewest, fewest) // 2
        yield (
            f"{count(fewest, 'seed')} or more per setting. Without any effect, the ranges of two settings with "
            f"{fewest} seeds still lie apart in one of {odds} comparisons."
        )
    elif any(point.has_interval for setting in measured for curve in setting.curves.values() for point in curve.points):
        yield "One seed per setting: intervals cover the evaluation prompts, not the seed of the training."
    else:
        yield "One seed per setting and no intervals: an effect cannot be distinguished from chance."
    for see in (setting for setting in measured if setting.role == "see"):
        if family.control_of(see) is None:
            yield f"{see.name} has no temperature control: its effect may come from the temperature alone."
    different = different_evaluations(family)
    if different:
        yield f"Evaluations differ in {listing(different)}: part of every difference may come from that."


def different_evaluations(family: Family) -> list[str]:
    """Keys of the evaluation that are not the same in all runs although the images depend on them."""
    runs = [run for setting in family.settings for run in setting.runs]
    configs = [dotted({"evaluation": run.config.get("evaluation", {})}) for run in runs]
    keys = [key for key in differing_keys(configs) if key in {f"evaluation.{name}" for name in IMAGES}]
    if not keys and len({run.samples.prompts for run in runs if run.samples}) > 1:
        return ["the prompts"]
    return keys
