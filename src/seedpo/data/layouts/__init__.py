"""Layouts of preferences: how a table's columns tell its pairs. A further layout is one row in one of these files."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from seedpo.data.layouts import answers, image_lists, single_images, two_images
from seedpo.data.layouts.columns import PLAIN, Columns, Shape, column_root
from seedpo.data.layouts.layout import PROMPT_COLUMNS, Layout, PairRule, Reading, Reason
from seedpo.errors import DataError

__all__ = [
    "IMAGE_COLUMNS",
    "LAYOUTS",
    "PROMPT_COLUMNS",
    "Layout",
    "PairRule",
    "Reading",
    "Reason",
    "find_layout",
]

LAYOUTS = (*two_images.LAYOUTS, *image_lists.LAYOUTS, *single_images.LAYOUTS, *answers.LAYOUTS)
"""All layouts; the first ones are named first in messages."""

IMAGE_COLUMNS = frozenset(
    name
    for layout in LAYOUTS
    for names, is_list in zip(layout.images, layout.lists, strict=True)
    for name in names
    if not (layout.several_rows or is_list or "." in name)
)
"""Names of columns that hold one of the two images of a row."""


def find_layout(
    columns: Collection[str],
    *,
    origin: str,
    shape: Shape = PLAIN,
    own: Mapping[str, str] | None = None,
) -> Reading:
    """The layout of a table.

    Args:
        columns: names of the columns.
        origin: what the table is called in messages.
        shape: kinds of their values.
        own: ``pairs.columns``: the table's own names, by the usual ones.

    Raises:
        DataError: if no layout has all of its columns there, or several do; the message names what is missing.
    """
    own = dict(own or {})
    _check_own(own, columns, origin)
    table = Columns(names=list(columns), shape=shape)
    shown = _shown(table, own)
    layouts = [layout for layout in LAYOUTS if set(own) <= layout.known_names]
    if not layouts:
        raise DataError(f"pairs.columns names {', '.join(own)}, which no layout has together; {_expected()}")
    fitting = [layout for layout in layouts if layout.fits(shown)]
    refined = {title for layout in fitting for title in layout.refines}
    fitting = [layout for layout in fitting if layout.title not in refined]
    if len(fitting) > 1:
        names = " and ".join(f"«{layout.title}» ({_columns(layout)})" for layout in fitting)
        raise DataError(f"{origin} fits {names}; say which columns hold the pairs: {_mapping(fitting[0])}")
    if not fitting:
        raise DataError(_no_layout(layouts, shown, table, origin))
    return _with_own_names(fitting[0].of_table(shown), own)


def _check_own(own: Mapping[str, str], columns: Collection[str], origin: str) -> None:
    known = sorted({name for layout in LAYOUTS for name in layout.known_names})
    if strange := [name for name in own if name not in known]:
        raise DataError(f"pairs.columns names {', '.join(strange)}; the usual names are {', '.join(known)}")
    for usual, name in own.items():
        if column_root(name, columns) is None:
            raise DataError(f"{origin} lacks the column {name!r} that pairs.columns.{usual} names; {_has(columns)}")


def _with_own_names(reading: Reading, own: Mapping[str, str]) -> Reading:
    first, second = (own.get(name, name) for name in reading.images)
    marks = {usual: own.get(name, name) for usual, name in reading.marks.items()}
    return replace(reading, prompt=own.get(reading.prompt, reading.prompt), images=(first, second), marks=marks)


def _shown(table: Columns, own: Mapping[str, str]) -> Columns:
    """The columns of a table, those that the user names by their usual names."""
    names = [name for name in table if name not in own.values() and name not in own]
    lists = [name for name in names if table.holds_lists(name)]
    lists += [usual for usual, name in own.items() if table.holds_lists(name)]
    return Columns(names=[*names, *own], shape=Shape(lists=lists, keys=table.shape.keys))


def _no_layout(layouts: Collection[Layout], shown: Columns, table: Columns, origin: str) -> str:
    def likeness(layout: Layout) -> tuple[int, int]:
        own = layout.needed[1:]  # a column of prompts tells no layout from another
        return sum(any(name in shown for name in names) for names in own), -len(layout.missing(shown))

    nearest = max(layouts, key=likeness)
    if missing := nearest.missing(shown):
        fault = f"lacks the columns {missing}; {_has(table)}; the nearest layout is «{nearest.title}»"
        mend = f"name your own columns with {_mapping(nearest)}; {_expected()}"
        return f"{origin} {fault} ({_columns(nearest)}); {mend}"
    kinds = ["a list of images" if is_list else "one image" for is_list in nearest.lists]
    images = nearest.of_table(shown).images
    wrong = [
        f"{name} must hold {kind}"
        for name, kind, is_list in zip(images, kinds, nearest.lists, strict=True)
        if shown.holds_lists(name) != is_list
    ]
    return f"{origin} has the columns of «{nearest.title}», but {' and '.join(dict.fromkeys(wrong))}"


def _has(columns: Collection[str]) -> str:
    names = sorted(columns)
    return f"it has {names[:30]}" + (f" and {len(names) - 30} more" if len(names) > 30 else "")


def _columns(layout: Layout) -> str:
    return ", ".join(names[0] for names in layout.needed)


def _mapping(layout: Layout) -> str:
    names = ", ".join(f"{names[0]}: NAME" for names in layout.needed)
    return f"--set 'pairs.columns={{{names}}}'"


def _expected() -> str:
    return "expected are " + "; ".join(f"{_columns(layout)} ({layout.title})" for layout in LAYOUTS[:2])
