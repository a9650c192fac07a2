"""Findings as a page for people: counts first, then what would spoil a run, then the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from seedpo.data.check.findings import TOKENS, Findings
from seedpo.data.check.overlaps import Overlap
from seedpo.data.files.inventory import printable
from seedpo.data.images.near_duplicates import MOST_BITS, MOST_LEVELS
from seedpo.data.text.values import shown

SHOWN = 5
"""Places that are named of each kind; the JSON file has them all."""

FOLDERS = 8
"""Folders that are named, those with most files; the JSON file has them all."""

_PROMPT = 60


def findings_text(findings: Findings) -> str:
    """A page for people: counts, leaks, shapes, what is odd, and whether a run could use the set."""
    lines = [f"{findings.origin}", *(f"  {line}" for line in _inventory(findings)), f"  {findings.summary}"]
    if findings.pairs is not None and findings.checked < findings.pairs:
        lines.append(f"  checked: {findings.checked} of {findings.pairs} {findings.unit}, evenly spread")
    else:
        lines.append(f"  checked: {findings.checked} {findings.unit}")
    for overlap in findings.overlaps:
        lines += _overlap(overlap)
    lines += _parts(findings)
    lines += _sizes(findings)
    lines += _buckets(findings)
    lines += _prompts(findings)
    lines += _places("pairs that show one image twice", findings.same_image)
    lines += _places(f"repeated {findings.unit}", findings.repeated)
    lines += _places(f"repeated {findings.unit} with other labels", findings.contradictions)
    lines += _alike(findings)
    lines += _places(f"{findings.unit} that cannot be used", findings.unreadable)
    lines += [f"  not checked: {line}" for line in findings.omitted]
    lines += [f"A run would stop: {reason}" for reason in findings.stops] or ["A run can use this set."]
    return "\n".join(lines)


def _inventory(findings: Findings) -> list[str]:
    """What the set found, and a table of its folders where there are several."""
    inventory, rows = findings.inventory, findings.folder_rows
    lines = inventory.lines()
    files = Counter(str(file.path.parent) for file in inventory.files)
    passed: dict[str, list[str]] = {}
    for entry in inventory.passed:
        passed.setdefault(str(entry.path), []).append(f"{entry.reason}: {entry.count}")
    folders = sorted({*files, *passed}, key=lambda folder: (-files[folder], folder))
    if len(folders) < 2:
        return lines
    names = [_relative(folder, inventory.origin) for folder in folders[:FOLDERS]]
    width = max(len(name) for name in (*names, "folder"))
    lines.append(f"{'folder':{width}}  {'files':>7}{'  rows found    used' if rows else ''}  passed over")
    for folder, name in zip(folders, names, strict=False):
        found, used = rows.get(folder, (0, 0))
        counts = f"{files[folder]:>7}" + (f"  {found:>10}  {used:>6}" if rows else "")
        lines.append(f"{name:{width}}  {counts}  {'; '.join(passed.get(folder, []))}".rstrip())
    return lines + ([f"and {len(folders) - FOLDERS} more folders"] if len(folders) > FOLDERS else [])


def _relative(folder: str, origin: str) -> str:
    """A folder's name within that of the set, if the set is a folder."""
    path = Path(folder)
    return printable(path.relative_to(origin) if path.is_relative_to(origin) else path)


def _overlap(overlap: Overlap) -> list[str]:
    first, second = overlap.parts
    prompts = [f"{shown(entry.prompt, _PROMPT)}: {entry.second} and {entry.first}" for entry in overlap.prompts]
    kind = "LEAK: " if overlap.is_leak else ""
    return [
        *_places(f"{kind}prompts in {first} and {second}", prompts),
        *_places(f"{kind}images in {first} and {second}", [str(entry) for entry in overlap.images]),
    ]


def _parts(findings: Findings) -> list[str]:
    if len(findings.parts) < 2:
        return []
    counts = ", ".join(f"{part} {count}" for part, count in findings.parts.items())
    leaks = "" if findings.leaks else "; none that is trained on is measured on"
    return [f"  different prompts: {counts}{leaks}"]


