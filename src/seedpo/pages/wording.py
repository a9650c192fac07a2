"""Numbers and lists as a reader wants to see them in a sentence."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

MINUS = "\N{MINUS SIGN}"


def number(value: float) -> str:
    """Three significant digits but no more than three decimals, with a real minus sign; a dash for NaN and infinity."""
    if not math.isfinite(value):
        return "\N{EN DASH}"
    size = abs(value)
    if size == 0:
        text = "0"
    elif size >= 1e6 or size < 5e-4:
        text = f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e")
    else:
        text = f"{value:.{min(3, max(0, 2 - math.floor(math.log10(size))))}f}"
    return text.replace("-", MINUS)


def signed(value: float) -> str:
    """The same with a sign in front of positive numbers."""
    return f"+{number(value)}" if value > 0 else number(value)


def compact(value: float) -> str:
    """A number that somebody chose (0.1, 250, 1e-05): no trailing zeros."""
    return f"{value:g}".replace("-", MINUS)


def is_interval(low: float, high: float) -> bool:
    """Whether both ends are known and lie apart: an interval without width would look certain."""
    return math.isfinite(low) and math.isfinite(high) and not math.isclose(low, high, rel_tol=1e-9)


def interval(low: float, high: float) -> str:
    """``[low, high]``, or empty text without an interval."""
    return f"[{number(low)}, {number(high)}]" if is_interval(low, high) else ""


def duration(seconds: float) -> str:
    """Seconds in the two largest units that matter."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def count(amount: int, noun: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{amount} {noun}" if amount == 1 else f"{amount} {noun}s"


def listing(items: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return f"{', '.join(items[:-1])} and {items[-1]}" if len(items) > 1 else "".join(items)


def sentence(text: str) -> str:
    """The text with a capital letter in front."""
    return text[:1].upper() + text[1:]


def written(value: Any) -> str:
    """A value of a configuration as the command line takes it: YAML in one line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
