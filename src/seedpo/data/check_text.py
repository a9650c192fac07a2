"""The findings of a check as text for the screen."""

from __future__ import annotations

from collections.abc import Sequence

from seedpo.data.check import TOKENS, Findings

SHOWN = 5
"""Places that are named of each kind; the JSON file has them all."""


def findings_text(findings: Findings) -> str:
    """A page for people: figures first, then what is odd, then whether a run could use it."""
    lines = [f"{findings.origin}", f"  {findings.summary}"]
    if findings.pairs is not None and findings.checked < findings.pairs:
        lines.append(f"  checked: {findings.checked} of {findings.pairs} pairs, evenly spread")
    else:
        lines.append(f"  checked: {findings.checked} pairs")
    lines += _sizes(findings)
    lines.append(f"  prompts: {findings.prompts} different ones")
    lines += _places("without a prompt", findings.empty_prompts)
    lines += _places(f"prompts of more than {TOKENS} tokens, whose end is not seen", findings.long_prompts)
    lines += _places("pairs that show one image twice", findings.same_image)
    lines += _places("repeated pairs", findings.repeated)
    lines += _places("repeated pairs with other labels", findings.contradictions)
    lines += _places("pairs that cannot be used", findings.unreadable)
    lines += [f"A run would stop: {reason}" for reason in findings.stops] or ["A run can use this set."]
    return "\n".join(lines)


def _sizes(findings: Findings) -> list[str]:
    total = findings.sizes.total()
    if not total:
        return []
    common = findings.sizes.most_common(SHOWN)
    table = [f"    {width:>6} x {height:<6} {count / total:7.1%}" for (width, height), count in common]
    if rest := total - sum(count for _, count in common):
        table.append(f"    {len(findings.sizes) - len(common)} other sizes {rest / total:7.1%}")
    sides = ", ".join(f"{name} {value}" for name, value in findings.shorter_sides.items())
    lines = ["  sizes of images (width x height):", *table, f"    shorter side: {sides} px"]
    if findings.different_sizes:
        lines.append(f"    pairs whose images differ in size: {findings.different_sizes}")
    if findings.too_small:
        lines.append(f"    images smaller than the resolution, which are enlarged: {findings.too_small}")
    return lines


def _places(what: str, places: Sequence[str]) -> list[str]:
    if not places:
        return []
    more = [f"    and {len(places) - SHOWN} more"] if len(places) > SHOWN else []
    return [f"  {what}: {len(places)}", *(f"    {place}" for place in places[:SHOWN]), *more]