def _sizes(findings: Findings) -> list[str]:
    shapes = findings.shapes
    sizes = shapes.sizes
    total = sizes.total()
    if not total:
        return []
    common = sizes.most_common(SHOWN)
    table = [f"    {width:>6} x {height:<6} {count / total:7.1%}" for (height, width), count in common]
    if rest := total - sum(count for _, count in common):
        table.append(f"    {len(sizes) - len(common)} other sizes {rest / total:7.1%}")
    sides = ", ".join(f"{name} {value}" for name, value in shapes.shorter_sides.items())
    lines = ["  sizes of images (width x height):", *table, f"    shorter side: {sides} px"]
    if shapes.different_sizes:
        lines.append(f"    pairs whose images differ in size: {shapes.different_sizes}")
    if findings.too_small:
        lines.append(f"    images smaller than the resolution, which are enlarged: {findings.too_small}")
    if len(shapes.ratios) > 1:
        ratios = ", ".join(f"{name} {count / total:.1%}" for name, count in shapes.ratios.items())
        lines.append(f"    aspect ratios (width to height): {ratios}")
    return lines + _crops(findings)


def _crops(findings: Findings) -> list[str]:
    """A table of what each resolution would cut away and enlarge; none where the images are too small for any."""
    shapes, own = findings.shapes, findings.resolution
    crops = shapes.crops(own)
    head = f"    {'resolution':<16}  {'cut away: mean':>14}  {'95 %':>6}  {'most':>6}  {'enlarged':>8}"
    rows = [
        f"    {f'{crop.resolution} ' + ('buckets' if crop.buckets else 'square'):<16}  {crop.mean:>14.1%}  "
        f"{crop.quantile:>6.1%}  {crop.most:>6.1%}  {crop.enlarged:>8.1%}"
        + ("  pairs.resolution" if (crop.resolution, crop.buckets) == (own, findings.has_buckets) else "")
        for crop in crops
    ]
    return [*([head, *rows] if rows else []), f"  {shapes.advice()}"]


def _buckets(findings: Findings) -> list[str]:
    total = findings.buckets.total()
    if not total:
        return []
    table = [
        f"    {width:>6} x {height:<6} {count:>8} {count / total:7.1%}"
        for (height, width), count in sorted(findings.buckets.items(), key=lambda item: item[0][1] / item[0][0])
    ]
    mean, most = float(np.mean(findings.cropped)), max(findings.cropped)
    away = f"    cut away of an image: {mean:.1%} on average, {most:.1%} at most"
    return [f"  {findings.unit} in buckets (width x height):", *table, away]


def _prompts(findings: Findings) -> list[str]:
    line = f"  prompts: {findings.prompts} different ones"
    if findings.distinct_prompts < findings.prompts:
        line += f", {findings.distinct_prompts} but for case, blanks and punctuation"
    return [
        line,
        *_places("without a prompt", findings.empty_prompts),
        *_places(f"prompts of more than {TOKENS} tokens, whose end is not seen", findings.long_prompts),
    ]


def _alike(findings: Findings) -> list[str]:
    alike = findings.alike
    lines = [
        *_places("pairs whose two images are alike", [str(entry) for entry in alike.within_pairs]),
        *_places("images alike under other prompts", [str(entry) for entry in alike.other_prompts]),
        *_places(f"{findings.unit} alike", [str(entry) for entry in alike.pairs if not entry.is_turned]),
        *_places(f"{findings.unit} alike with other labels", [str(entry) for entry in alike.pairs if entry.is_turned]),
    ]
    if not lines:
        return []
    bounds = f"up to {MOST_BITS} of 64 bits of shape and {MOST_LEVELS:.0f} of 255 levels of colour apart"
    return [f"  near-duplicates among {findings.compared} images, {bounds}:", *(f"  {line}" for line in lines)]


def _places(what: str, places: Sequence[str]) -> list[str]:
    if not places:
        return []
    more = [f"    and {len(places) - SHOWN} more"] if len(places) > SHOWN else []
    return [f"  {what}: {len(places)}", *(f"    {place}" for place in places[:SHOWN]), *more]
