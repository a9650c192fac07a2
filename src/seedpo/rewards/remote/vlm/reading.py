"""Numbers and choices in the text of an answer.

Whatever cannot be read beyond doubt is an :class:`Unanswered`, never a guess: an answer without a number, with two
different ones, or with one out of range or copied from the prompt.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Mapping

from seedpo.rewards.remote.vlm.answers import (
    BOTH,
    COPIED,
    CUT,
    EMPTY,
    NO_CHOICE,
    NO_NUMBER,
    OUT_OF_RANGE,
    REFUSAL,
    SEVERAL,
    TOO_LONG,
    Answer,
    Unanswered,
)
from seedpo.rewards.remote.vlm.messages import harmless
from seedpo.rewards.remote.vlm.templates import Choice, Number, PairTemplate, PointTemplate

LONGEST = 1 << 17
"""Characters of an answer at most."""

_BETWEEN = r"""(?:\s*\([^()\n]{0,20}\))?[\s*_`:=#"'\[(]*"""
"""What may stand between a label and its value: a range in brackets, and marks."""

_MARKS = re.compile(r"""[\s#*_>\d.){}("'`-]*""")
"""What may stand before a label that begins a line."""

_NO_ANSWER = re.compile(
    r"\W*(?:(?:i(?:['\u2019]m| am) )?(?:very |really )?(?:sorry|unable|not able)\b"
    r"|i (?:can(?:['\u2019]t|not)|won['\u2019]t|must decline)\b|as an ai\b)",
    re.IGNORECASE,
)
"""How refusals begin. It only names what has no number anyway."""


def clean(text: str) -> str:
    """An answer without tags and with characters in place of entities."""
    return re.sub(r"</?[A-Za-z][^<>\n]{0,100}>", " ", html.unescape(text))


def without_echo(text: str, prompt: str) -> str:
    """An answer without the whole prompt, which may speak of scores itself; an answer that is nothing else stays.

    Args:
        text: of the answer, see :func:`clean`.
        prompt: as the user wrote it; the model saw it without tags.
    """
    rest = text
    for words in (harmless(prompt).split(), clean(prompt).split()):
        if len(words) > 1:
            rest = re.sub(r"\s+".join(map(re.escape, words)), " ", rest, flags=re.IGNORECASE)
    return rest if re.search(r"\w", rest) else text


def number_pattern(label: str, top: float) -> re.Pattern[str]:
    """What finds the numbers after a label; N/A counts as one.

    Digits are 0 to 9, and nothing may follow in the line that makes another number of it: ``8.5.1``, ``8,5``,
    ``80%``, ``7-8``, ``7 1/2``, ``7 and 8``, ``8/100``. ``8/10`` and ``8 out of 10`` are 8 where 10 is the highest.
    """
    whole = rf"(?:[\s*_`]*(?:/|(?:out\s+)?of)[\s*_`]*{top:g}(?:\.0)?)?"
    blank = r"[^\S\n]*"
    ranges = rf"{blank}(?:%|percent\b|(?:to|or|and|x|of|out{blank}of){blank}\d)|\.\.+{blank}\d|[^\w\n.!?()]*\d"
    end = rf"(?![\w%]|[.,]\w|{ranges})"
    before = rf"(?<!\w){re.escape(label)}{_BETWEEN}" if label else r"\A\W*?"
    return re.compile(rf"{before}(?P<value>-?[0-9]{{1,6}}(?:\.[0-9]{{1,20}})?{whole}|n/a){end}", re.IGNORECASE)


def leading(text: str, matches: Iterable[re.Match[str]]) -> list[re.Match[str]]:
    """Those of some labels with their values that count: in lines that begin with one, if there are any; else all.

    So the line ``Score: 3`` says more than a score of which the sentences before it speak.
    """
    lines: list[list[re.Match[str]]] = []
    before = 0
    for match in matches:
        if not lines or "\n" in text[before : match.start()]:
            lines.append([])
        lines[-1].append(match)
        before = match.start()
    begun = [line for line in lines if _MARKS.fullmatch(text, _line_start(text, line[0]), line[0].start())]
    return [match for line in begun or lines for match in line]


def _line_start(text: str, match: re.Match[str]) -> int:
    return text.rfind("\n", 0, match.start()) + 1


def numbers(text: str, label: str, top: float) -> dict[float | None, bool]:
    """The different numbers after a label, and whether each stands alone in a line; ``None`` is N/A."""
    return _values(text, leading(text, number_pattern(label, top).finditer(text)))


def _values(text: str, matches: Iterable[re.Match[str]]) -> dict[float | None, bool]:
    values: dict[float | None, bool] = {}
    for match in matches:
        digits = re.match(r"[-0-9.]+", match["value"])
        value = float(digits[0]) if digits else None
        rest = text[match.end() :].partition("\n")[0]
        begins = _MARKS.fullmatch(text, _line_start(text, match), match.start()) is not None
        values[value] = values.get(value, False) or (begins and not re.search(r"\w", rest))
    return values


def is_copied(value: float | None, alone: bool, label: str, top: float, prompt: str) -> bool:
    """Whether a number may be one that the prompt states after the same label, which a model repeats.

    It is the model's own if it stands alone in its line, as models are asked to write it, and not in the prompt.
    """
    words = clean(prompt)
    stated = _values(words, number_pattern(label, top).finditer(words))
    return value in stated and (stated[value] or not alone)


def sections(text: str, headings: Iterable[str]) -> dict[str, str]:
    """The parts of a text by the heading at whose line they begin; each ends at the next heading."""
    marks = sorted(
        (match.end(), match.start(), heading)
        for heading in dict.fromkeys(filter(None, headings))
        for match in re.finditer(rf"^[ \t#*_>\d.)-]*{re.escape(heading)}(?!\w)", text, re.IGNORECASE | re.MULTILINE)
    )
    parts: dict[str, str] = {}
    for place, (end, _, heading) in enumerate(marks):
        following = marks[place + 1][1] if place + 1 < len(marks) else len(text)
        parts[heading] = f"{parts.get(heading, '')}\n{text[end:following]}"
    return parts


def read_point(answer: Answer, template: PointTemplate, *, aspect: str | None, prompt: str) -> float | Unanswered:
    """The number that a template looks for: that of an aspect, or the mean of all that apply."""
    text = _readable(answer, prompt)
    if isinstance(text, Unanswered):
        return text
    low, high = template.range
    wanted = template.aspects if aspect is None else {aspect: template.aspects[aspect]}
    parts = sections(text, [*(number.heading for number in template.aspects.values()), template.end])
    values = []
    for number in wanted.values():
        value = _number(text, parts, number, template, prompt)
        if isinstance(value, str):
            return _unanswered(answer, value)
        if value is not None:
            values.append(value)
    if not values:
        return _unanswered(answer, NO_NUMBER)
    mean = math.fsum(values) / len(values)
    return (mean - low) / (high - low) if template.rescaled else mean


def _number(
    text: str, parts: Mapping[str, str], number: Number, template: PointTemplate, prompt: str
) -> float | str | None:
    """A number, why there is none, or ``None`` if it does not apply."""
    low, high = template.range
    place = parts.get(number.heading, "") if number.heading else text
    found = numbers(place, number.label, high)
    if not found and template.bare:
        found = _only_number(text, high)
    if len(found) != 1:
        return SEVERAL if found else NO_NUMBER
    ((value, alone),) = found.items()
    if is_copied(value, alone, number.label, high, prompt):
        return COPIED
    if value is None:
        return None if number.optional else NO_NUMBER
    return value if low <= value <= high else OUT_OF_RANGE


def _only_number(text: str, top: float) -> dict[float | None, bool]:
    """The number of an answer that holds nothing else."""
    match = number_pattern("", top).match(text)
    rest = text[match.end() :] if match else "-"
    return numbers(text, "", top) if match and not re.search(r"\w", rest) else {}


def read_pair(answer: Answer, template: PairTemplate, *, aspect: str | None, prompt: str) -> float | Unanswered:
    """1 if the first image shown is better, -1 if the second is, 0 if neither."""
    text = _readable(answer, prompt)
    if isinstance(text, Unanswered):
        return text
    if template.choice is not None:
        verdict = _choice(text, template.choice)
        return _unanswered(answer, verdict) if isinstance(verdict, str) else verdict
    wanted = template.aspects if aspect is None else {aspect: template.aspects[aspect]}
    parts = sections(text, [two.heading for two in template.aspects.values()])
    low, high = template.range
    differences = []
    for two in wanted.values():
        found = [list(numbers(parts.get(two.heading, ""), label, high)) for label in (two.first, two.second)]
        if any(len(values) != 1 or values[0] is None for values in found):
            return _unanswered(answer, SEVERAL if any(len(values) > 1 for values in found) else NO_NUMBER)
        first, second = (values[0] or 0.0 for values in found)
        if not (low <= first <= high and low <= second <= high):
            return _unanswered(answer, OUT_OF_RANGE)
        differences.append(first - second)
    difference = math.fsum(differences)
    return math.copysign(1.0, difference) if difference else 0.0


def _choice(text: str, choice: Choice) -> float | str:
    meanings = {
        word.casefold(): value
        for value, words in ((1.0, choice.first), (-1.0, choice.second), (0.0, choice.tie))
        for word in words
    }
    words = "|".join(re.escape(word) for word in sorted(meanings, key=len, reverse=True))
    before = rf"(?<!\w){re.escape(choice.label)}{_BETWEEN}" if choice.label else r"(?<!\w)"
    also = rf"[^\S\n]*(?:[,&|=+~-]|vs\b\.?|versus\b)[^\S\n]*(?:{words})(?!\w)"
    pattern = re.compile(rf"{before}({words})(?!\w|[.,]\d|%|\s*(?:/|or\b|and\b)|{also})", re.IGNORECASE)
    found = {meanings[match[1].casefold()] for match in leading(text, pattern.finditer(text))}
    return found.pop() if len(found) == 1 else BOTH if found else NO_CHOICE


def _readable(answer: Answer, prompt: str) -> str | Unanswered:
    """What is read; of an answer that was cut off the last word counts as unfinished, since 1 may begin 10."""
    if answer.refused:
        return Unanswered(REFUSAL, answer.text)
    if len(answer.text) > LONGEST:
        return Unanswered(TOO_LONG, answer.text[:LONGEST])
    text = without_echo(clean(answer.text), prompt)
    return f"{text}_" if answer.cut else text


def _unanswered(answer: Answer, reason: str) -> Unanswered:
    """An answer without what was looked for; refusals and answers that were cut off say why."""
    if not answer.text:
        return Unanswered(CUT if answer.cut else EMPTY, "")
    if reason in (NO_NUMBER, NO_CHOICE):
        reason = CUT if answer.cut else REFUSAL if _NO_ANSWER.match(answer.text) else reason
    return Unanswered(reason, answer.text)
